import collections
import functools
import gc
import types
import weakref

import numpy as np
import pytest
import tensorflow as tf

from fedsim.datasets import _client_dataset_maps, _client_dataset_ops
from fedsim.datasets._client_dataset_maps import function_key, map_fn
from fedsim.datasets.columnar import Columns

NUMBER = tf.TensorSpec([], tf.int32)
SCALE = 2


def make(n, extra=None):
    def fn(x, y=n):
        return x * n + y

    return fn


def test_a_hundred_clients_give_one_trace():
    traces = []
    columns = Columns(np.arange(300), np.arange(101) * 3)

    def preprocess(dataset, size=20):
        def batch_format_fn(number):
            traces.append(1)
            return tf.reshape(number, [-1, 1]) * size

        return dataset.repeat(2).shuffle(9).batch(size).map(batch_format_fn)

    datasets = [preprocess(columns.dataset(c)) for c in columns.client_ids]
    assert len(traces) == 1
    assert len({d.pipeline for d in datasets}) == 1
    other = preprocess(columns.dataset("0"), 21)
    assert len(traces) == 2
    assert next(iter(other)).numpy().max() == 2 * 21
    assert next(iter(datasets[0])).numpy().max() == 2 * 20


def test_rounds_of_new_datasets_give_one_trace():
    traces = []
    columns = Columns(np.arange(30), [0, 30])

    def preprocess(dataset):
        def fn(number):
            traces.append(1)
            return number + 1

        return dataset.map(fn)

    for _ in range(3):
        dataset = preprocess(columns.dataset("0"))
        del dataset
        gc.collect()
    assert len(traces) == 1


SAME = {
    "closures over an equal number": lambda: make(3),
    "closures over an equal tuple": lambda: make((1, "a", None)),
    "closures over an equal list": lambda: make([1, [2.0, "a"]]),
    "closures over an equal dict": lambda: make({"a": 1, "b": [2]}),
    "closures over an equal array": lambda: make(np.arange(5)),
    "closures over an equal scalar": lambda: make(np.float32(2)),
    "closures over an equal set": lambda: make({1, 2}),
    "closures over NaN": lambda: make(float("nan")),
    "closures over a dtype": lambda: make(tf.float32),
    "closures over an equal spec": lambda: make(tf.TensorSpec([3])),
    "closures over an equal function": lambda: make(make(1)),
    "closures over a lambda": lambda: make(lambda x: x + 1),
    "a partial": lambda: functools.partial(make(1), y=2),
    "a module and a class": lambda: make((tf, collections.OrderedDict)),
    "a long vocabulary": lambda: make([f"w{i}" for i in range(1000)]),
}


@pytest.mark.parametrize("new", SAME.values(), ids=SAME)
def test_functions_share_a_key(new):
    a, b = new(), new()
    assert function_key(a) == function_key(b)
    assert hash(function_key(a)) == hash(function_key(b))


def with_constant(n):
    return [lambda x: x + 1, lambda x: x + 2][n]


def with_keyword(n):
    def fn(x, *, y=n):
        return x + y

    return fn


def with_cycle(n):
    items = [n]
    items.append(items)
    return make(items)


DIFFERENT = {
    "number": lambda n: make(n),
    "type of a number": lambda n: make([1, 1.0][n]),
    "bool or number": lambda n: make([1, True][n]),
    "sign of zero": lambda n: make([0.0, -0.0][n]),
    "item": lambda n: make([1, n]),
    "kind of sequence": lambda n: make([[1], (1,)][n]),
    "order of a dict": lambda n: make([{"a": 1, "b": 2}, {"b": 2, "a": 1}][n]),
    "value in a dict": lambda n: make({"a": n}),
    "array": lambda n: make(np.array([1, n])),
    "dtype of an array": lambda n: make(np.zeros(2, ["f4", "i4"][n])),
    "shape of an array": lambda n: make(np.zeros([[2, 3], [3, 2]][n])),
    "tensor": lambda n: make(tf.constant(1)),
    "variable": lambda n: make(tf.Variable(1)),
    "object": lambda n: make(object()),
    "constant in the code": with_constant,
    "keyword default": with_keyword,
    "argument of a partial": lambda n: functools.partial(make(0), y=n),
    "function closed over": lambda n: make(make(n)),
    "cyclic list": with_cycle,
    "name": lambda n: [test_functions_share_a_key, make][n],
}


@pytest.mark.parametrize("new", DIFFERENT.values(), ids=DIFFERENT)
def test_functions_have_their_own_keys(new):
    assert function_key(new(0)) != function_key(new(1))


def test_a_cycle_has_a_key():
    assert function_key(with_cycle(1)) == function_key(with_cycle(1))


def test_globals_belong_to_the_key(monkeypatch):
    def fn(x):
        return [x * SCALE for _ in "a"]

    before = function_key(fn)
    monkeypatch.setitem(globals(), "SCALE", 3)
    changed = function_key(fn)
    assert before != changed
    monkeypatch.setitem(globals(), "SCALE", 2)
    assert function_key(fn) == before


def test_what_a_global_function_reads_belongs_to_the_key(monkeypatch):
    def fn(x):
        return scaled(x)

    before = function_key(fn)
    monkeypatch.setitem(globals(), "SCALE", 3)
    assert function_key(fn) != before


def scaled(x):
    return x * SCALE if x is not None else scaled(0)


def test_attributes_read_from_a_module_belong_to_the_key():
    config = types.ModuleType("config")
    config.SCALE, config.OTHER = 2, 2

    def fn(x):
        return x * config.SCALE

    before = function_key(fn)
    config.OTHER = 3
    assert function_key(fn) == before
    config.SCALE = 3
    assert function_key(fn) != before


