"""The parts of a learning process, and the process: types, properties, errors."""

import collections
import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf
from goldens import learning_cases

import fedcore
import fedlearn
from fedcore.aggregators import MeanFactory, SumFactory
from fedcore.templates import (
    IterativeProcess,
    MeasuredProcessOutput,
    TemplateNextFnNumArgsError,
    TemplatePlacementError,
)
from fedcore.types import SequenceType, TensorType, at_clients, at_server, to_type
from fedlearn import templates

OD = collections.OrderedDict
STATE = OD(w=tf.int32, h=tf.float32)
DATA = at_clients(SequenceType(TensorType(tf.int32)))


@fedcore.tf_computation
def first_state():
    return OD(w=1, h=2.0)


@fedcore.federated_computation
def initialize():
    return fedcore.federated_eval(first_state, fedcore.SERVER)


@fedcore.federated_computation(at_server(STATE), DATA)
def next_fn(state, data):
    return templates.LearningProcessOutput(
        state, fedcore.federated_value((), fedcore.SERVER)
    )


@fedcore.tf_computation(STATE)
def get_weights(state):
    return state["w"]


@fedcore.tf_computation(STATE, tf.int32)
def set_weights(state, w):
    return OD(w=w, h=state["h"])


@fedcore.tf_computation(STATE)
def get_hparams(state):
    return OD(h=state["h"])


@fedcore.tf_computation(STATE, OD(h=tf.float32))
def set_hparams(state, hparams):
    return OD(w=state["w"], h=hparams["h"])


def process(**changes):
    parts = {
        "initialize_fn": initialize,
        "next_fn": next_fn,
        "get_model_weights": get_weights,
        "set_model_weights": set_weights,
    }
    return templates.LearningProcess(**(parts | changes))


def test_weights_and_hyperparameters_are_computations():
    ours = process(get_hparams_fn=get_hparams, set_hparams_fn=set_hparams)
    assert ours.get_model_weights is get_weights
    assert ours.set_model_weights is set_weights
    assert ours.get_hparams is get_hparams
    assert ours.set_hparams is set_hparams
    state = ours.initialize()
    state = ours.set_model_weights(state, 5)
    state = ours.set_hparams(state, OD(h=7.0))
    assert ours.get_model_weights(state) == 5
    assert ours.get_hparams(state) == {"h": 7.0}
    assert isinstance(ours, IterativeProcess)


def test_a_process_may_have_no_hyperparameters():
    ours = process()
    state_type = to_type(STATE)
    assert str(ours.get_hparams.type_signature) == f"({state_type} -> <>)"
    assert str(ours.set_hparams.type_signature) == (
        f"(<state={state_type},hparams=<>> -> {state_type})"
    )
    state = ours.initialize()
    assert ours.get_hparams(state) == {}
    assert ours.set_hparams(state, OD()) == state
    with pytest.raises(TypeError):
        ours.set_hparams(state, OD(rate=1.0))


def test_a_composed_process_reads_and_sets_by_its_computations():
    model_fn = learning_cases.model_fn_of(fedlearn, keras)
    ours = fedlearn.algorithms.build_weighted_fed_avg(
        model_fn,
        fedlearn.optimizers.build_sgdm(0.05, 0.9),
        fedlearn.optimizers.build_sgdm(1.0),
    )
    state = ours.initialize()
    hparams = ours.get_hparams(state)
    assert hparams["client_work"]["momentum"] == pytest.approx(0.9)
    hparams["finalizer"]["learning_rate"] = np.float32(0.0)
    still = ours.set_hparams(state, hparams)
    output = ours.next(still, learning_cases.client_data())
    before, after = ours.get_model_weights(state), ours.get_model_weights(output.state)
    for old, new in zip(before.trainable, after.trainable):
        np.testing.assert_array_equal(old, new)
    for name in ("get_model_weights", "set_model_weights", "get_hparams"):
        assert isinstance(getattr(ours, name), fedcore.Computation)


@fedcore.federated_computation(at_server(STATE), DATA)
def next_returning_a_tuple(state, data):
    return state, fedcore.federated_value((), fedcore.SERVER)


@fedcore.federated_computation(at_server(STATE), at_clients(TensorType(tf.int32)))
def next_without_sequences(state, data):
    metrics = fedcore.federated_value((), fedcore.SERVER)
    return templates.LearningProcessOutput(state, metrics)


@fedcore.federated_computation(at_server(STATE), at_server(SequenceType(tf.int32)))
def next_of_the_server(state, data):
    metrics = fedcore.federated_value((), fedcore.SERVER)
    return templates.LearningProcessOutput(state, metrics)


