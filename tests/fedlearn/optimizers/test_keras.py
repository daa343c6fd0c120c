import keras
import numpy as np
import pytest
import tensorflow as tf

from fedcore.tensorflow import tf_computation
from fedlearn.optimizers import build_adam, build_sgdm
from fedlearn.optimizers._keras import as_optimizer

SHAPES = ([3, 2], [4], [], [2, 1, 3])
STEPS = 20
schedules = keras.optimizers.schedules
opt = keras.optimizers


def weights_of(dtypes):
    return [
        tf.cast(np.random.RandomState(i).normal(size=shape), dtype)
        for i, (shape, dtype) in enumerate(zip(SHAPES, dtypes))
    ]


def gradients_of(step, dtypes):
    return [
        tf.cast(np.random.RandomState(100 + 9 * step + i).normal(size=shape), dtype)
        for i, (shape, dtype) in enumerate(zip(SHAPES, dtypes))
    ]


def specs_of(tensors):
    return [tf.TensorSpec(t.shape, t.dtype) for t in tensors]


def keras_state(optimizer):
    kept = [v for v in optimizer.variables if v.name != "learning_rate"]
    return [v.value for v in kept]


def assert_steps_equal(optimizer_fn, dtypes, gradients_fn=gradients_of, exact=True):
    weights = weights_of(dtypes)
    pure = as_optimizer(optimizer_fn, specs_of(weights))
    assert pure is not None
    theirs = optimizer_fn()
    variables = [tf.Variable(w) for w in weights]
    theirs.build(variables)
    state = pure.initialize(specs_of(weights))
    for step in range(STEPS):
        gradients = gradients_fn(step, dtypes)
        theirs.apply_gradients(zip(gradients, variables))
        state, weights = pure.next(state, weights, gradients)
        for ours, other in zip(
            [*weights, *state], [*variables, *keras_state(theirs)], strict=True
        ):
            assert ours.dtype == other.dtype
            ours = tf.cast(ours, tf.float64).numpy()
            other = tf.cast(other, tf.float64).numpy()
            if exact:
                np.testing.assert_array_equal(ours, other)
            else:
                np.testing.assert_allclose(ours, other, rtol=1e-6, atol=1e-7)


OPTIMIZERS = {
    "sgd": lambda: opt.SGD(0.1),
    "sgd_momentum": lambda: opt.SGD(0.1, momentum=0.9),
    "sgd_nesterov": lambda: opt.SGD(0.1, momentum=0.9, nesterov=True),
    "sgd_decay": lambda: opt.SGD(0.1, weight_decay=0.05),
    "adam": lambda: opt.Adam(0.1),
    "adam_amsgrad": lambda: opt.Adam(0.1, amsgrad=True, beta_2=0.7, epsilon=0.01),
    "adam_decay": lambda: opt.Adam(0.1, weight_decay=0.05),
    "adamw": lambda: opt.AdamW(0.1, weight_decay=0.05),
    "adamw_amsgrad": lambda: opt.AdamW(0.1, amsgrad=True),
    "adagrad": lambda: opt.Adagrad(0.1, initial_accumulator_value=0.3),
    "rmsprop": lambda: opt.RMSprop(0.1),
    "rmsprop_centered": lambda: opt.RMSprop(0.1, centered=True, rho=0.8),
    "rmsprop_momentum": lambda: opt.RMSprop(0.1, momentum=0.9),
    "rmsprop_both": lambda: opt.RMSprop(0.1, momentum=0.9, centered=True, epsilon=0.1),
    "adadelta": lambda: opt.Adadelta(1.0, rho=0.9),
    "nadam": lambda: opt.Nadam(0.1),
    "clipnorm": lambda: opt.Adam(0.1, clipnorm=0.5),
    "clipvalue": lambda: opt.SGD(0.1, momentum=0.5, clipvalue=0.3),
    "exponential": lambda: opt.SGD(schedules.ExponentialDecay(0.1, 3, 0.5)),
    "staircase": lambda: opt.Adam(schedules.ExponentialDecay(0.1, 3, 0.5, True)),
    "piecewise": lambda: opt.SGD(
        schedules.PiecewiseConstantDecay([2, 5], [1.0, 0.1, 0.01])
    ),
    "polynomial": lambda: opt.SGD(schedules.PolynomialDecay(0.1, 7, cycle=True)),
    "inverse_time": lambda: opt.SGD(schedules.InverseTimeDecay(0.1, 3, 0.5)),
    "cosine": lambda: opt.SGD(
        schedules.CosineDecay(0.1, 9, warmup_target=1.0, warmup_steps=4)
    ),
    "restarts": lambda: opt.SGD(schedules.CosineDecayRestarts(0.1, 4)),
}
FLOAT32 = [tf.float32] * 4


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_equal_those_of_keras_to_the_bit(name):
    assert_steps_equal(OPTIMIZERS[name], FLOAT32)


