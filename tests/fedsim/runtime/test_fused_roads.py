"""The road of a client step: which one, and that all of them give one result."""

import collections

import computations
import keras
import numpy as np
import pytest
import tensorflow as tf

import fedcore
from fedcore import (
    federated_computation,
    federated_map,
    federated_mean,
    sequence_reduce,
)
from fedcore.types import SequenceType, TensorType, at_clients, at_server
from fedsim import runtime
from fedsim.datasets.columnar import Columns
from fedsim.runtime._plan import plan_of

SIZES = [7, 0, 12, 3, 20, 1, 5, 6, 0, 9, 10, 4, 4, 8, 2, 11, 13, 5, 6]


@pytest.fixture(scope="module")
def columns():
    rng = np.random.default_rng(0)

    def client(n):
        return collections.OrderedDict(
            x=rng.normal(size=(n, 4)).astype(np.float32),
            y=rng.integers(0, 3, n).astype(np.int32),
        )

    return Columns.from_clients([(str(i), client(n)) for i, n in enumerate(SIZES)])


def batches(columns, form=lambda d: d.repeat(2).batch(4)):
    return [form(columns.dataset(str(i))) for i in range(len(SIZES))]


ELEMENT = collections.OrderedDict(
    x=TensorType(tf.float32, [None, 4]), y=TensorType(tf.int32, [None])
)
STATE = TensorType(tf.float32, [4])


def training(step_fn, element=ELEMENT):
    """A round of a model of four weights, trained by `step_fn(w, x, y)`."""

    @fedcore.tf_computation(STATE, element)
    def step(w, batch):
        return tf.ensure_shape(step_fn(w, batch["x"], batch["y"]), [4])

    @fedcore.tf_computation(STATE, STATE)
    def subtract(a, b):
        return a - b

    @federated_computation(at_server(STATE), at_clients(SequenceType(element)))
    def fn(w, data):
        sent = fedcore.federated_broadcast(w)
        trained = federated_map(
            lambda p: sequence_reduce(p[1], p[0], step), (sent, data)
        )
        moved = federated_map(subtract, (trained, sent))
        return federated_mean(moved), moved

    return fn


def dense(w, x, y):
    error = tf.linalg.matvec(x, w) - tf.cast(y, tf.float32)
    return w - 0.05 * tf.linalg.matvec(x, error, transpose_a=True) / tf.cast(
        tf.shape(x)[0], tf.float32
    )


def normalised(w, x, y):
    mean, variance = tf.nn.moments(x, [0])
    return dense(w, (x - mean) / tf.sqrt(variance + 0.1), y)


def last_row(w, x, y):
    return w + x[-1]


def running_sum(w, x, y):
    return w + tf.cumsum(x)[-1]