@fedcore.federated_computation(at_server(STATE), DATA)
def next_with_metrics_of_clients(state, data):
    metrics = fedcore.federated_value(1, fedcore.CLIENTS)
    return templates.LearningProcessOutput(state, metrics)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"next_fn": next_returning_a_tuple},
            templates.LearningProcessOutputError,
            "`next_fn` needs to return a `LearningProcessOutput",
        ),
        (
            {"next_fn": next_without_sequences},
            templates.LearningProcessSequenceTypeError,
            "`next_fn`'s second argument needs to be sequences at CLIENTS",
        ),
        (
            {"next_fn": next_of_the_server},
            templates.LearningProcessPlacementError,
            "`next_fn`'s second argument needs to be at CLIENTS",
        ),
        (
            {"next_fn": next_with_metrics_of_clients},
            templates.LearningProcessPlacementError,
            "`next_fn`'s metrics needs to be at SERVER",
        ),
        (
            {"get_model_weights": set_weights},
            templates.GetModelWeightsTypeSignatureError,
            "`get_model_weights` needs to take the state",
        ),
        (
            {"set_model_weights": get_weights},
            templates.SetModelWeightsTypeSignatureError,
            "`set_model_weights` needs to go from state and weights to state",
        ),
        (
            {"get_model_weights": lambda state: state["w"]},
            TypeError,
            "`get_model_weights` needs to be a computation, found `function`",
        ),
        (
            {"set_model_weights": None},
            TypeError,
            "`set_model_weights` needs to be a computation, found `NoneType`",
        ),
        (
            {"get_hparams_fn": set_hparams},
            TypeError,
            "`get_hparams_fn` needs to take the state",
        ),
        (
            {"get_hparams_fn": get_hparams, "set_hparams_fn": get_hparams},
            TypeError,
            "`set_hparams_fn` needs to go from state and hyperparameters to state",
        ),
        (
            {"get_hparams_fn": dict},
            TypeError,
            "`get_hparams_fn` needs to be a computation, found `type`",
        ),
    ],
)
def test_a_learning_process_needs_computations_that_fit(changes, error, message):
    with pytest.raises(error, match=message):
        process(**changes)


WEIGHTS = fedlearn.ModelWeights([tf.TensorSpec([2], tf.float32)], [])
W = to_type(WEIGHTS)
EMPTY = at_server(())


@fedcore.federated_computation
def no_state():
    return fedcore.federated_value((), fedcore.SERVER)


@fedcore.federated_computation(EMPTY, at_clients(W), DATA)
def work(state, weights, data):
    def result(weights):
        return templates.ClientResult(weights.trainable, 1.0)

    results = fedcore.federated_map(fedcore.tf_computation(result, W), weights)
    return MeasuredProcessOutput(state, results, no_state())


@fedcore.federated_computation(EMPTY, at_server(W), at_server(W.trainable))
def finalize(state, weights, update):
    return MeasuredProcessOutput(state, weights, no_state())


def sums():
    return SumFactory().create(W.trainable)


def initial_weights():
    return fedcore.tf_computation(lambda: fedlearn.ModelWeights([tf.zeros([2])], []))


def parts():
    return {
        "initial_model_weights_fn": initial_weights(),
        "model_weights_distributor": templates.build_broadcast_process(W),
        "client_work": templates.ClientWorkProcess(no_state, work),
        "model_update_aggregator": sums(),
        "model_finalizer": templates.FinalizerProcess(no_state, finalize),
    }


def test_a_process_is_composed_of_four_parts():
    composed = templates.compose_learning_process(**parts())
    state = (
        "<global_model_weights=<trainable=<float32[2]>,non_trainable=<>>,distributor=<>,"
        "client_work=<>,aggregator=<>,finalizer=<>>@SERVER"
    )
    assert str(composed.initialize.type_signature) == f"( -> {state})"
    assert str(composed.next.type_signature) == (
        f"(<state={state},client_data={{int32*}}@CLIENTS> -> <state={state},"
        "metrics=<distributor=<>,client_work=<>,aggregator=<>,finalizer=<>>@SERVER>)"
    )


def test_an_aggregator_may_or_may_not_take_weights():
    mean = MeanFactory().create(W.trainable, TensorType(tf.float32))
    weighted = templates.compose_learning_process(
        **(parts() | {"model_update_aggregator": mean})
    )
    data = [tf.data.Dataset.range(2, output_type=tf.int32)] * 2
    output = weighted.next(weighted.initialize(), data)
    assert list(output.metrics["aggregator"]) == ["mean_value", "mean_weight"]