@pytest.mark.parametrize("dtype", [tf.float64, tf.bfloat16, tf.float16])
@pytest.mark.parametrize(
    "name", [n for n in OPTIMIZERS if n.startswith(("sgd", "ad", "rms", "nadam"))]
)
def test_steps_equal_those_of_keras_in_other_dtypes(name, dtype):
    assert_steps_equal(OPTIMIZERS[name], [dtype] * 4)


@pytest.mark.parametrize(
    "name", ["sgd_nesterov", "adam_decay", "rmsprop_both", "nadam"]
)
def test_steps_equal_those_of_keras_for_mixed_dtypes(name):
    dtypes = [tf.float32, tf.float64, tf.bfloat16, tf.float32]
    assert_steps_equal(OPTIMIZERS[name], dtypes)


@pytest.mark.parametrize("limit", [0.5, 100.0])
def test_global_clipnorm_equals_that_of_keras(limit):
    assert_steps_equal(lambda: opt.SGD(0.1, global_clipnorm=limit), FLOAT32)


@pytest.mark.parametrize("name", ["sgd_momentum", "adam", "nadam", "adamw"])
def test_weights_without_gradient_stay_as_in_keras(name):
    def gradients(step, dtypes):
        first, *rest = gradients_of(step, dtypes)
        return [first, None, *rest[1:]]

    with pytest.warns(UserWarning, match="numbered \\[1\\]"):
        assert_steps_equal(OPTIMIZERS[name], FLOAT32, gradients)


@pytest.mark.parametrize(
    "name",
    [
        *("sgd", "sgd_nesterov", "adam", "adam_amsgrad", "adagrad", "rmsprop_both"),
        *("adadelta", "nadam", "adamw", "clipnorm", "clipvalue"),
    ],
)
def test_indexed_slices_step_as_in_keras(name):
    def gradients(step, dtypes):
        [first, *rest] = gradients_of(step, dtypes)
        return [
            tf.IndexedSlices(first, tf.constant([0, 1, 0]), tf.constant([3, 2])),
            *rest,
        ]

    assert_steps_equal(OPTIMIZERS[name], FLOAT32, gradients, exact=False)


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_runs_in_a_graph_and_under_xla(name, jit_compile):
    weights = weights_of(FLOAT32)
    pure = as_optimizer(OPTIMIZERS[name], specs_of(weights))
    state = pure.initialize(specs_of(weights))
    compiled = tf.function(pure.next, jit_compile=jit_compile)
    expected_state, expected = state, weights
    for step in range(3):
        gradients = gradients_of(step, FLOAT32)
        state, weights = compiled(state, weights, gradients)
        expected_state, expected = pure.next(expected_state, expected, gradients)
    for ours, other in zip([*weights, *state], [*expected, *expected_state]):
        assert ours.dtype == other.dtype
        np.testing.assert_allclose(ours, other, rtol=2e-5, atol=1e-6)


def test_state_of_plain_sgd_is_the_iteration():
    specs = [tf.TensorSpec([2])]
    [iteration] = as_optimizer(lambda: opt.SGD(0.1), specs).initialize(specs)
    assert iteration.dtype == tf.int64
    assert iteration.shape == []


def test_class_and_partial_serve_as_functions():
    specs = [tf.TensorSpec([2])]
    assert as_optimizer(opt.SGD, specs).rate(0) == pytest.approx(0.01)
    assert as_optimizer(tf.keras.optimizers.Adam, specs) is not None


def test_structure_of_the_weights_is_kept():
    weights = {"b": (tf.ones([2]),), "a": [tf.ones([])]}
    specs = tf.nest.map_structure(lambda t: tf.TensorSpec(t.shape, t.dtype), weights)
    pure = as_optimizer(lambda: opt.Adam(0.1), specs)
    _, new = pure.next(pure.initialize(specs), weights, weights)
    tf.nest.assert_same_structure(new, weights)
    assert [t.shape for t in tf.nest.flatten(new)] == [[], [2]]


def test_no_weights_at_all_are_left_alone():
    pure = as_optimizer(lambda: opt.Nadam(0.1), [])
    state = pure.initialize([])
    assert pure.next(state, [], []) == (state, [])


