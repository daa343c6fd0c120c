"""Every kind of client data as a computation: the same data as read eagerly."""

import collections

import numpy as np
import pytest
import tensorflow as tf

from fedsim.datasets import emnist
from fedsim.datasets.client_data import ClientData
from fedsim.datasets.file_per_user import FilePerUserClientData
from fedsim.datasets.sql import (
    SqlClientData,
    load_and_parse_sql_client_data,
    save_to_sql_client_data,
)
from fedsim.datasets.test_client_data import TestClientData
from fedsim.datasets.transforming import TransformingClientData

EMNIST_TYPE = "(string -> <label=int32,pixels=float32[28,28]>*)"


def small():
    return TestClientData(
        {
            "a": collections.OrderedDict(x=[1, 2, 3], s=["u", "v", "w"]),
            "b": collections.OrderedDict(x=[4], s=["x"]),
        }
    )


def saved(directory):
    data = small()
    path = str(directory / "data.sqlite")
    save_to_sql_client_data(["a", "b"], data.create_tf_dataset_for_client, path)
    return path, data.element_type_structure


def file_per_user(directory):
    (directory / "a").write_text("one\ntwo")
    (directory / "b").write_text("three")
    return FilePerUserClientData.create_from_dir(directory, tf.data.TextLineDataset)


SMALL_TYPE = "(string -> <x=int32,s=string>*)"
CASES = {
    "test": (lambda _: small(), SMALL_TYPE),
    "tf_fn": (
        lambda _: ClientData.from_clients_and_tf_fn(
            ["a", "b"], lambda i: tf.data.Dataset.range(3).map(lambda k: (k, i))
        ),
        "(string -> <int64,string>*)",
    ),
    "preprocessed": (
        lambda _: small().preprocess(lambda d: d.repeat(2).batch(2)),
        "(string -> <x=int32[?],s=string[?]>*)",
    ),
    "split": (
        lambda _: ClientData.train_test_client_split(small(), 1, seed=0)[1],
        SMALL_TYPE,
    ),
    "transformed": (
        lambda _: TransformingClientData(
            small(), lambda i: lambda e: (e["x"], tf.strings.length(i))
        ),
        "(string -> <int32,int32>*)",
    ),
    "sql": (lambda tmp: SqlClientData(saved(tmp)[0]), "(string -> string*)"),
    "parsed": (lambda tmp: load_and_parse_sql_client_data(*saved(tmp)), SMALL_TYPE),
    "files": (file_per_user, "(string -> string*)"),
    "fixed digits": (lambda _: emnist.get_synthetic(), EMNIST_TYPE),
    "generated": (lambda _: emnist.load_synthetic(num_writers=2)[1], EMNIST_TYPE),
}


@pytest.mark.parametrize("case", CASES)
def test_dataset_computation(case, tmp_path):
    make, text = CASES[case]
    data = make(tmp_path)
    assert_is_dataset_computation(data, text)


def test_dataset_computation_of_emnist(emnist_cache):
    assert_is_dataset_computation(
        emnist.load_data(cache_dir=emnist_cache)[1], EMNIST_TYPE
    )


def assert_is_dataset_computation(data, text):
    assert str(data.dataset_computation.type_signature) == text
    for client_id in data.client_ids[:2]:
        found = list(data.dataset_computation(client_id))
        expected = list(data.create_tf_dataset_for_client(client_id))
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            tf.nest.map_structure(np.testing.assert_array_equal, one, other)
