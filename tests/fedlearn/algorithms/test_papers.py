"""Algorithms against their papers, said once more in NumPy.

The model is linear regression without a bias, so that a gradient is one line. Three rounds
with other clients in each, uneven clients, and last batches that are smaller.
"""

import collections

import keras
import numpy as np
import pytest
import tensorflow as tf

import fedcore
import fedlearn
import fedsim
from fedsim.datasets.columnar import Columns

algorithms = fedlearn.algorithms
sgdm = fedlearn.optimizers.build_sgdm

SIZES = (7, 4, 3, 5)
COHORTS = ([0, 1, 2], [3, 1], [2, 0, 3])
BATCH = 3
RATE = 0.1
START = np.array([[0.3], [-0.2]])


def clients():
    """A list of `(x, y)`, each client with a slope of its own."""
    rng = np.random.default_rng(3)
    made = []
    for size in SIZES:
        x = rng.normal(size=(size, 2))
        made.append((x, x @ rng.normal(size=(2, 1)) + rng.normal(size=(size, 1)) / 9))
    return made


def examples(x, y):
    return collections.OrderedDict(x=x.astype(np.float32), y=y.astype(np.float32))


def on_tf_data():
    return [
        tf.data.Dataset.from_tensor_slices(examples(x, y)).batch(BATCH)
        for x, y in clients()
    ]


def on_columns():
    named = [(str(k), examples(x, y)) for k, (x, y) in enumerate(clients())]
    columns = Columns.from_clients(named)
    return [columns.dataset(client_id).batch(BATCH) for client_id, _ in named]


@pytest.fixture(params=[on_columns, on_tf_data], ids=["columnar", "tf.data"])
def data(request):
    return request.param()


def model_fn():
    first = keras.initializers.Constant(START)
    layer = keras.layers.Dense(1, use_bias=False, kernel_initializer=first)
    return fedlearn.from_keras_model(
        keras.Sequential([keras.Input((2,)), layer]),
        keras.losses.MeanSquaredError(),
        collections.OrderedDict(
            x=tf.TensorSpec([None, 2], tf.float32),
            y=tf.TensorSpec([None, 1], tf.float32),
        ),
    )


def loss(w, x, y):
    return float(np.mean((x @ w - y) ** 2))


def steps(client, w, correct=lambda w: 0.0):
    """Where gradient descent on a client's batches ends, and how many steps it took."""
    x, y = client
    number = 0
    for i in range(0, len(x), BATCH):
        xs, ys = x[i : i + BATCH], y[i : i + BATCH]
        gradient = 2 * xs.T @ (xs @ w - ys) / len(xs) + correct(w)
        w, number = w - RATE * gradient, number + 1
    return w, number


def mean_delta(cohort, w):
    """The mean of w − wᵢ by examples, as Federated Averaging takes it."""
    deltas = [w - steps(clients()[k], w)[0] for k in cohort]
    return np.average(deltas, axis=0, weights=[SIZES[k] for k in cohort])


def run(process, data, kept=None):
    """Weights and output of each round; what clients keep goes through `kept`."""
    state, outputs = process.initialize(), []
    if kept is None:
        for cohort in COHORTS:
            outputs.append(process.next(state, [data[k] for k in cohort]))
            state = outputs[-1].state
        return outputs
    for cohort in COHORTS:
        output = process.next(
            state, [kept[k] for k in cohort], [data[k] for k in cohort]
        )
        for k, one in zip(cohort, output.client_states):
            kept[k] = one
        state = output.state
        outputs.append((output, dict(enumerate(kept))))
    return outputs


def first_states(process):
    weights = process.get_model_weights(process.initialize())
    return [process.initialize_client(weights)] * len(SIZES)


def weights_of(state):
    return state.global_model_weights.trainable[0]


def assert_close(found, wanted):
    np.testing.assert_allclose(found, wanted, rtol=2e-4, atol=2e-6)