def test_learning_rate_can_be_replaced_by_a_tensor():
    specs = [tf.TensorSpec([])]
    pure = as_optimizer(lambda: opt.SGD(0.1), specs)

    @tf.function
    def step(rate, weights):
        return pure.with_learning_rate(rate).next(
            pure.initialize(specs), weights, [tf.constant(1.0)]
        )

    _, [weight] = step(tf.constant(0.25), [tf.constant(1.0)])
    assert weight == 0.75


def test_constraints_apply_after_the_step():
    specs = [tf.TensorSpec([2]), tf.TensorSpec([])]
    constraints = [keras.constraints.NonNeg(), None]
    pure = as_optimizer(lambda: opt.SGD(1.0), specs, constraints)
    ones = [tf.ones([2]), tf.ones([])]
    twos = [tf.constant([2.0, 0.5]), tf.constant(2.0)]
    _, [first, second] = pure.next(pure.initialize(specs), ones, twos)
    np.testing.assert_array_equal(first, [0.0, 0.5])
    assert second == -1.0


class OwnSGD(opt.SGD):
    pass


class OwnSchedule(schedules.LearningRateSchedule):
    def __call__(self, step):
        return 0.1


class OwnDescribedSchedule(OwnSchedule):
    def get_config(self):
        return {}


def excluding():
    optimizer = opt.AdamW(0.1)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    return optimizer


def built():
    optimizer = opt.SGD(0.1)
    optimizer.build([tf.Variable(1.0)])
    return optimizer


@pytest.mark.parametrize(
    "optimizer_fn",
    [
        OwnSGD,
        lambda: opt.SGD(OwnSchedule()),
        lambda: opt.SGD(OwnDescribedSchedule()),
        lambda: opt.SGD(lambda: 0.1),
        lambda: opt.SGD(0.1, use_ema=True),
        lambda: opt.SGD(0.1, gradient_accumulation_steps=2),
        lambda: opt.SGD(0.1, loss_scale_factor=2.0),
        lambda: opt.LossScaleOptimizer(opt.SGD(0.1)),
        opt.Lion,
        opt.Adamax,
        opt.Ftrl,
        excluding,
        built,
    ],
)
@pytest.mark.filterwarnings("ignore:The object being serialized:UserWarning")
def test_what_cannot_be_made_pure_gives_none(optimizer_fn):
    assert as_optimizer(optimizer_fn, [tf.TensorSpec([2])]) is None


def test_weights_of_integers_give_none():
    assert as_optimizer(opt.SGD, [tf.TensorSpec([2], tf.int32)]) is None


def test_own_optimizers_come_back_as_they_are():
    optimizer = build_adam(0.1)
    assert as_optimizer(optimizer, []) is optimizer
    assert as_optimizer(lambda: optimizer, []) is optimizer


def test_making_a_keras_optimizer_inside_a_graph_is_refused():
    own = build_sgdm(0.1)
    with tf.Graph().as_default():
        assert as_optimizer(own, []) is own
        with pytest.raises(RuntimeError, match="outside a computation being traced"):
            as_optimizer(opt.SGD, [])


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("sgd", "<int64>"),
        ("sgd_momentum", "<int64,float32[2],float64>"),
        ("adam", "<int64,float32[2],float32[2],float64,float64>"),
        ("rmsprop_both", "<int64" + 3 * ",float32[2],float64" + ">"),
        ("nadam", "<int64,float32[2],float32[2],float64,float64,float32>"),
    ],
)
def test_type_of_the_state(name, state):
    specs = [tf.TensorSpec([2]), tf.TensorSpec([], tf.float64)]
    pure = as_optimizer(OPTIMIZERS[name], specs)
    initialize = tf_computation(lambda: pure.initialize(specs))
    assert str(initialize.type_signature) == f"( -> {state})"


@pytest.mark.parametrize("wrong", [0.1, "sgd", None])
def test_what_is_not_an_optimizer_is_refused(wrong):
    with pytest.raises(TypeError, match="An optimizer argument needs"):
        as_optimizer(wrong, [])


def test_function_that_returns_no_optimizer_is_refused():
    with pytest.raises(TypeError, match="found a function that returns float"):
        as_optimizer(lambda: 0.1, [])
    with pytest.raises(TypeError, match="found a function that returns function"):
        as_optimizer(lambda: build_sgdm, [])


def test_keras_optimizer_itself_is_refused():
    with pytest.raises(TypeError, match=r"pass `lambda: keras.optimizers.SGD\(...\)`"):
        as_optimizer(opt.SGD(0.1), [])


def test_no_gradients_at_all_are_refused():
    specs = [tf.TensorSpec([])]
    pure = as_optimizer(opt.SGD, specs)
    with pytest.raises(ValueError, match="needs a gradient for some weight"):
        pure.next(pure.initialize(specs), [tf.constant(1.0)], [None])
