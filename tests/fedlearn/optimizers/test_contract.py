"""What every optimizer built here holds to."""

import collections

import numpy as np
import pytest
import tensorflow as tf

from fedcore.tensorflow import tf_computation
from fedcore.types import to_type
from fedlearn import optimizers

BUILDERS = {
    "sgd": lambda: optimizers.build_sgdm(0.1),
    "sgdm": lambda: optimizers.build_sgdm(0.1, 0.9),
    "adagrad": lambda: optimizers.build_adagrad(0.1),
    "rmsprop": lambda: optimizers.build_rmsprop(0.1),
    "adam": lambda: optimizers.build_adam(0.1),
    "adamw": lambda: optimizers.build_adamw(0.1),
    "yogi": lambda: optimizers.build_yogi(0.1),
    "adafactor": lambda: optimizers.build_adafactor(0.1),
    "adafactor_absolute": lambda: optimizers.build_adafactor(0.1, relative_step=False),
    "scheduled": lambda: optimizers.schedule_learning_rate(
        optimizers.build_adam(0.5), lambda n: 0.5 / tf.cast(n + 1, tf.float32)
    ),
}
UNSCHEDULED = [name for name in BUILDERS if name != "scheduled"]
every = pytest.mark.parametrize("name", BUILDERS)

Pair = collections.namedtuple("Pair", "left right")


def tensors(seed, dtype=tf.float32):
    rng = np.random.RandomState(seed)
    shapes = {"z": [3, 2], "a": [4], "scalar": [], "deep": [2, 1, 3]}
    t = {k: tf.cast(rng.normal(size=s), dtype) for k, s in shapes.items()}
    return collections.OrderedDict(
        z=t["z"], a=[t["a"], (t["scalar"],)], pair=Pair(t["deep"], t["a"])
    )


def specs_of(structure):
    return tf.nest.map_structure(lambda t: tf.TensorSpec(t.shape, t.dtype), structure)


def layout(structure):
    return [
        (t.dtype, tuple(t.shape))
        for t in map(tf.convert_to_tensor, tf.nest.flatten(structure))
    ]


def assert_close(ours, other, rtol=2e-5, atol=1e-6):
    tf.nest.assert_same_structure(ours, other)
    for x, y in zip(tf.nest.flatten(ours), tf.nest.flatten(other)):
        np.testing.assert_allclose(
            tf.cast(x, tf.float64), tf.cast(y, tf.float64), rtol=rtol, atol=atol
        )


def test_every_exported_builder_is_here():
    built = {name for name in optimizers.__all__ if name.startswith("build_")}
    assert built == {f"build_{name}" for name in BUILDERS} & built
    assert all(isinstance(b(), optimizers.Optimizer) for b in BUILDERS.values())


@every
@pytest.mark.parametrize("dtype", [tf.float32, tf.float64, tf.bfloat16, tf.float16])
def test_types_and_structures_stay_over_steps(name, dtype):
    optimizer = BUILDERS[name]()
    weights = tensors(0, dtype)
    first_state = state = optimizer.initialize(specs_of(weights))
    first_weights = weights
    for step in range(3):
        state, weights = optimizer.next(state, weights, tensors(step + 1, dtype))
        assert layout(state) == layout(first_state)
        assert layout(weights) == layout(first_weights)
        tf.nest.assert_same_structure(state, first_state)
        tf.nest.assert_same_structure(weights, first_weights)
        assert list(state) == list(first_state)
    for new, old in zip(tf.nest.flatten(weights), tf.nest.flatten(first_weights)):
        assert np.all(np.isfinite(tf.cast(new, tf.float32)))
        assert not np.array_equal(tf.cast(new, tf.float32), tf.cast(old, tf.float32))


@every
@pytest.mark.parametrize("jit_compile", [False, True])
def test_graph_and_xla_equal_eager(name, jit_compile):
    optimizer = BUILDERS[name]()
    weights = expected = tensors(0)
    state = expected_state = optimizer.initialize(specs_of(weights))
    compiled = tf.function(optimizer.next, jit_compile=jit_compile)
    for step in range(3):
        gradients = tensors(step + 1)
        state, weights = compiled(state, weights, gradients)
        expected_state, expected = optimizer.next(expected_state, expected, gradients)
        # In a graph the hyperparameters are float32: 1 - 0.999 has 4 digits then.
        assert_close(weights, expected, rtol=1e-4, atol=1e-5)


