"""Secure sums of metrics: TFF's types and figures, in the algorithms, errors."""

import collections
import json
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from goldens import learning_cases
from goldens import secure_metrics_tff as cases

import fedcore
import fedlearn
from fedcore.aggregators import PrivateQuantileEstimationProcess
from fedcore.context import use
from fedcore.types import to_type
from fedlearn import metrics
from fedsim.runtime import reference_context

OD = collections.OrderedDict
_FOLDER = pathlib.Path(__file__).parents[2] / "goldens"
GOLDENS = json.loads((_FOLDER / "secure_metrics_tff_0_40.json").read_text())
TYPE = to_type(OD(loss=[tf.float32, tf.float32], num_examples=[tf.int64]))
FINALIZERS = OD(loss=lambda v: v[0] / v[1], num_examples=lambda v: v[0])
CLIENTS = [
    OD(loss=[np.float32(3.0), np.float32(2)], num_examples=[np.int64(2)]),
    OD(loss=[np.float32(5.0), np.float32(2)], num_examples=[np.int64(2)]),
]


def assert_agrees_with_tff(name):
    found = cases.run(metrics, tf, to_type, name)
    for part, golden in GOLDENS["runs"][name].items():
        assert found[part]["type"] == golden["type"]
        for ours, theirs in zip(found[part]["rounds"], golden["rounds"], strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-6, err_msg=part)


@pytest.mark.parametrize("name", cases.RANGES)
def test_agrees_with_tff(name):
    assert_agrees_with_tff(name)


@pytest.mark.parametrize("name", ["default", "nested_ranges"])
def test_agrees_with_tff_on_the_reference_runtime(name):
    with use(reference_context()):
        assert_agrees_with_tff(name)


@pytest.mark.parametrize("name", cases.DEFAULTS)
def test_default_ranges_agree_with_tff(name):
    found = cases.default_ranges(metrics, tf, to_type, name)
    assert json.loads(json.dumps(found)) == GOLDENS["defaults"][name]


def test_default_ranges_may_be_given_back():
    ranges = metrics.create_default_secure_sum_quantization_ranges(TYPE)
    given, default = (
        metrics.SecureSumFactory(ranges).create(TYPE),
        metrics.SecureSumFactory().create(TYPE),
    )
    assert given.next.type_signature is default.next.type_signature


def test_processes_of_ones_own_are_told_apart():
    def median(estimate):
        return PrivateQuantileEstimationProcess.no_noise(estimate, 0.5, 1.0)

    one, other = median(2.0), median(7.0)
    ranges = OD(loss=[(None, one), (other, one)])
    process = metrics.SecureSumFactory(ranges).create(TYPE)
    names = list(fedcore.structure.name_list(process.state_type.member))
    assert names == [
        "None/estimation_process_0/1",
        "estimation_process_1/estimation_process_0/1",
        "0/1048575/9",
    ]
    output = process.next(process.initialize(), CLIENTS)
    measured = output.measurements["None/estimation_process_0/1"]
    assert measured["secure_upper_threshold"] == 2.0
    np.testing.assert_allclose(output.result["loss"][0], 4.0, rtol=1e-6)  # clipped


def test_numbers_of_numpy_are_numbers():
    ranges = OD(loss=[(np.float32(0.5), np.float64(2.0)), None])
    process = metrics.SecureSumFactory(ranges).create(TYPE)
    assert "0.5/2.0/1" in fedcore.structure.name_list(process.state_type.member)


def test_no_clients_sum_to_zero():
    found = metrics.secure_sum_then_finalize(
        OD(loss=lambda v: v[0], num_examples=lambda v: v[0]), TYPE
    )([])
    assert found["num_examples"] == 0
    assert found["loss"] == 0.0


def test_a_model_may_have_no_metrics():
    functional = fedlearn.models.functional_model_from_keras(
        keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1)]),
        keras.losses.MeanSquaredError(),
        learning_cases.INPUT_SPEC,
    )
    sgd = fedlearn.optimizers.build_sgdm(0.05)
    process = fedlearn.algorithms.build_weighted_fed_avg(
        functional, sgd, sgd, metrics_aggregator=metrics.secure_sum_then_finalize
    )
    output = process.next(process.initialize(), learning_cases.client_data())
    found = output.metrics["client_work"]["train"]
    assert found == {"secure_sum_measurements": {}}
    empty = metrics.SecureSumFactory().create(to_type(OD()))
    assert empty.next(empty.initialize(), [OD(), OD()]).result == {}


@pytest.fixture(scope="module")
def model_fn():
    return learning_cases.model_fn_of(fedlearn, keras)


BUILDERS = {
    "weighted_fed_avg": lambda model_fn, **kwargs: (
        fedlearn.algorithms.build_weighted_fed_avg(
            model_fn, fedlearn.optimizers.build_sgdm(0.05), **kwargs
        )
    ),
    "fed_sgd": fedlearn.algorithms.build_fed_sgd,
    "weighted_mime_lite": lambda model_fn, **kwargs: (
        fedlearn.algorithms.build_weighted_mime_lite(
            model_fn, fedlearn.optimizers.build_sgdm(0.05, 0.9), **kwargs
        )
    ),
    "unweighted_fed_prox": lambda model_fn, **kwargs: (
        fedlearn.algorithms.build_unweighted_fed_prox(
            model_fn, 0.1, fedlearn.optimizers.build_sgdm(0.05), **kwargs
        )
    ),
}