@pytest.mark.parametrize("name", list(parts()))
def test_a_part_of_another_kind(name):
    kind = {
        "initial_model_weights_fn": "Computation",
        "model_weights_distributor": "DistributionProcess",
        "client_work": "ClientWorkProcess",
        "model_update_aggregator": "AggregationProcess",
        "model_finalizer": "FinalizerProcess",
    }[name]
    with pytest.raises(
        TypeError, match=f"needs `{name}` to be a `{kind}`, found `int`"
    ):
        templates.compose_learning_process(**(parts() | {name: 5}))


@pytest.mark.parametrize(
    ("name", "other", "message"),
    [
        (
            "model_weights_distributor",
            lambda: templates.build_broadcast_process(to_type(tf.int32)),
            "needs `model_weights_distributor` to take the weights",
        ),
        (
            "model_update_aggregator",
            lambda: SumFactory().create(to_type(tf.int32)),
            "needs `model_update_aggregator` to take a client's update",
        ),
        (
            "initial_model_weights_fn",
            lambda: fedcore.tf_computation(lambda: tf.zeros([2])),
            "needs the type of a model's `ModelWeights`, found `float32",
        ),
        (
            "initial_model_weights_fn",
            lambda: fedcore.tf_computation(lambda weights: weights, W),
            "`initial_model_weights_fn` needs to take no argument",
        ),
    ],
)
def test_a_part_that_does_not_fit(name, other, message):
    with pytest.raises(TypeError, match=message):
        templates.compose_learning_process(**(parts() | {name: other()}))


def test_client_work_needs_sequences_and_client_results():
    @fedcore.federated_computation(EMPTY, at_clients(W), at_clients(tf.int32))
    def on_numbers(state, weights, data):
        return MeasuredProcessOutput(state, weights, no_state())

    @fedcore.federated_computation(EMPTY, at_clients(W), DATA)
    def of_weights(state, weights, data):
        return MeasuredProcessOutput(state, weights, no_state())

    with pytest.raises(templates.ClientDataTypeError, match="needs to be sequences at"):
        templates.ClientWorkProcess(no_state, on_numbers)
    with pytest.raises(
        templates.ClientResultTypeError, match="needs to return a `ClientResult`"
    ):
        templates.ClientWorkProcess(no_state, of_weights)


def test_a_finalizer_needs_to_return_weights():
    @fedcore.federated_computation(EMPTY, at_server(W), at_server(W.trainable))
    def of_update(state, weights, update):
        return MeasuredProcessOutput(state, update, no_state())

    with pytest.raises(
        templates.FinalizerResultTypeError, match="needs to return weights like those"
    ):
        templates.FinalizerProcess(no_state, of_update)


def test_parts_need_their_arguments_in_their_places():
    @fedcore.federated_computation(EMPTY, at_clients(W))
    def of_clients(state, weights):
        return MeasuredProcessOutput(state, weights, no_state())

    with pytest.raises(
        TemplatePlacementError, match="`next_fn`'s value needs to be at"
    ):
        templates.DistributionProcess(no_state, of_clients)
    with pytest.raises(
        TemplateNextFnNumArgsError, match="`next_fn` of a FinalizerProcess needs"
    ):
        templates.FinalizerProcess(no_state, of_clients)


def test_a_broadcast_needs_an_unplaced_type():
    with pytest.raises(TypeError, match="`build_broadcast_process` needs an unplaced"):
        templates.build_broadcast_process(at_server(W))


def test_simulation_loop_is_said_to_have_no_effect():
    builders = [
        value
        for module in (fedlearn, fedlearn.algorithms, templates)
        for value in vars(module).values()
        if callable(value) and hasattr(value, "__name__")
    ]
    known = [
        build
        for build in builders
        if "use_experimental_simulation_loop" in _parameters(build)
    ]
    assert len(known) >= 12
    for build in known:
        text = " ".join((build.__doc__ or "").split())
        assert "use_experimental_simulation_loop: Accepted" in text, build
        assert "no effect" in text.split("use_experimental_simulation_loop:")[1], build


def _parameters(function):
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):
        return {}


def test_simulation_loop_has_no_effect():
    model_fn = learning_cases.model_fn_of(fedlearn, keras)
    outputs = []
    for flag in (False, True):
        ours = fedlearn.algorithms.build_unweighted_fed_avg(
            model_fn,
            fedlearn.optimizers.build_sgdm(0.05),
            use_experimental_simulation_loop=flag,
        )
        output = ours.next(ours.initialize(), learning_cases.client_data())
        outputs.append(learning_cases.flat(output.metrics))
    assert outputs[0] == outputs[1]