@every
@pytest.mark.parametrize("jit_compile", [False, True])
def test_runs_as_the_state_of_a_loop(name, jit_compile):
    optimizer = BUILDERS[name]()
    weights = tensors(0)
    specs = specs_of(weights)

    @tf.function(jit_compile=jit_compile)
    def loop(weights, gradients):
        state = tf.nest.map_structure(tf.convert_to_tensor, optimizer.initialize(specs))
        _, _, weights = tf.while_loop(
            lambda i, *_: i < 3,
            lambda i, state, w: (i + 1, *optimizer.next(state, w, gradients)),
            (tf.constant(0), state, weights),
        )
        return weights

    expected, state = weights, optimizer.initialize(specs)
    for _ in range(3):
        state, expected = optimizer.next(state, expected, tensors(1))
    assert_close(loop(weights, tensors(1)), expected, rtol=1e-4, atol=1e-5)


RATE, SLOT = "learning_rate=float32", "<float32[2],float64[3,2]>"
BETAS = "beta_1=float32,beta_2=float32,epsilon=float32"
MOMENTS = f"step=int32,accumulator={SLOT},preconditioner={SLOT}"
FACTORS = (
    "row=<float32[0],float64[3]>,column=<float32[0],float64[2]>,"
    "full=<float32[2],float64[0]>"
)
ADAFACTOR = (
    f"<{RATE},beta_2_decay=float32,epsilon_1=float32,epsilon_2=float32,"
    f"clip_threshold=float32,step=int32,{FACTORS}>"
)
STATES = {
    "sgd": f"<{RATE}>",
    "sgdm": f"<{RATE},momentum=float32,accumulator={SLOT}>",
    "adagrad": f"<{RATE},epsilon=float32,preconditioner={SLOT}>",
    "rmsprop": f"<{RATE},decay=float32,epsilon=float32,preconditioner={SLOT}>",
    "adam": f"<{RATE},{BETAS},{MOMENTS}>",
    "adamw": f"<{RATE},{BETAS},weight_decay=float32,{MOMENTS}>",
    "yogi": f"<{RATE},{BETAS},{MOMENTS}>",
    "adafactor": ADAFACTOR,
    "adafactor_absolute": ADAFACTOR,
    "scheduled": f"<round_num=int32,optimizer=<{RATE},{BETAS},{MOMENTS}>>",
}


@every
def test_type_of_the_state(name):
    optimizer = BUILDERS[name]()
    specs = [tf.TensorSpec([2]), tf.TensorSpec([3, 2], tf.float64)]
    initialize = tf_computation(lambda: optimizer.initialize(specs))
    state_type = initialize.type_signature.result
    assert str(state_type) == STATES[name]
    weights_type = to_type([(s.dtype, s.shape) for s in specs])
    step = tf_computation(optimizer.next, [state_type, weights_type, weights_type])
    assert str(step.type_signature.result) == f"<{STATES[name]},{SLOT}>"


@every
def test_order_of_weights_does_not_matter(name):
    optimizer = BUILDERS[name]()

    def run(order):
        weights = [tf.nest.flatten(tensors(0))[i] for i in order]
        state = optimizer.initialize(specs_of(weights))
        for step in range(3):
            gradients = [tf.nest.flatten(tensors(step + 1))[i] for i in order]
            state, weights = optimizer.next(state, weights, gradients)
        return {i: w.numpy().tolist() for i, w in zip(order, weights)}

    assert run([0, 1, 2, 3, 4]) == run([3, 0, 4, 2, 1])


@every
def test_weight_without_gradient_stays_with_its_slots(name):
    optimizer = BUILDERS[name]()
    weights = tf.nest.flatten(tensors(0))
    gradients = tf.nest.flatten(tensors(1))
    state = optimizer.initialize(specs_of(weights))
    state, weights = optimizer.next(state, weights, gradients)
    _, full = optimizer.next(state, weights, gradients)
    new_state, new = optimizer.next(state, weights, [None, *gradients[1:]])
    assert_close(new, [weights[0], *full[1:]], rtol=0, atol=0)
    assert layout(new_state) == layout(state)
    for key, value in state.items():
        if isinstance(value, list):
            np.testing.assert_array_equal(new_state[key][0], value[0])


@every
def test_no_weights_at_all(name):
    optimizer = BUILDERS[name]()
    _, weights = optimizer.next(optimizer.initialize([]), [], [])
    assert weights == []


