"""Algorithms whose clients keep a state: SCAFFOLD and Ditto."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from goldens import learning_cases as cases

import fedcore
import fedlearn
import fedsim

algorithms = fedlearn.algorithms
sgdm = fedlearn.optimizers.build_sgdm
MODEL_FN = cases.model_fn_of(fedlearn, keras)
RATE = 0.05


@pytest.fixture(scope="module")
def scaffold():
    return algorithms.build_scaffold(MODEL_FN, RATE, num_clients=len(cases.SIZES))


def first_states(process, state, number):
    return [process.initialize_client(process.get_model_weights(state))] * number


def assert_close(found, wanted, rtol=2e-5):
    for a, b in zip(tf.nest.flatten(found), tf.nest.flatten(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-6)


def test_scaffold_with_control_variates_of_0_is_fed_avg(scaffold):
    data = cases.client_data()
    state = scaffold.initialize()
    output = scaffold.next(state, first_states(scaffold, state, len(data)), data)
    fed_avg = algorithms.build_weighted_fed_avg(
        MODEL_FN,
        sgdm(RATE),
        sgdm(1.0),
        client_weighting=fedlearn.ClientWeighting.UNIFORM,
    )
    wanted = fed_avg.next(fed_avg.initialize(), data)
    assert_close(
        output.state.global_model_weights.trainable,
        wanted.state.global_model_weights.trainable,
    )
    assert output.metrics["client_work"]["train"] == pytest.approx(
        wanted.metrics["client_work"]["train"]
    )


def test_control_variates_are_mean_gradients_and_the_servers_their_mean(scaffold):
    """With one batch a client's variate is its gradient at the server's weights."""
    x, y = cases.client_arrays()[0]
    data = [tf.data.Dataset.from_tensors({"x": x, "y": y})]
    state = scaffold.initialize()
    output = scaffold.next(state, first_states(scaffold, state, 1), data)
    model = MODEL_FN()
    with tf.GradientTape() as tape:
        loss = model.forward_pass({"x": x, "y": y}).loss
    gradients = tape.gradient(loss, model.trainable_variables)
    assert_close(output.client_states[0], gradients, rtol=1e-4)
    assert_close(
        output.state.client_work, [g / len(cases.SIZES) for g in gradients], rtol=1e-4
    )


def test_spoilt_and_empty_clients_keep_their_variates(scaffold):
    state = scaffold.initialize()
    kept = first_states(scaffold, state, len(cases.SIZES))
    output = scaffold.next(state, kept, cases.client_data())
    state, kept = output.state, output.client_states
    output = scaffold.next(state, kept, cases.client_data(spoilt=(1,)))
    assert_close(output.client_states[1], kept[1])
    assert_close(output.client_states[2], kept[2])
    for value in tf.nest.flatten([output.client_states, output.state.client_work]):
        assert np.all(np.isfinite(value))


def test_scaffold_is_the_same_on_the_reference_runtime(scaffold):
    def run():
        state = scaffold.initialize()
        kept = first_states(scaffold, state, len(cases.SIZES))
        for _ in range(2):
            output = scaffold.next(state, kept, cases.client_data())
            state, kept = output.state, output.client_states
        return [list(state.global_model_weights.trainable), list(kept)]

    fast = run()
    with fedcore.context.use(fedsim.runtime.ReferenceContext()):
        assert_close(run(), fast)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"client_learning_rate": 0.0},
            ValueError,
            "`build_scaffold` needs `client_learning_rate` more than 0",
        ),
        (
            {"client_learning_rate": sgdm(0.1)},
            TypeError,
            "Its clients take plain gradient steps: pass the rate",
        ),
        ({"num_clients": 0}, ValueError, "needs `num_clients` of at least 1"),
        ({"num_clients": [1, 2]}, TypeError, "needs an int as `num_clients`"),
        (
            {"model_aggregator": fedcore.aggregators.SumFactory()},
            TypeError,
            "`model_aggregator` needs to be a `WeightedAggregationFactory`",
        ),
    ],
)
def test_scaffold_refuses(changes, error, message):
    arguments = {"client_learning_rate": 0.1, "num_clients": 3, **changes}
    with pytest.raises(error, match=message):
        algorithms.build_scaffold(MODEL_FN, **arguments)


@pytest.mark.parametrize(
    ("build", "options"),
    [
        (algorithms.build_ditto, {"proximal_strength": 0.1}),
        (algorithms.build_fed_dyn, {"regularization": 0.1, "num_clients": 3}),
        (algorithms.build_ifca, {"num_clusters": 2}),
    ],
)
def test_a_metrics_aggregator_makes_a_computation(build, options):
    with pytest.raises(TypeError, match="`metrics_aggregator` needs to make a comp"):
        build(MODEL_FN, sgdm(RATE), metrics_aggregator=lambda *_: 3, **options)


@pytest.mark.parametrize(
    ("build", "options", "error", "message"),
    [
        (
            algorithms.build_fed_dyn,
            {"regularization": 0.0, "num_clients": 3},
            ValueError,
            "`build_fed_dyn` needs `regularization` more than 0",
        ),
        (
            algorithms.build_fed_dyn,
            {"regularization": 1.0, "num_clients": 2.5},
            TypeError,
            "`build_fed_dyn` needs an int as `num_clients`",
        ),
        (
            algorithms.build_ditto,
            {"proximal_strength": -1.0},
            ValueError,
            "`build_ditto` needs `proximal_strength` at least 0",
        ),
        (
            algorithms.build_ifca,
            {"num_clusters": 0},
            ValueError,
            "`build_ifca` needs `num_clusters` of at least 1",
        ),
        (
            algorithms.build_ifca,
            {"num_clusters": "two"},
            TypeError,
            "`build_ifca` needs an int as `num_clusters`",
        ),
    ],
)
def test_others_refuse(build, options, error, message):
    with pytest.raises(error, match=message):
        build(MODEL_FN, sgdm(RATE), **options)


def test_fed_dyn_survives_spoilt_clients():
    process = algorithms.build_fed_dyn(
        MODEL_FN, sgdm(RATE), regularization=0.1, num_clients=len(cases.SIZES)
    )
    state = process.initialize()
    kept = first_states(process, state, len(cases.SIZES))
    for spoilt in [(), (1,), (0, 1, 3), ()]:
        output = process.next(state, kept, cases.client_data(spoilt))
        for number in spoilt:
            assert_close(output.client_states[number], kept[number])
        if len(spoilt) == 3:  # and the other is empty
            assert_close(
                output.state.global_model_weights.trainable,
                state.global_model_weights.trainable,
            )
        state, kept = output.state, output.client_states
    for value in tf.nest.flatten([kept, state.finalizer, state.global_model_weights]):
        assert np.all(np.isfinite(value))


def test_composing_refuses_what_does_not_fit(scaffold):
    weights_type = fedlearn.models.weights_type_from_model(MODEL_FN)
    templates = fedlearn.templates
    parts = {
        "initial_model_weights_fn": fedcore.tf_computation(
            lambda: fedlearn.ModelWeights.from_model(MODEL_FN())
        ),
        "initialize_client": scaffold.initialize_client,
        "model_weights_distributor": templates.build_broadcast_process(weights_type),
        "client_work": templates.build_model_delta_client_work(
            MODEL_FN, sgdm(RATE), fedlearn.ClientWeighting.UNIFORM
        ),
        "model_update_aggregator": fedcore.aggregators.SumFactory().create(
            weights_type.trainable
        ),
        "model_finalizer": templates.build_apply_optimizer_finalizer(
            sgdm(1.0), weights_type
        ),
    }
    with pytest.raises(TypeError, match="`client_work` to be a `StatefulClientWork"):
        templates.compose_stateful_learning_process(**parts)


def test_ditto_of_strength_0_trains_clients_alone():
    process = algorithms.build_ditto(MODEL_FN, sgdm(RATE), proximal_strength=0.0)
    data = cases.client_data()
    state = process.initialize()
    kept = first_states(process, state, len(data))
    for _ in range(2):
        output = process.next(state, kept, data)
        state, kept = output.state, output.client_states
    alone = algorithms.build_weighted_fed_avg(MODEL_FN, sgdm(RATE), sgdm(1.0))
    own = alone.initialize()
    for _ in range(2):
        own = alone.next(own, data[1:2]).state
    assert_close(kept[1], own.global_model_weights.trainable)


def test_dittos_server_is_fed_avg_and_its_clients_stay_near():
    data = cases.client_data()
    fed_avg = algorithms.build_weighted_fed_avg(MODEL_FN, sgdm(RATE), sgdm(1.0))

    def distance(strength):
        process = algorithms.build_ditto(
            MODEL_FN, sgdm(RATE), proximal_strength=strength
        )
        state, averaged = process.initialize(), fed_avg.initialize()
        kept = first_states(process, state, len(data))
        for _ in range(3):
            output = process.next(state, kept, data)
            before = state.global_model_weights.trainable
            state, kept = output.state, output.client_states
            averaged = fed_avg.next(averaged, data).state
        assert_close(
            state.global_model_weights.trainable,
            averaged.global_model_weights.trainable,
        )
        assert list(output.metrics["client_work"]) == ["train", "personal"]
        return sum(np.sum((v - w) ** 2) for v, w in zip(kept[0], before))

    assert distance(5.0) < distance(0.5) < distance(0.0)


def test_ditto_survives_a_spoilt_client():
    process = algorithms.build_ditto(MODEL_FN, sgdm(RATE), proximal_strength=0.1)
    state = process.initialize()
    kept = first_states(process, state, len(cases.SIZES))
    output = process.next(state, kept, cases.client_data(spoilt=(0,)))
    assert_close(output.client_states[0], kept[0])


def test_a_run_that_is_killed_while_it_writes_ends_with_the_same_bits(
    scaffold, tmp_path, monkeypatch
):
    data = cases.client_data()
    ids = [f"client {number}" for number in range(len(data))]
    first = scaffold.initialize()
    initial = scaffold.initialize_client(scaffold.get_model_weights(first))

    def train(store, state, rounds):
        for round_num in rounds:
            cohort = np.random.default_rng(round_num).permutation(len(ids))[:2]
            names = [ids[k] for k in cohort]
            kept = store.select(names, round_num)
            output = scaffold.next(state, kept, [data[k] for k in cohort])
            store.update(names, output.client_states, round_num)
            store.prune(round_num)
            state = output.state
        return state

    whole = fedsim.ClientStateStore(initial)
    wanted = train(whole, first, range(5))

    checkpoint = train(fedsim.ClientStateStore(initial, tmp_path), first, range(3))
    save, calls = np.savez, []

    def die_at_the_second(file, **arrays):
        calls.append(file)
        if len(calls) == 2:
            raise KeyboardInterrupt
        save(file, **arrays)

    monkeypatch.setattr(np, "savez", die_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        train(fedsim.ClientStateStore(initial, tmp_path), checkpoint, range(3, 5))
    monkeypatch.undo()
    again = fedsim.ClientStateStore(initial, tmp_path)
    found = train(again, checkpoint, range(3, 5))
    for a, b in zip(
        tf.nest.flatten([found, again.select(ids)]),
        tf.nest.flatten([wanted, whole.select(ids)]),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


def test_the_servers_rate_is_a_hyperparameter(scaffold):
    state = scaffold.initialize()
    hparams = scaffold.get_hparams(state)
    assert hparams["finalizer"] == {}  # Keras's SGD has its rate fixed
    process = algorithms.build_ditto(
        MODEL_FN, sgdm(RATE), sgdm(1.0), proximal_strength=0.1
    )
    state = process.initialize()
    hparams = process.get_hparams(state)
    assert hparams["finalizer"]["learning_rate"] == 1.0
    hparams["finalizer"]["learning_rate"] = 0.0
    still = process.set_hparams(state, hparams)
    data = cases.client_data()
    output = process.next(still, first_states(process, still, len(data)), data)
    assert_close(
        output.state.global_model_weights.trainable,
        state.global_model_weights.trainable,
    )


def test_as_many_states_as_clients_are_asked_for(scaffold):
    state = scaffold.initialize()
    with pytest.raises(ValueError, match=r"found 3 in .*client_states.*, 4 in"):
        scaffold.next(state, first_states(scaffold, state, 3), cases.client_data())


def a_stateful_process(*, result=None, arguments=None, initialize_client=None):
    """A small process that counts, with one part as a test wants it."""
    state = fedcore.type_at_server(tf.int32)
    kept = fedcore.type_at_clients(tf.float32)
    data = fedcore.type_at_clients(fedcore.SequenceType(tf.float32))
    output = fedlearn.templates.StatefulLearningProcessOutput

    @fedcore.federated_computation
    def initialize_fn():
        return fedcore.federated_value(0, fedcore.SERVER)

    @fedcore.federated_computation(arguments or [state, kept, data])
    def next_fn(taken):
        make = result or (
            lambda *parts: output(*parts, fedcore.federated_value((), fedcore.SERVER))
        )
        return make(taken[0], taken[1])

    identity = fedcore.tf_computation(lambda x: x, tf.int32)
    return fedlearn.templates.StatefulLearningProcess(
        initialize_fn,
        next_fn,
        initialize_client
        or fedcore.tf_computation(lambda w: tf.cast(w, tf.float32), tf.int32),
        identity,
        fedcore.tf_computation(lambda s, w: w, tf.int32, tf.int32),
    )


def test_a_stateful_process_of_small_parts():
    process = a_stateful_process()
    output = process.next(7, [1.0, 2.0], [[1.0], [2.0]])
    assert (output.state, list(output.client_states)) == (7, [1.0, 2.0])
    assert process.set_model_weights(7, 8) == 8
    assert process.get_hparams(7) == {}
    with pytest.raises(ValueError, match="needs a process with hyperparameters"):
        process.set_hparams(7, {})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"result": lambda s, kept: (s, kept)},
            "needs to return a `StatefulLearningProcessOutput",
        ),
        (
            {
                "result": lambda s, kept: (
                    fedlearn.templates.StatefulLearningProcessOutput(s, s, s)
                )
            },
            "client states needs to be at CLIENTS",
        ),
        (
            {"initialize_client": fedcore.tf_computation(lambda w: w, tf.int32)},
            "`initialize_client` needs to go from the model's weights",
        ),
        (
            {
                "arguments": [
                    fedcore.type_at_server(tf.int32),
                    fedcore.type_at_clients(tf.float32),
                ]
            },
            "needs to take the server's state, the clients' states and their data",
        ),
    ],
)
def test_a_stateful_process_refuses(changes, message):
    with pytest.raises(TypeError, match=message):
        a_stateful_process(**changes)
