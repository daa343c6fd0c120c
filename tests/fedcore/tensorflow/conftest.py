"""What the tests of tracing share: running graphs, comparing with eager, small data."""

import collections

import keras
import numpy as np
import pytest
import tensorflow as tf

from fedcore import context
from fedcore.computation import Unpack
from fedcore.tensorflow import _graph, _trace, _values
from fedcore.types import StructType, to_type


class GraphContext(context.SyncContext):
    """Runs a tf_computation's graph, and nothing else."""

    def __init__(self, seed=None):
        self.seed = seed

    def invoke(self, comp, arg):
        parameter, result = comp.type_signature.parameter, comp.type_signature.result
        flat = []
        if parameter is not None:
            flat = _values.flatten_as(arg, parameter, comp.__name__)
        outputs = _graph.executable(comp.node.graph)(flat, self.seed)
        return _values.pack(result, iter(outputs))


@pytest.fixture
def graph_context():
    with context.use(GraphContext()) as ctx:
        yield ctx


class Traced:
    """A function traced for arguments of given types, to call with values."""

    def __init__(self, fn, *specs):
        self.parameter = (
            StructType([to_type(spec) for spec in specs]) if specs else None
        )
        unpack = Unpack(tuple(range(len(specs))), ()) if specs else None
        self.graph, self.type = _trace.trace(fn, self.parameter, unpack)
        self.again, _ = _trace.trace(fn, self.parameter, unpack)
        self.executable = _graph.executable(self.graph)

    def flat(self, *args):
        if self.parameter is None:
            return []
        return _values.flatten_as(list(args), self.parameter, "test")

    def __call__(self, *args, seed=None):
        outputs = self.executable(self.flat(*args), seed)
        return _values.pack(self.type.result, iter(outputs))


@pytest.fixture
def traced():
    return Traced


def arrays(value):
    """The NumPy arrays in a result; a dataset gives one for each element."""
    found = []
    for leaf in tf.nest.flatten(value):
        if isinstance(leaf, tf.data.Dataset):
            for element in leaf:
                found += [np.asarray(part) for part in tf.nest.flatten(element)]
        elif isinstance(leaf, tf.RaggedTensor | tf.SparseTensor):
            parts = tf.nest.flatten(leaf, expand_composites=True)
            found += [np.asarray(part) for part in parts]
        else:
            leaf = leaf.value if isinstance(leaf, keras.Variable) else leaf
            found.append(np.asarray(leaf))
    return found


@pytest.fixture
def as_arrays():
    return arrays


def assert_close(actual, expected, rtol, atol):
    actual, expected = arrays(actual), arrays(expected)
    assert len(actual) == len(expected)
    for a, b in zip(actual, expected):
        if b.dtype.kind in "OSU":
            np.testing.assert_array_equal(a, b)
        else:
            a, b = a.astype(np.float64), b.astype(np.float64)
            np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


@pytest.fixture
def agrees():
    """Traces, calls twice, and compares with eager execution (or `expected`).

    Checks too that a second trace gives the same bytes.
    """

    def check(fn, specs=(), args=(), *, expected=None, rtol=2e-4, atol=2e-5):
        computation = Traced(fn, *specs)
        assert computation.graph == computation.again
        first, second = computation(*args), computation(*args)
        assert_close(second, first, rtol=1e-6, atol=1e-7)
        wanted = fn(*args) if expected is None else expected
        assert_close(first, wanted, rtol, atol)
        return computation

    return check


def batches_type(shape=(4,), dtype=tf.float32):
    x = tf.TensorSpec((None, *shape), dtype)
    y = tf.TensorSpec([None], tf.int32)
    return tf.data.DatasetSpec(collections.OrderedDict(x=x, y=y))


@pytest.fixture
def batches_spec():
    return batches_type


def make_batches(shape=(4,), vocabulary=None, examples=20, batch=6):
    rng = np.random.default_rng(7)
    if vocabulary is None:
        x = rng.normal(size=(examples, *shape)).astype(np.float32)
    else:
        x = rng.integers(0, vocabulary, (examples, *shape)).astype(np.int32)
    y = rng.integers(0, 3, examples).astype(np.int32)
    columns = collections.OrderedDict(x=x, y=y)
    return tf.data.Dataset.from_tensor_slices(columns).batch(batch)


@pytest.fixture
def batches():
    return make_batches


@pytest.fixture
def train():
    """Makes a function of a dataset: one epoch with a model and an optimizer."""

    def make(build_model, build_optimizer):
        def fit(ds):
            model, optimizer = build_model(), build_optimizer()
            loss_fn = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            accuracy = keras.metrics.SparseCategoricalAccuracy()
            mean = keras.metrics.Mean()
            for batch in ds:
                with tf.GradientTape() as tape:
                    logits = model(batch["x"], training=True)
                    loss = loss_fn(batch["y"], logits)
                gradients = tape.gradient(loss, model.trainable_variables)
                optimizer.apply_gradients(zip(gradients, model.trainable_variables))
                accuracy.update_state(batch["y"], logits)
                mean.update_state(loss)
            return (
                model.trainable_variables,
                model.non_trainable_variables,
                accuracy.result(),
                mean.result(),
                optimizer.iterations,
            )

        return fit

    return make


def seeded(seed):
    return keras.initializers.GlorotUniform(seed=seed)


def two_layers():
    return keras.Sequential(
        [
            keras.layers.Input((4,)),
            keras.layers.Dense(8, activation="relu", kernel_initializer=seeded(1)),
            keras.layers.Dense(3, kernel_initializer=seeded(2)),
        ]
    )


@pytest.fixture
def small_model():
    return two_layers