@every
def test_single_tensor_and_variables_are_weights(name):
    optimizer = BUILDERS[name]()
    state = optimizer.initialize(tf.TensorSpec([2]))
    variable = tf.Variable([1.0, 2.0])
    _, new = optimizer.next(state, variable, tf.constant([1.0, 1.0]))
    _, same = optimizer.next(state, tf.constant([1.0, 2.0]), tf.constant([1.0, 1.0]))
    np.testing.assert_array_equal(new, same)


@every
def test_indexed_slices_equal_their_dense_tensor(name):
    optimizer = BUILDERS[name]()
    weights = [tf.ones([3, 2])]
    slices = tf.IndexedSlices(
        tf.constant([[1.0, 2.0], [3.0, 4.0]]), tf.constant([2, 2]), tf.constant([3, 2])
    )
    state = optimizer.initialize(specs_of(weights))
    _, sparse = optimizer.next(state, weights, [slices])
    _, dense = optimizer.next(state, weights, [tf.convert_to_tensor(slices)])
    np.testing.assert_array_equal(sparse[0], dense[0])


@every
def test_minimizes_a_quadratic(name):
    optimizer = BUILDERS[name]()
    weights = [tf.constant([[2.0, -1.0], [0.5, 1.5]])]
    state = optimizer.initialize(specs_of(weights))
    step = tf.function(optimizer.next)
    state = tf.nest.map_structure(tf.convert_to_tensor, state)
    for _ in range(60):
        state, weights = step(state, weights, weights)
    assert float(tf.reduce_sum(tf.square(weights[0]))) < 0.5 * 7.5


@pytest.mark.parametrize("name", UNSCHEDULED)
def test_hparams_round_trip(name):
    optimizer = BUILDERS[name]()
    state = optimizer.initialize([tf.TensorSpec([2])])
    hparams = optimizer.get_hparams(state)
    assert isinstance(hparams, collections.OrderedDict)
    assert hparams[optimizers.LEARNING_RATE_KEY] == 0.1
    same = optimizer.set_hparams(state, hparams)
    assert list(same) == list(state)
    assert_close(same, state)
    doubled = collections.OrderedDict((k, 0.5 * v) for k, v in hparams.items())
    assert optimizer.get_hparams(optimizer.set_hparams(state, doubled)) == doubled
    assert_close(optimizer.set_hparams(state, {}), state)


@pytest.mark.parametrize("name", UNSCHEDULED)
def test_set_learning_rate_zero_stops_the_weights(name):
    optimizer = BUILDERS[name]()
    weights = [tf.constant([1.0, 2.0])]
    state = optimizer.initialize(specs_of(weights))
    state = optimizer.set_hparams(state, {optimizers.LEARNING_RATE_KEY: 0.0})
    _, new = optimizer.next(state, weights, weights)
    np.testing.assert_array_equal(new[0], weights[0])


@pytest.mark.parametrize("name", UNSCHEDULED)
def test_set_unknown_hparams_is_refused(name):
    optimizer = BUILDERS[name]()
    state = optimizer.initialize([tf.TensorSpec([2])])
    with pytest.raises(KeyError, match="`set_hparams` needs names among"):
        optimizer.set_hparams(state, {"rate": 1.0})


@every
def test_weights_and_gradients_that_differ_are_refused(name):
    optimizer = BUILDERS[name]()
    state = optimizer.initialize([tf.TensorSpec([2])])
    with pytest.raises(ValueError, match="needs `gradients` of the structure"):
        optimizer.next(state, [tf.ones([2])], [tf.ones([3])])


@pytest.mark.parametrize("name", [n for n in UNSCHEDULED if n != "sgd"])
def test_state_of_other_weights_is_refused(name):
    optimizer = BUILDERS[name]()
    state = optimizer.initialize([tf.TensorSpec([2])])
    with pytest.raises(ValueError, match="in its state to match the weights"):
        optimizer.next(state, [tf.ones([3])], [tf.ones([3])])


@every
def test_unknown_shapes_and_integers_are_refused(name):
    optimizer = BUILDERS[name]()
    with pytest.raises(ValueError, match="needs fully defined shapes"):
        optimizer.initialize([tf.TensorSpec([None, 2])])
    with pytest.raises(TypeError, match="needs weights of floats"):
        optimizer.initialize([tf.TensorSpec([2], tf.int32)])
