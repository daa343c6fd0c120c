"""Federated reconstruction agrees with real TFF 0.40."""

import importlib.util
import json
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

import fedlearn
from fedlearn import reconstruction

GOLDENS = pathlib.Path(__file__).parents[2] / "goldens"
NAMES = list(json.loads((GOLDENS / "reconstruction_tff_0_40.json").read_text()))


def golden_script():
    spec = importlib.util.spec_from_file_location(
        "reconstruction", GOLDENS / "reconstruction.py"
    )
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


def test_every_case_has_a_golden():
    assert sorted(NAMES) == sorted(golden_script().CASES)


@pytest.mark.parametrize("name", NAMES)
def test_types_and_rounds_equal_those_of_tff(name):
    script = golden_script()
    golden = json.loads((GOLDENS / "reconstruction_tff_0_40.json").read_text())[name]
    found = script.run(
        tf, np, keras, reconstruction, fedlearn.ClientWeighting, script.CASES[name]
    )
    assert found["next"] == golden["next"]
    assert found["evaluation"] == golden["evaluation"]
    for ours, theirs in zip(found["rounds"], golden["rounds"], strict=True):
        for part in ("train", "eval"):
            assert list(ours[part]) == list(theirs[part])
            np.testing.assert_allclose(
                list(ours[part].values()), list(theirs[part].values()), rtol=1e-4
            )
        for part in ("trainable", "non_trainable"):
            for a, b in zip(ours[part], theirs[part], strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