def test_scaffold(data):
    n = 10  # some clients are never seen
    process = algorithms.build_scaffold(model_fn, RATE, sgdm(0.7), num_clients=n)
    x, c = START, np.zeros_like(START)
    own = [np.zeros_like(START) for _ in SIZES]
    for cohort, (output, kept) in zip(
        COHORTS, run(process, data, first_states(process)), strict=True
    ):
        dx, dc = [], []
        for i in cohort:
            y, k = steps(clients()[i], x, lambda w, i=i, c=c: -own[i] + c)
            new = own[i] - c + (x - y) / (k * RATE)
            dx.append(y - x)
            dc.append(new - own[i])
            own[i] = new
        x = x + 0.7 * np.mean(dx, axis=0)
        c = c + len(cohort) / n * np.mean(dc, axis=0)
        assert_close(weights_of(output.state), x)
        assert_close(output.state.client_work[0], c)
        for i, variate in enumerate(own):
            assert_close(kept[i][0], variate)


def test_fed_dyn(data):
    n, alpha = 6, 0.4
    process = algorithms.build_fed_dyn(
        model_fn, sgdm(RATE), regularization=alpha, num_clients=n
    )
    theta, h = START, np.zeros_like(START)
    own = [np.zeros_like(START) for _ in SIZES]
    for cohort, (output, kept) in zip(
        COHORTS, run(process, data, first_states(process)), strict=True
    ):
        ended = []
        for k in cohort:
            at, _ = steps(
                clients()[k],
                theta,
                lambda w, k=k, theta=theta: -own[k] + alpha * (w - theta),
            )
            own[k] = own[k] - alpha * (at - theta)
            ended.append(at)
        h = h - alpha / n * sum(at - theta for at in ended)
        theta = np.mean(ended, axis=0) - h / alpha
        assert_close(weights_of(output.state), theta)
        assert_close(output.state.finalizer[0], h / alpha)
        for k, gradient in enumerate(own):
            assert_close(kept[k][0], gradient)


def test_ditto(data):
    strength = 0.6
    process = algorithms.build_ditto(
        model_fn, sgdm(RATE), sgdm(0.7), proximal_strength=strength
    )
    w, own = START, [START for _ in SIZES]
    for cohort, (output, kept) in zip(
        COHORTS, run(process, data, first_states(process)), strict=True
    ):
        for k in cohort:
            own[k], _ = steps(clients()[k], own[k], lambda v, w=w: strength * (v - w))
        w = w - 0.7 * mean_delta(cohort, w)
        assert_close(weights_of(output.state), w)
        for k, personal in enumerate(own):
            assert_close(kept[k][0], personal)


def test_ifca(data):
    process = algorithms.build_ifca(model_fn, sgdm(RATE), sgdm(1.0), num_clusters=3)
    models = [START + np.array([[a], [b]]) for a, b in [(1, 0), (-1, 0), (0, 1)]]
    state = process.set_model_weights(
        process.initialize(),
        [fedlearn.ModelWeights([w.astype(np.float32)], []) for w in models],
    )
    seen = set()
    for cohort in COHORTS:
        chosen = {
            k: int(np.argmin([loss(w, *clients()[k]) for w in models])) for k in cohort
        }
        for j in set(chosen.values()):
            members = [k for k in cohort if chosen[k] == j]
            models[j] = models[j] - mean_delta(members, models[j])
        seen.update(chosen.values())
        output = process.next(state, [data[k] for k in cohort])
        state = output.state
        counts = np.bincount(list(chosen.values()), minlength=3)
        assert list(output.metrics["client_work"]["clients"]) == list(counts)
        for found, wanted in zip(process.get_model_weights(state), models):
            assert_close(found.trainable[0], wanted)
    assert len(seen) > 1


def adagrad(v, square):
    return v + square


def yogi(v, square):
    return v - (1 - 0.99) * square * np.sign(v - square)


def adam(v, square):
    return 0.99 * v + (1 - 0.99) * square