def test_plain_attributes_of_an_object_belong_to_the_key():
    class Scaler:
        def __init__(self):
            self.scale = 2

        def fn(self, x):
            return x * self.scale

    scaler = Scaler()
    before = function_key(scaler.fn), function_key(make(scaler))
    assert (function_key(scaler.fn), function_key(make(scaler))) == before
    assert function_key(Scaler().fn) != before[0]
    scaler.scale = 3
    assert function_key(scaler.fn) != before[0]
    assert function_key(make(scaler)) != before[1]


def test_counters_in_a_function_are_no_other_function():
    columns, count = Columns(np.arange(3), [0, 3]), 0

    def preprocess(dataset):
        def fn(number):
            nonlocal count
            count += 1
            return number

        return dataset.map(fn)

    datasets = [preprocess(columns.dataset("0")) for _ in range(5)]
    assert count == 1
    assert len({d.pipeline for d in datasets}) == 1


def test_what_is_closed_over_may_change():
    columns, factors = Columns(np.arange(3), [0, 3]), [2]

    def preprocess(dataset):
        return dataset.map(lambda n: n * factors[0])

    double = preprocess(columns.dataset("0"))
    factors[0] = 3
    triple = preprocess(columns.dataset("0"))
    assert [int(n) for n in double] == [0, 2, 4]
    assert [int(n) for n in triple] == [0, 3, 6]


def test_the_spec_belongs_to_the_key():
    a = map_fn(scaled, NUMBER)
    assert map_fn(scaled, NUMBER) is a
    assert map_fn(scaled, tf.TensorSpec([2], tf.int32)) is not a
    assert map_fn(pair, (NUMBER, NUMBER)) is map_fn(pair, (NUMBER, NUMBER))
    named = collections.OrderedDict(x=NUMBER, y=NUMBER)
    assert map_fn(first, named) is not map_fn(first, (NUMBER, NUMBER))


def pair(a, b):
    return b, a


def first(*components):
    return tf.nest.flatten(components)[0]


def test_traces_live_as_long_as_they_are_used():
    _client_dataset_ops._recent.clear()
    held = np.zeros(1)
    fn = map_fn(lambda x: x + int(held[0]), NUMBER)
    gone = weakref.ref(fn)
    entries = len(_client_dataset_maps._traced)
    del fn
    gc.collect()
    assert gone() is None
    assert len(_client_dataset_maps._traced) < entries


Point = collections.namedtuple("Point", "x y")

RESULTS = {
    "tensor": lambda x: x,
    "number": lambda x: 3,
    "string": lambda x: "a",
    "tuple": lambda x: (x, x + 1),
    "list": lambda x: [x, x],
    "dict": lambda x: {"b": x, "a": (x, {"c": x})},
    "ordered": lambda x: collections.OrderedDict(b=x, a=x),
    "named": lambda x: Point(x, y=x + 1),
    "inner list": lambda x: (x, [x, x]),
    "array": lambda x: np.arange(3),
    "ragged": lambda x: tf.RaggedTensor.from_row_lengths(tf.range(x), [x]),
    "sparse": lambda x: tf.sparse.from_dense([x, 0, 1]),
    "autograph": lambda x: tf.constant(1) if x > 1 else x,
}


@pytest.mark.parametrize("fn", RESULTS.values(), ids=RESULTS)
def test_results_have_the_structure_that_tf_data_gives(fn):
    numbers = tf.data.Dataset.range(4, output_type=tf.int32)
    expected, found = numbers.map(fn), map_fn(fn, NUMBER)
    assert found.element_spec == expected.element_spec
    for number, element in zip(numbers, expected):
        result = found(number)
        tf.nest.assert_same_structure(result, element, expand_composites=True)
        for a, b in zip(
            tf.nest.flatten(result, expand_composites=True),
            tf.nest.flatten(element, expand_composites=True),
        ):
            np.testing.assert_array_equal(a, b)


def test_tuples_are_arguments_and_named_tuples_too_are_as_in_tf_data():
    dataset = tf.data.Dataset.from_tensors((1, 2))
    swapped = map_fn(pair, dataset.element_spec)
    assert [int(x) for x in swapped((tf.constant(1), tf.constant(2)))] == [2, 1]
    named = tf.data.Dataset.from_tensors(Point(1, 2))
    fn = map_fn(lambda point: point.x, named.element_spec)
    assert int(fn(Point(tf.constant(1), tf.constant(2)))) == 1


def test_purity_is_seen_in_the_graph():
    variable = tf.Variable(1)
    table = tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer([1], [2]), default_value=0
    )

    @tf.function
    def checked(x):
        tf.debugging.assert_greater(x, -1)
        return tf.cond(x > 1, lambda: x, lambda: x + 1)

    def kinds(fn):
        found = map_fn(fn, NUMBER)
        return found.pure, found.repeatable

    assert kinds(lambda x: x + 1) == (True, True)
    assert kinds(checked) == (True, True)
    assert kinds(lambda x: tf.random.stateless_uniform([], [1, x])) == (True, True)
    assert kinds(lambda x: x + variable) == (False, True)
    assert kinds(lambda x: table.lookup(x)) == (False, True)
    assert kinds(lambda x: variable.assign_add(x)) == (False, False)
    assert kinds(lambda x: tf.random.uniform([])) == (False, False)
    assert kinds(tf.function(lambda x: tf.random.uniform([]))) == (False, False)
    assert kinds(lambda x: tf.py_function(lambda: 1, [], tf.int32)) == (False, False)


def test_an_exception_in_a_function_reaches_the_caller():
    def fn(x):
        raise RuntimeError("no such luck")

    with pytest.raises(RuntimeError, match="no such luck"):
        map_fn(fn, NUMBER)