def middle_of_sorted(w, x, y):
    return w + tf.sort(x, 0)[tf.shape(x)[0] // 2]


def convolution(w, x, y):
    image = tf.reshape(x, [-1, 2, 2, 1])
    kernel = tf.reshape(w, [2, 2, 1, 1])
    return w + tf.reduce_mean(tf.nn.conv2d(image, kernel, 1, "SAME"), [0, 1, 2])


STEPS = [dense, normalised, last_row, running_sum, middle_of_sorted, convolution]


def run(context, fn, *arguments):
    with fedcore.context.use(context):
        return fn(*arguments)


def road(context, fn):
    steps = plan_of(fn).steps
    roads = [context._workers.roads[s] for s in steps if s in context._workers.roads]
    assert len(roads) == 1
    return roads[0]


@pytest.mark.parametrize("xla", [None, False])
@pytest.mark.parametrize("step", STEPS, ids=lambda f: f.__name__)
def test_columnar_road_equals_the_reference(step, xla, columns):
    fn, w, data = training(step), np.ones(4, np.float32), batches(columns)
    context = runtime.LocalContext(seed=1, xla=xla)
    wanted = run(runtime.reference_context(seed=1), fn, w, data)
    found = run(context, fn, w, data)
    computations.assert_same(found, wanted)
    assert road(context, fn).name == "columnar"


@pytest.mark.parametrize("step", STEPS, ids=lambda f: f.__name__)
def test_tf_data_road_equals_the_reference(step, columns):
    fn, w = training(step), np.ones(4, np.float32)
    data = [d.to_tf() for d in batches(columns)]
    context = runtime.LocalContext(seed=1)
    wanted = run(runtime.reference_context(seed=1), fn, w, data)
    computations.assert_same(run(context, fn, w, data), wanted)
    assert road(context, fn).name == "tf.data"


@pytest.mark.parametrize(
    ("step", "compiled"),
    [
        (dense, True),
        (normalised, True),
        (middle_of_sorted, False),
        (convolution, False),
    ],
)
def test_xla_is_used_where_every_operation_is_fit_for_it(step, compiled, columns):
    fn = training(step)
    context = runtime.LocalContext(seed=1)
    run(context, fn, np.ones(4, np.float32), batches(columns))
    assert road(context, fn).compiled == compiled


def test_xla_can_be_switched_off(columns):
    fn = training(dense)
    context = runtime.LocalContext(seed=1, xla=False)
    run(context, fn, np.ones(4, np.float32), batches(columns))
    assert str(road(context, fn)) == "columnar, graph: XLA is switched off"


def test_xla_is_left_where_it_is_wrong_on_a_smaller_batch(columns):
    fn = training(last_row)
    context = runtime.LocalContext(seed=1)
    run(context, fn, np.ones(4, np.float32), batches(columns))
    assert road(context, fn).reason == "XLA gave another result than TensorFlow"


@pytest.mark.parametrize("xla", [None, False])
@pytest.mark.parametrize(
    "form",
    [
        lambda d: d.shuffle(5).batch(4),
        lambda d: d.batch(4).repeat(2),
        lambda d: d.batch(4, drop_remainder=True),
        lambda d: d.take(3).batch(2).prefetch(1),
        lambda d: d.repeat().batch(4).take(5),
    ],
)
def test_bits_do_not_depend_on_workers(form, xla, columns):
    fn, w = training(dense), np.ones(4, np.float32)
    one, two, eight = (
        run(
            runtime.LocalContext(seed=1, workers=n, xla=xla),
            fn,
            w,
            batches(columns, form),
        )
        for n in (1, 2, 8)
    )
    computations.assert_same(two, one, tolerance=0)
    computations.assert_same(eight, one, tolerance=0)


def test_nothing_is_made_twice(columns):
    from fedsim.runtime import _kernel, _plan

    fn, w = training(dense), np.ones(4, np.float32)
    context = runtime.LocalContext(seed=1)
    run(context, fn, w, batches(columns))
    counts = _plan.plans_made.count, _kernel.kernels_made.count
    run(context, fn, w, batches(columns))
    run(runtime.LocalContext(seed=2), fn, w, batches(columns))
    assert (_plan.plans_made.count, _kernel.kernels_made.count) == counts


def test_a_map_after_batch_runs_in_the_program(columns):
    def flip(batch):
        return collections.OrderedDict(x=-batch["x"], y=batch["y"] + 1)

    fn, w = training(dense), np.ones(4, np.float32)
    data = batches(columns, lambda d: d.batch(4).map(flip))
    context = runtime.LocalContext(seed=1)
    wanted = run(runtime.reference_context(seed=1), fn, w, data)
    computations.assert_same(run(context, fn, w, data), wanted)
    assert road(context, fn).compiled


def test_dropout_draws_as_on_the_reference(columns):
    fn = training(lambda w, x, y: w + keras.random.dropout(x, 0.5, seed=3)[0])
    w, data = np.ones(4, np.float32), batches(columns)
    wanted = run(runtime.reference_context(seed=1), fn, w, data)
    computations.assert_same(run(runtime.LocalContext(seed=1), fn, w, data), wanted)


def test_a_failing_client_is_named(columns):
    def step(w, x, y):
        tf.debugging.assert_less(tf.reduce_max(tf.abs(x)), 100.0, "too great")
        return dense(w, x, y)

    fn, w = training(step), np.ones(4, np.float32)
    features = tf.nest.map_structure(np.copy, columns.features)
    features["x"][columns.offsets[9] + 8] = 1000.0
    bad = Columns(features, columns.offsets)
    for context in (runtime.LocalContext(seed=1), runtime.reference_context(seed=1)):
        with pytest.raises(runtime.ClientError, match="Client 9 of 19") as caught:
            run(context, fn, w, batches(bad))
        assert caught.value.client == 9
        assert caught.value.step == "federated_map"


def test_no_clients(columns):
    @federated_computation(at_clients(SequenceType(ELEMENT)))
    def fn(data):
        return fedcore.federated_sum(
            federated_map(
                fedcore.tf_computation(
                    lambda d: d.reduce(0.0, lambda s, b: s + tf.reduce_sum(b["x"])),
                    SequenceType(ELEMENT),
                ),
                data,
            )
        )

    assert run(runtime.LocalContext(), fn, []) == 0.0