@pytest.mark.parametrize("name", BUILDERS)
def test_training_metrics_are_those_of_the_plain_sum(name, model_fn):
    secure = BUILDERS[name](
        model_fn, metrics_aggregator=metrics.secure_sum_then_finalize
    )
    plain = BUILDERS[name](model_fn)
    data = learning_cases.client_data()
    found = secure.next(secure.initialize(), data).metrics["client_work"]["train"]
    wanted = plain.next(plain.initialize(), data).metrics["client_work"]["train"]
    assert list(found) == ["secure_sum_measurements", *wanted]
    for metric, value in wanted.items():
        np.testing.assert_allclose(found[metric], value, rtol=1e-4, err_msg=metric)


def test_evaluation_is_that_of_the_plain_sum(model_fn):
    secure = fedlearn.build_federated_evaluation(
        model_fn, metrics_aggregator=metrics.secure_sum_then_finalize
    )
    plain = fedlearn.build_federated_evaluation(model_fn)
    weights = fedlearn.ModelWeights.from_model(model_fn())
    data = learning_cases.client_data()
    found, wanted = secure(weights, data)["eval"], plain(weights, data)["eval"]
    for metric, value in wanted.items():
        np.testing.assert_allclose(found[metric], value, rtol=1e-4, err_msg=metric)


def test_bounds_of_an_evaluation_process_follow_the_clients(model_fn):
    model = model_fn()
    type_ = fedcore.types.type_from_tensors(model.report_local_unfinalized_metrics())
    aggregation = metrics.SumThenFinalizeFactory(
        model.metric_finalizers(), inner_summation_factory=metrics.SecureSumFactory()
    ).create(type_)
    process = fedlearn.algorithms.build_fed_eval(
        model_fn, metrics_aggregation_process=aggregation
    )
    state, bounds = process.initialize(), []
    for _ in range(3):
        state = process.next(state, learning_cases.client_data()).state
        estimates, _ = state.client_work
        bounds.append(estimates["None/default_estimation_process/1"][0])
    bounds = [bound.current_estimate for bound in bounds]
    assert 50.0 > bounds[0] > bounds[1] > bounds[2]


@pytest.mark.parametrize(
    ("ranges", "error", "message"),
    [
        ([(0, 1)], TypeError, "`SecureSumFactory` needs a mapping by metric name"),
        (
            OD(lost=[(0, 1)]),
            ValueError,
            "`metric_value_ranges` needs ranges by name for some of "
            r"\['loss', 'num_examples'\], found \['lost'\]",
        ),
        (
            OD(loss=[(0.0, 1.0)]),
            ValueError,
            r"`metric_value_ranges\['loss'\]` needs a list with the range, or None, of "
            "each of 2 tensors",
        ),
        (OD(loss=(0.0, 1.0)), ValueError, "needs a list with the range, or None, of"),
        (
            OD(num_examples=[5]),
            TypeError,
            r"`metric_value_ranges\['num_examples'\]\[0\]` needs a pair",
        ),
        (OD(num_examples=[(0.0, 5.0)]), TypeError, "needs integers for a tensor of"),
        (OD(loss=[(0, 5), None]), TypeError, "needs floats or estimation processes"),
        (OD(loss=[(2.0, 1.0), None]), ValueError, "needs a lower threshold below"),
    ],
)
def test_ranges_that_do_not_fit(ranges, error, message):
    with pytest.raises(error, match=message):
        metrics.SecureSumFactory(ranges).create(TYPE)


@pytest.mark.parametrize(
    ("type_", "message"),
    [
        (to_type([tf.float32]), "needs an `OrderedDict` of metrics by name"),
        (to_type(tf.float32), "needs a `StructWithPythonType`"),
        (to_type(OD(a=[tf.string])), "needs integers and floats, found string"),
        (to_type(OD(a=[tf.bool])), "needs integers and floats, found bool"),
    ],
)
def test_types_that_are_not_of_numbers_by_name(type_, message):
    with pytest.raises(TypeError, match=message):
        metrics.SecureSumFactory().create(type_)


def test_a_process_needs_a_state_to_be_kept():
    ranges = metrics.create_default_secure_sum_quantization_ranges(TYPE)
    with pytest.raises(TypeError, match="`secure_sum_then_finalize` needs numbers at"):
        metrics.secure_sum_then_finalize(FINALIZERS, TYPE, ranges)


def test_finalizers_that_do_not_fit():
    with pytest.raises(ValueError, match="needs a finalizer for each"):
        metrics.secure_sum_then_finalize(OD(loss=lambda v: v[0]), TYPE)
    with pytest.raises(TypeError, match="that give metrics by name"):
        metrics.secure_sum_then_finalize(lambda metrics: metrics["loss"][0], TYPE)
    type_ = to_type(OD(secure_sum_measurements=[tf.int64]))
    with pytest.raises(ValueError, match="needs another name for the metric"):
        metrics.secure_sum_then_finalize(
            OD(secure_sum_measurements=lambda v: v[0]), type_
        )
