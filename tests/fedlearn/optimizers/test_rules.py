"""Each rule against NumPy, against real TFF, and its arguments."""

import importlib.util
import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from fedlearn import optimizers

GOLDENS = pathlib.Path(__file__).parents[2] / "goldens"
VERSIONS = ("0_40", "0_87")


def golden_cases():
    for version in VERSIONS:
        path = GOLDENS / f"optimizers_tff_{version}.json"
        for name, case in json.loads(path.read_text()).items():
            yield pytest.param(case, id=f"{version}-{name}")


def golden_script():
    spec = importlib.util.spec_from_file_location(
        "tff_optimizers", GOLDENS / "tff_optimizers.py"
    )
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


@pytest.mark.parametrize("golden", list(golden_cases()))
def test_ten_steps_equal_those_of_tff(golden):
    build = getattr(optimizers, golden["builder"])
    ours = golden_script().run(lambda: build(**golden["arguments"]))
    np.testing.assert_allclose(ours["weights"], golden["weights"], rtol=2e-6, atol=1e-6)
    # AdamW and Adafactor keep one flat layout here, unlike in TFF.
    if golden["builder"] not in ("build_adamw", "build_adafactor"):
        assert ours["state"] == golden["state"]


def steps(optimizer, weight, gradients):
    weights = [tf.constant(weight, tf.float64)]
    state = optimizer.initialize([tf.TensorSpec(np.shape(weight), tf.float64)])
    for gradient in gradients:
        state, weights = optimizer.next(state, weights, [tf.constant(gradient)])
    return weights[0].numpy()


WEIGHT = np.array([1.0, -2.0, 0.5])
GRADIENTS = [np.array([0.3, -0.1, 0.0]), np.array([-0.2, 0.4, 1.0]), np.ones(3)]


def test_sgd_is_a_gradient_step():
    result = steps(optimizers.build_sgdm(0.1), WEIGHT, GRADIENTS)
    np.testing.assert_allclose(result, WEIGHT - 0.1 * sum(GRADIENTS), rtol=1e-14)


def test_sgd_with_momentum_zero_is_sgd():
    state = optimizers.build_sgdm(0.1, 0.0).initialize([tf.TensorSpec([2])])
    assert list(state) == ["learning_rate"]


@pytest.mark.parametrize("momentum", [None, 0.9])
def test_zero_gradient_leaves_sgd_weights(momentum):
    optimizer = optimizers.build_sgdm(0.1, momentum)
    np.testing.assert_array_equal(steps(optimizer, WEIGHT, [np.zeros(3)] * 3), WEIGHT)


def test_sgdm_against_numpy():
    weight, accumulator = WEIGHT, 0.0
    for gradient in GRADIENTS:
        accumulator = 0.9 * accumulator + gradient
        weight = weight - 0.1 * accumulator
    result = steps(optimizers.build_sgdm(0.1, 0.9), WEIGHT, GRADIENTS)
    np.testing.assert_allclose(result, weight, rtol=1e-14)


def moments(gradients, decay, next_square):
    weight, mean, square = WEIGHT, 0.0, decay["initial"]
    for step, g in enumerate(gradients, 1):
        mean = 0.8 * mean + 0.2 * g
        square = next_square(square, g)
        unbiased = np.sqrt(1 - 0.9**step) / (1 - 0.8**step)
        scale = 0.1 * unbiased
        weight = (
            weight - decay["rate"] * weight - scale * mean / (np.sqrt(square) + 0.01)
        )
    return weight


def test_adam_against_numpy():
    expected = moments(
        GRADIENTS,
        {"initial": 0.0, "rate": 0.0},
        lambda square, g: 0.9 * square + 0.1 * g**2,
    )
    result = steps(optimizers.build_adam(0.1, 0.8, 0.9, 0.01), WEIGHT, GRADIENTS)
    np.testing.assert_allclose(result, expected, rtol=1e-13)


def test_adamw_against_numpy():
    expected = moments(
        GRADIENTS,
        {"initial": 0.0, "rate": 0.1 * 0.3},
        lambda square, g: 0.9 * square + 0.1 * g**2,
    )
    optimizer = optimizers.build_adamw(0.1, 0.8, 0.9, 0.01, weight_decay=0.3)
    np.testing.assert_allclose(
        steps(optimizer, WEIGHT, GRADIENTS), expected, rtol=1e-13
    )


def test_adamw_without_decay_is_adam():
    adamw = optimizers.build_adamw(0.1, weight_decay=0.0)
    np.testing.assert_array_equal(
        steps(adamw, WEIGHT, GRADIENTS),
        steps(optimizers.build_adam(0.1), WEIGHT, GRADIENTS),
    )


