"""Mixtures, single labels and IID clients."""

import collections
import itertools

import pytest
import tensorflow as tf

from fedsim.datasets.mixing import (
    build_dataset_mixture,
    build_single_label_dataset,
    build_synthethic_iid_datasets,
)
from fedsim.datasets.test_client_data import TestClientData


def values(dataset):
    return [int(x) for x in dataset.as_numpy_iterator()]


def test_mixture_pairs_examples_and_is_as_long_as_the_shorter():
    a, b = tf.data.Dataset.range(1000), tf.data.Dataset.range(10_000, 10_800)
    found = values(build_dataset_mixture(a, b, 0.25, seed=3))
    assert len(found) == 800
    assert all(x % 10_000 == k for k, x in enumerate(found))
    assert 150 < sum(x < 10_000 for x in found) < 250


def test_mixture_follows_the_seed():
    a, b = tf.data.Dataset.range(64), tf.data.Dataset.range(100, 164)
    mixture = build_dataset_mixture(a, b, 0.5, seed=1)
    assert values(mixture) == values(mixture)
    assert values(mixture) == values(build_dataset_mixture(a, b, 0.5, seed=1))
    assert values(mixture) != values(build_dataset_mixture(a, b, 0.5, seed=2))
    unseeded = build_dataset_mixture(a, b, 0.5)
    assert values(unseeded) != values(unseeded)


@pytest.mark.parametrize(("probability", "expected"), [(0, [5, 6]), (1, [0, 1])])
def test_mixture_with_certainty(probability, expected):
    a, b = tf.data.Dataset.range(2), tf.data.Dataset.range(5, 7)
    assert values(build_dataset_mixture(a, b, probability)) == expected


def test_mixture_of_structures():
    def dataset(x):
        return tf.data.Dataset.from_tensors(collections.OrderedDict(x=[x], y=(1, 2.0)))

    mixture = build_dataset_mixture(dataset(3), dataset(4), 0.5, seed=1)
    assert mixture.element_spec == dataset(3).element_spec
    assert int(next(iter(mixture))["x"][0]) in (3, 4)


def test_mixture_errors():
    a = tf.data.Dataset.range(2)
    with pytest.raises(ValueError, match="needs `a_probability` from 0 to 1"):
        build_dataset_mixture(a, a, 1.5)
    for b in (a.map(float_of), a.map(lambda x: (x, x)), a.batch(2)):
        with pytest.raises(TypeError, match="two data sets of one element type"):
            build_dataset_mixture(a, b, 0.5)


def float_of(x):
    return tf.cast(x, tf.float32)


def test_single_label():
    labels = [0, 1, 2, 1]
    named = tf.data.Dataset.from_tensor_slices({"label": labels, "x": [1, 2, 3, 4]})
    kept = build_single_label_dataset(named, "label", 1)
    assert [int(e["x"]) for e in kept] == [2, 4]
    assert kept.element_spec == named.element_spec
    pairs = tf.data.Dataset.from_tensor_slices(([1, 2, 3, 4], ["a", "b", "b", "a"]))
    assert [int(x) for x, _ in build_single_label_dataset(pairs, 1, "b")] == [2, 3]
    assert list(build_single_label_dataset(named, "label", 9)) == []


def test_single_label_needs_the_key():
    with pytest.raises(KeyError, match="needs a label at 'label', found elements"):
        build_single_label_dataset(tf.data.Dataset.range(3), "label", 1)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda x: x,
        lambda x: {"x": x, "y": [v + 100 for v in x]},
        lambda x: (x, [v + 100 for v in x]),
    ],
)
def test_iid_clients(wrap):
    data = TestClientData({"a": wrap([0, 1, 2]), "b": wrap([3, 4]), "c": wrap([5])})
    clients = build_synthethic_iid_datasets(data, 2)
    seen = collections.Counter()
    for client in itertools.islice(clients, 30):
        assert client.element_spec == data.element_type_structure
        examples = list(client)
        assert len(examples) == 2
        for example in examples:
            first, *rest = tf.nest.flatten(example)
            assert all(int(other) == int(first) + 100 for other in rest)
            seen[int(first)] += 1
    # Each pass over the six examples gives each of them once.
    assert seen == dict.fromkeys(range(6), 10)


def test_iid_clients_errors():
    data = TestClientData({"a": [1]})
    with pytest.raises(ValueError, match="needs `client_dataset_size` >= 1, found 0"):
        build_synthethic_iid_datasets(data, 0)
    with pytest.raises(ValueError, match="needs `shuffle_buffer_size` >= 1"):
        build_synthethic_iid_datasets(data, 1, 0)
