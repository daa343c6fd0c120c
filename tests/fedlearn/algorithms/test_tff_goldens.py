"""What real TFF 0.40 did on small data, to the letter of the types and to 1e-3 in value."""

import json
import pathlib

import keras
import numpy as np
import pytest
from goldens import learning_cases

import fedcore
import fedlearn
import fedsim

# What the state holds in another way than in TFF 0.40, which has Keras 2: Keras 3's Adam
# has the two moments of a weight side by side; the learning rate of a functional model's
# clients can be read and set.
OTHER_STATES = {"server_keras_adam", "saturated_fed_avg_functional"}
_FOLDER = pathlib.Path(__file__).parents[2] / "goldens"
GOLDENS = json.loads((_FOLDER / "learning_tff_0_40.json").read_text())
PROCESSES = learning_cases.processes(fedlearn, keras)
OPTIMIZERS = learning_cases.optimizer_processes(fedlearn, keras)
SATURATED = learning_cases.saturated_processes(fedlearn, keras)


def assert_agree(found, golden, where):
    assert list(found) == list(golden), where
    for path, values in golden.items():
        np.testing.assert_allclose(
            np.asarray(found[path], np.float64),
            np.asarray(values, np.float64),
            rtol=1e-3,
            atol=1e-5,
            err_msg=f"{where}: {path}",
        )


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.filterwarnings("ignore:Batch normalisation")
def test_process_agrees_with_tff(name):
    assert_process_agrees(name, learning_cases.run(*PROCESSES[name]))


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_optimizer_agrees_with_tff(name):
    assert_process_agrees(name, learning_cases.run(*OPTIMIZERS[name]))


@pytest.mark.parametrize("name", SATURATED)
def test_probabilities_of_0_and_1_are_as_in_tff(name):
    data = learning_cases.saturated_data()
    found = learning_cases.run_on(SATURATED[name], [data] * 3)
    assert_process_agrees(f"saturated_{name}", found)


def assert_process_agrees(name, found):
    golden = GOLDENS[name]
    if name not in OTHER_STATES:
        assert found["initialize_type"] == golden["initialize_type"]
        assert found["next_type"] == golden["next_type"]
        assert_agree(found["hparams"], golden["hparams"], f"{name}, hyperparameters")
    for number, (ours, theirs) in enumerate(zip(found["rounds"], golden["rounds"])):
        for part in ("metrics", "trainable", "non_trainable"):
            assert_agree(ours[part], theirs[part], f"{name}, round {number}, {part}")


@pytest.fixture(scope="module")
def evaluations():
    return learning_cases.evaluations(fedlearn, keras, fedcore.to_type)


@pytest.mark.parametrize("name", ["federated", "local"])
def test_evaluation_agrees_with_tff(evaluations, name):
    golden = GOLDENS["evaluations"][name]
    assert evaluations[name]["type"] == golden["type"]
    assert_agree(evaluations[name]["result"], golden["result"], name)


@pytest.mark.parametrize("name", ["plain", "with_context"])
def test_personalization_agrees_with_tff(evaluations, name):
    golden = GOLDENS["evaluations"]["personalization"][name]
    found = evaluations["personalization"][name]
    assert found["type"] == golden["type"]
    assert_agree(found["result"], golden["result"], name)


@pytest.mark.parametrize("name", ["fed_avg_momentum", "mime_lite_adam", "fed_sgd"])
def test_process_agrees_with_tff_on_the_reference_runtime(name):
    with fedcore.context.use(fedsim.runtime.ReferenceContext()):
        test_process_agrees_with_tff(name)