def test_yogi_against_numpy():
    expected = moments(
        GRADIENTS,
        {"initial": 0.02, "rate": 0.0},
        lambda square, g: square - 0.1 * np.sign(square - g**2) * g**2,
    )
    optimizer = optimizers.build_yogi(0.1, 0.8, 0.9, 0.01, 0.02)
    np.testing.assert_allclose(
        steps(optimizer, WEIGHT, GRADIENTS), expected, rtol=1e-13
    )


def test_adagrad_and_rmsprop_against_numpy():
    adagrad = rmsprop = WEIGHT
    total, mean = 0.2, 0.0
    for g in GRADIENTS:
        total = total + g**2
        adagrad = adagrad - 0.1 * g / np.sqrt(total + 0.01)
        mean = 0.7 * mean + 0.3 * g**2
        rmsprop = rmsprop - 0.1 * g / (np.sqrt(mean) + 0.01)
    result = steps(optimizers.build_adagrad(0.1, 0.2, 0.01), WEIGHT, GRADIENTS)
    np.testing.assert_allclose(result, adagrad, rtol=1e-13)
    result = steps(optimizers.build_rmsprop(0.1, 0.7, 0.01), WEIGHT, GRADIENTS)
    np.testing.assert_allclose(result, rmsprop, rtol=1e-13)


def test_adafactor_keeps_rows_and_columns_of_a_matrix():
    state = optimizers.build_adafactor(0.1).initialize(
        [tf.TensorSpec([5, 3, 2]), tf.TensorSpec([4])]
    )
    assert [t.shape for t in state["row"]] == [[5, 3], [0]]
    assert [t.shape for t in state["column"]] == [[5, 2], [0]]
    assert [t.shape for t in state["full"]] == [[0], [4]]


def test_schedule_sets_the_rate_of_each_round():
    optimizer = optimizers.schedule_learning_rate(
        optimizers.build_sgdm(7.0), lambda n: tf.where(n < 2, 1.0, 0.5)
    )
    state = optimizer.initialize([tf.TensorSpec([])])
    weights, seen = [tf.constant(0.0)], []
    for _ in range(4):
        state, weights = optimizer.next(state, weights, [tf.constant(-1.0)])
        seen.append(float(weights[0]))
    assert seen == [1.0, 2.0, 2.5, 3.0]
    assert list(state) == ["round_num", "optimizer"]
    assert state["round_num"].dtype == tf.int32
    assert state["round_num"] == 4


@pytest.mark.parametrize(
    "schedule_fn",
    [
        lambda n: 0.25,
        lambda n: 1,
        lambda n: tf.cast(n, tf.float64),
        tf.keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5),
    ],
)
def test_scheduled_rate_is_always_float32(schedule_fn):
    optimizer = optimizers.schedule_learning_rate(
        optimizers.build_sgdm(0.1), schedule_fn
    )
    state = optimizer.initialize([tf.TensorSpec([])])
    state, _ = optimizer.next(state, [tf.constant(0.0)], [tf.constant(1.0)])
    assert state["optimizer"]["learning_rate"].dtype == tf.float32


def test_schedule_of_other_things_is_refused():
    sgd = optimizers.build_sgdm(0.1)
    with pytest.raises(TypeError, match="needs a callable `schedule_fn`, found float"):
        optimizers.schedule_learning_rate(sgd, 0.1)
    with pytest.raises(TypeError, match=r"needs a `fedlearn\.optimizers\.Optimizer`"):
        optimizers.schedule_learning_rate(tf.keras.optimizers.SGD, lambda n: 0.1)
    scheduled = optimizers.schedule_learning_rate(sgd, lambda n: 0.1)
    twice = optimizers.schedule_learning_rate(scheduled, lambda n: 0.1)
    with pytest.raises(KeyError, match="needs an optimizer with 'learning_rate'"):
        twice.initialize([tf.TensorSpec([])])


class Still(optimizers.Optimizer):
    def initialize(self, specs):
        return ()

    def next(self, state, weights, gradients):
        return state, weights


def test_an_optimizer_of_ones_own_has_no_hparams_by_default():
    assert Still().get_hparams(()) == {}
    assert Still().set_hparams((), {"learning_rate": 1.0}) == ()
    with pytest.raises(KeyError, match="found tuple"):
        optimizers.schedule_learning_rate(Still(), lambda n: 0.1).initialize([])


def test_optimizer_is_abstract():
    with pytest.raises(TypeError, match="abstract"):
        optimizers.Optimizer()


@pytest.mark.parametrize(
    "learning_rate", [1, np.float32(1.0), np.float64(1.0), tf.constant(1.0)]
)
def test_numbers_and_scalar_tensors_are_learning_rates(learning_rate):
    assert steps(optimizers.build_sgdm(learning_rate), 1.0, [np.float64(0.5)]) == 0.5


