"""What algorithms do with spoilt, missing and uneven clients, hyperparameters, state."""

import collections

import keras
import numpy as np
import pytest
import tensorflow as tf
from goldens import learning_cases as cases

import fedcore
import fedlearn

algorithms = fedlearn.algorithms
sgdm = fedlearn.optimizers.build_sgdm
MODEL_FN = cases.model_fn_of(fedlearn, keras)
RATE = 0.05


def one_batch(clients):
    """All examples of a client in one batch."""
    return [
        tf.data.Dataset.from_tensor_slices(collections.OrderedDict(x=x, y=y)).batch(100)
        for x, y in clients
    ]


def trained(process, data, rounds=2):
    """The trainable weights after some rounds."""
    state = process.initialize()
    for _ in range(rounds):
        state = process.next(state, data).state
    return list(process.get_model_weights(state).trainable)


def assert_close(found, wanted, rtol=2e-5):
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-6)


def fed_avg(model_fn=MODEL_FN, **options):
    return algorithms.build_weighted_fed_avg(model_fn, sgdm(RATE), sgdm(1.0), **options)


def test_clients_without_data_do_no_harm():
    some = cases.client_data()
    without = [data for data, size in zip(some, cases.SIZES) if size]
    assert len(without) < len(some)
    assert_close(trained(fed_avg(), some), trained(fed_avg(), without))


def test_a_round_of_clients_without_data_changes_nothing():
    process = fed_avg()
    empty = [cases.client_data()[2]] * 2
    state = process.initialize()
    before = process.get_model_weights(state).trainable
    output = process.next(state, empty)
    assert_close(process.get_model_weights(output.state).trainable, before)
    # The mean of no examples is 0 / 0, which the server takes as 0 and counts.
    assert output.metrics["finalizer"]["update_non_finite"] == 1
    assert output.metrics["client_work"]["train"]["num_examples"] == 0


def test_spoilt_clients_count_for_nothing():
    process = fed_avg()
    spoilt = cases.client_data(spoilt=(1,))
    without = [data for number, data in enumerate(cases.client_data()) if number != 1]
    assert_close(trained(process, spoilt), trained(process, without))


def test_if_all_clients_are_spoilt_the_weights_stay_and_it_is_counted():
    process = fed_avg()
    state = process.initialize()
    output = process.next(state, cases.client_data(spoilt=(0, 1, 3)))
    assert_close(
        output.state.global_model_weights.trainable,
        state.global_model_weights.trainable,
    )
    assert output.metrics["finalizer"]["update_non_finite"] == 1
    good = process.next(output.state, cases.client_data())
    assert good.metrics["finalizer"]["update_non_finite"] == 0


def test_fed_prox_holds_clients_near_the_server_and_tffs_drives_them_away():
    data = cases.client_data()

    def distance(process):
        before = trained(process, data, rounds=0)
        after = trained(process, data, rounds=1)
        return sum(np.sum((a - b) ** 2) for a, b in zip(after, before))

    near = distance(algorithms.build_fed_prox(MODEL_FN, 2.0, sgdm(RATE), sgdm(1.0)))
    far = distance(
        algorithms.build_weighted_fed_prox(MODEL_FN, 2.0, sgdm(RATE), sgdm(1.0))
    )
    assert near < distance(fed_avg()) < far


def test_fed_prox_of_one_batch_does_not_feel_the_proximal_term():
    data = one_batch(cases.client_arrays())
    process = algorithms.build_fed_prox(MODEL_FN, 5.0, sgdm(RATE), sgdm(1.0))
    assert_close(trained(process, data, 1), trained(fed_avg(), data, 1))


def test_mime_lite_keeps_its_optimizer_sound_when_clients_are_spoilt():
    process = algorithms.build_weighted_mime_lite(MODEL_FN, sgdm(RATE, 0.9))
    state = process.initialize()
    for spoilt in [(), (1,), (0, 1, 3), ()]:
        state = process.next(state, cases.client_data(spoilt)).state
    for part in (state.global_model_weights.trainable, state.client_work[0]):
        assert all(np.all(np.isfinite(v)) for v in tf.nest.flatten(part))


def test_a_constant_schedule_is_fed_avg():
    data = cases.client_data()
    for optimizer_fn in (sgdm, keras.optimizers.SGD):
        process = algorithms.build_weighted_fed_avg_with_optimizer_schedule(
            MODEL_FN, lambda round_num: RATE, optimizer_fn, sgdm(1.0)
        )
        assert_close(trained(process, data), trained(fed_avg(), data))


def test_a_schedule_reaches_an_optimizer_without_a_pure_form():
    def nadam(rate):
        return keras.optimizers.Nadam(rate)

    scheduled = algorithms.build_weighted_fed_avg_with_optimizer_schedule(
        MODEL_FN, lambda r: tf.where(r < 1, 0.0, 0.01), nadam, sgdm(1.0)
    )
    data = cases.client_data()
    initial = trained(scheduled, data, 0)
    assert_close(trained(scheduled, data, 1), initial)
    constant = algorithms.build_weighted_fed_avg(
        MODEL_FN, lambda: keras.optimizers.Nadam(0.01), sgdm(1.0)
    )
    assert_close(trained(scheduled, data, 2), trained(constant, data, 1))