@pytest.mark.parametrize(
    ("build", "second_moment", "beta_1"),
    [
        (algorithms.build_fed_adagrad, adagrad, 0.0),
        (algorithms.build_fed_yogi, yogi, 0.9),
        (algorithms.build_fed_adam, adam, 0.9),
    ],
)
def test_fed_opt(build, second_moment, beta_1, data):
    process = build(model_fn, sgdm(RATE))
    tau, w = 1e-3, START
    m, v = np.zeros_like(w), np.full_like(w, tau**2)
    for cohort, output in zip(COHORTS, run(process, data), strict=True):
        delta = mean_delta(cohort, w)
        m = beta_1 * m + (1 - beta_1) * delta
        v = second_moment(v, delta**2)
        w = w - 0.1 * m / (np.sqrt(v) + tau)
        assert_close(weights_of(output.state), w)
        assert_close(output.state.finalizer["accumulator"][0], m)
        assert_close(output.state.finalizer["preconditioner"][0], v)


def test_fed_opt_takes_the_papers_constants_and_refuses_others():
    build = algorithms.build_fed_adam
    process = build(model_fn, sgdm(RATE), 0.01, beta_1=0.5, beta_2=0.9, adaptivity=0.1)
    state = process.initialize()
    assert process.get_hparams(state)["finalizer"] == pytest.approx(
        {"learning_rate": 0.01, "beta_1": 0.5, "beta_2": 0.9, "adaptivity": 0.1}
    )
    for options, message in [
        ({"beta_1": 1.0}, "`build_fed_adam` needs `beta_1` at least 0 and less than 1"),
        ({"adaptivity": -1.0}, "`build_fed_adam` needs `adaptivity` at least 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            build(model_fn, sgdm(RATE), **options)
    with pytest.raises(TypeError, match="`server_learning_rate`"):
        build(model_fn, sgdm(RATE), "fast")


def test_what_clients_keep_is_in_the_types():
    process = algorithms.build_fed_dyn(
        model_fn, sgdm(RATE), regularization=0.1, num_clients=2
    )
    batch = "<x=float32[?,2],y=float32[?,1]>*"
    parameter = process.next.type_signature.parameter
    assert str(parameter[1]) == "{<float32[2,1]>}@CLIENTS"
    assert str(parameter[2]) == f"{{{batch}}}@CLIENTS"
    assert str(process.next.type_signature.result[1]) == "{<float32[2,1]>}@CLIENTS"


@pytest.mark.parametrize("name", ["scaffold", "fed_dyn", "ditto", "ifca", "fed_yogi"])
def test_the_number_of_workers_does_not_change_a_bit(name, data):
    process = {
        "scaffold": lambda: algorithms.build_scaffold(model_fn, RATE, num_clients=20),
        "fed_dyn": lambda: algorithms.build_fed_dyn(
            model_fn, sgdm(RATE), regularization=0.4, num_clients=20
        ),
        "ditto": lambda: algorithms.build_ditto(
            model_fn, sgdm(RATE), proximal_strength=0.6
        ),
        "ifca": lambda: algorithms.build_ifca(model_fn, sgdm(RATE), num_clusters=2),
        "fed_yogi": lambda: algorithms.build_fed_yogi(model_fn, sgdm(RATE)),
    }[name]()
    many = data * 5

    def two_rounds(workers):
        with fedcore.context.use(fedsim.local_context(workers=workers, seed=1)):
            state, kept = process.initialize(), None
            for _ in range(2):
                if isinstance(process, fedlearn.templates.StatefulLearningProcess):
                    kept = kept or [
                        process.initialize_client(process.get_model_weights(state))
                    ] * len(many)
                    output = process.next(state, kept, many)
                    kept = output.client_states
                else:
                    output = process.next(state, many)
                state = output.state
        return tf.nest.flatten([state, kept or []])

    for a, b in zip(two_rounds(1), two_rounds(2), strict=True):
        np.testing.assert_array_equal(a, b)