@pytest.mark.parametrize(
    "wrong", [None, "a", True, lambda: 0.1, tf.ones([2]), tf.constant(1), 1j]
)
def test_other_learning_rates_are_refused(wrong):
    with pytest.raises(TypeError, match="needs a float or a scalar float tensor"):
        optimizers.build_sgdm(wrong)


def test_variable_learning_rate_is_refused():
    with pytest.raises(TypeError, match="needs a float or a scalar float tensor"):
        optimizers.build_sgdm(tf.Variable(0.1))


@pytest.mark.parametrize(
    ("build", "arguments", "sentence"),
    [
        ("sgdm", {"learning_rate": -1.0}, "`learning_rate` at least 0, found -1.0"),
        (
            "sgdm",
            {"learning_rate": tf.constant(-1.0)},
            "`learning_rate` at least 0, found -1.0",
        ),
        ("sgdm", {"momentum": -0.1}, "`momentum` at least 0 and less than 1"),
        ("sgdm", {"momentum": 1.0}, "`momentum` at least 0 and less than 1"),
        ("adagrad", {"learning_rate": -1.0}, "`learning_rate` at least 0"),
        ("adagrad", {"epsilon": -1.0}, "`epsilon` at least 0"),
        (
            "adagrad",
            {"initial_preconditioner_value": -1.0},
            "`initial_preconditioner_value` at least 0",
        ),
        ("rmsprop", {"decay": 1.0}, "`decay` at least 0 and less than 1"),
        ("rmsprop", {"epsilon": -1.0}, "`epsilon` at least 0"),
        ("adam", {"beta_1": 1.0}, "`beta_1` at least 0 and less than 1"),
        ("adam", {"beta_2": -0.1}, "`beta_2` at least 0 and less than 1"),
        ("adam", {"epsilon": -1.0}, "`epsilon` at least 0"),
        ("adamw", {"weight_decay": -1.0}, "`weight_decay` at least 0"),
        ("yogi", {"beta_2": 1.0}, "`beta_2` at least 0 and less than 1"),
        ("yogi", {"epsilon": -1.0}, "`epsilon` at least 0"),
        ("adafactor", {"learning_rate": 0.0}, "`learning_rate` more than 0"),
        ("adafactor", {"clip_threshold": 0.0}, "`clip_threshold` more than 0"),
        ("adafactor", {"epsilon_1": -1.0}, "`epsilon_1` at least 0"),
        ("adafactor", {"epsilon_2": -1.0}, "`epsilon_2` at least 0"),
    ],
)
def test_numbers_out_of_range_are_refused(build, arguments, sentence):
    build_fn = getattr(optimizers, f"build_{build}")
    with pytest.raises(ValueError, match=f"`build_{build}` needs {sentence}"):
        build_fn(**{"learning_rate": 0.1, **arguments})


@pytest.mark.parametrize(
    ("weights", "gradients"),
    [
        ([1.0], (1.0,)),
        ([1.0], [1.0, 1.0]),
        ([[1.0]], [1.0]),
        ({"a": 1.0}, {"b": 1.0}),
    ],
)
def test_check_refuses_what_does_not_match(weights, gradients):
    def as_tensors(tree):
        return tf.nest.map_structure(tf.constant, tree)

    with pytest.raises(ValueError, match="needs `gradients` of the structure"):
        optimizers.check_weights_gradients_match(
            as_tensors(weights), as_tensors(gradients)
        )


def test_check_compares_dtypes_and_shows_both():
    with pytest.raises(
        ValueError, match=r"found `\[float64\[2\]\]` for .*float32\[2\]"
    ):
        optimizers.check_weights_gradients_match(
            [tf.ones([2])], [tf.ones([2], tf.float64)]
        )
    with pytest.raises(ValueError, match=r"found `\[float\]` for"):
        optimizers.check_weights_gradients_match([tf.ones([])], [1.0])


def test_check_accepts_none_slices_variables_and_other_dicts():
    slices = tf.IndexedSlices(
        tf.ones([1, 2]), tf.constant([0]), dense_shape=tf.constant([3, 2])
    )
    optimizers.check_weights_gradients_match([tf.ones([2])], [None])
    optimizers.check_weights_gradients_match([tf.Variable([1.0])], [tf.ones([1])])
    optimizers.check_weights_gradients_match({"a": tf.ones([3, 2])}, {"a": slices})


def test_indexed_slices_become_sums_of_their_rows():
    slices = tf.IndexedSlices(
        tf.constant([[1.0], [2.0]]), tf.constant([0, 0]), tf.constant([3, 1])
    )
    dense = optimizers.handle_indexed_slices_gradients({"a": slices, "b": None})
    np.testing.assert_array_equal(dense["a"], [[3.0], [0.0], [0.0]])
    assert dense["b"] is None