def test_a_function_of_the_metrics_weighs_clients():
    def only_large(metrics):
        return tf.where(metrics["num_examples"][0] > 5, 1.0, 0.0)

    found = trained(fed_avg(client_weighting=only_large), cases.client_data())
    assert_close(found, trained(fed_avg(), cases.client_data()[:1]))


def test_ifca_trains_the_model_that_fits():
    """Two groups of clients, y = x and y = -x, and two models that lean either way."""

    def linear():
        model = keras.Sequential(
            [keras.Input((1,)), keras.layers.Dense(1, use_bias=False)]
        )
        spec = tf.TensorSpec([None, 1], tf.float32)
        return fedlearn.from_keras_model(
            model, keras.losses.MeanSquaredError(), (spec, spec)
        )

    x = np.linspace(-1, 1, 20, dtype=np.float32)[:, None]
    data = [
        tf.data.Dataset.from_tensor_slices((x, sign * x)).batch(5)
        for sign in (1.0, -1.0, 1.0)
    ]
    process = algorithms.build_ifca(linear, sgdm(0.3), sgdm(1.0), num_clusters=2)
    state = process.initialize()
    leaning = [
        fedlearn.ModelWeights([np.array([[w]], np.float32)], []) for w in (0.1, -0.1)
    ]
    state = process.set_model_weights(state, leaning)
    for _ in range(10):
        output = process.next(state, data)
        state = output.state
        assert list(output.metrics["client_work"]["clients"]) == [2, 1]
    found = [float(w.trainable[0][0, 0]) for w in process.get_model_weights(state)]
    np.testing.assert_allclose(found, [1.0, -1.0], atol=0.02)


def test_fed_eval_sums_over_rounds():
    process = algorithms.build_fed_eval(MODEL_FN)
    state = process.initialize()
    first = process.next(state, cases.client_data()[:1])
    second = process.next(first.state, cases.client_data()[1:2])
    evaluated = second.metrics["client_work"]["eval"]
    assert evaluated["current_round_metrics"]["num_examples"] == cases.SIZES[1]
    assert evaluated["total_rounds_metrics"]["num_examples"] == sum(cases.SIZES[:2])


def test_state_with_new_model_weights():
    process = fed_avg()
    state = process.initialize()
    ones = [np.ones_like(w) for w in state.global_model_weights.trainable]
    changed = fedlearn.state_with_new_model_weights(state, ones, [])
    assert_close(process.get_model_weights(changed).trainable, ones)
    same = process.set_model_weights(state, fedlearn.ModelWeights(ones, []))
    assert_close(process.get_model_weights(same).trainable, ones)
    with pytest.raises(TypeError, match="of the dtypes and shapes"):
        fedlearn.state_with_new_model_weights(state, ones[:-1], [])
    with pytest.raises(TypeError, match="float64"):
        fedlearn.state_with_new_model_weights(
            state, [w.astype(np.float64) for w in ones], []
        )


def test_state_with_new_model_weights_of_the_older_process():
    process = fedlearn.build_federated_averaging_process(
        MODEL_FN, sgdm(RATE), sgdm(0.5, 0.9)
    )
    state, metrics = process.next(process.initialize(), cases.client_data())
    assert list(metrics) == ["broadcast", "aggregation", "train"]
    ones = [np.ones_like(w) for w in state.model.trainable]
    changed = fedlearn.state_with_new_model_weights(state, ones, [])
    assert_close(process.get_model_weights(changed).trainable, ones)
    assert changed.optimizer_state is state.optimizer_state
    process.next(changed, cases.client_data())


def test_the_older_process_is_fed_avg():
    process = fedlearn.build_federated_averaging_process(
        MODEL_FN, sgdm(RATE), sgdm(1.0)
    )
    state = process.initialize()
    data = cases.client_data()
    for _ in range(2):
        state, _ = process.next(state, data)
    assert_close(process.get_model_weights(state).trainable, trained(fed_avg(), data))


def test_hparams_can_be_read_and_set():
    process = fed_avg()
    state = process.initialize()
    hparams = process.get_hparams(state)
    assert list(hparams) == ["client_work", "finalizer"]
    hparams["client_work"]["learning_rate"] = 0.0
    still = process.set_hparams(state, hparams)
    assert process.get_hparams(still)["client_work"]["learning_rate"] == 0.0
    output = process.next(still, cases.client_data())
    assert_close(
        output.state.global_model_weights.trainable,
        state.global_model_weights.trainable,
    )
    # The rate is kept until it is set again.
    assert process.get_hparams(output.state)["client_work"]["learning_rate"] == 0.0


def test_deprecated_functions_warn_and_work():
    old = fedlearn.deprecation.deprecated(lambda a, b=1: a + b, "Call `new`.")
    with pytest.warns(DeprecationWarning, match="Call `new`"):
        assert old(1, b=3) == 4


def test_stateless_broadcaster_sends_weights_as_they_are():
    weights_type = fedlearn.models.weights_type_from_model(MODEL_FN)
    process = fedlearn.framework.build_stateless_broadcaster(
        model_weights_type=weights_type
    )
    assert str(process.next.type_signature) == (
        f"(<state=<>@SERVER,value={weights_type}@SERVER> -> "
        f"<state=<>@SERVER,result={weights_type}@CLIENTS,measurements=<>@SERVER>)"
    )
    with pytest.raises(TypeError, match="unplaced type"):
        fedlearn.framework.build_stateless_broadcaster(
            model_weights_type=fedcore.types.at_server(weights_type)
        )
