"""Learning with models, losses, metrics and optimizers of Keras 2 (`tf_keras`)."""

import collections

import keras
import numpy as np
import pytest
import tensorflow as tf

import fedcore
import fedlearn
import fedsim

tf_keras = pytest.importorskip("tf_keras", reason="tf_keras (Keras 2) is not there")

SPEC = collections.OrderedDict(
    x=tf.TensorSpec([None, 4], tf.float32), y=tf.TensorSpec([None, 1], tf.int32)
)


def batches(client):
    rng = np.random.default_rng(client)
    sizes = (5, 5, 1 + client)
    return [
        collections.OrderedDict(
            x=rng.normal(size=[n, 4]).astype(np.float32),
            y=rng.integers(3, size=[n, 1]).astype(np.int32),
        )
        for n in sizes
    ]


DATA = [batches(client) for client in range(3)]


def build_model(package, initializer="ones"):
    return package.Sequential(
        [
            package.layers.Input((4,)),
            package.layers.Dense(
                3,
                activation="softmax",
                kernel_initializer=initializer,
                kernel_regularizer=package.regularizers.L2(0.01),
            ),
        ]
    )


def model_fn(package=tf_keras):
    return fedlearn.models.from_keras_model(
        build_model(package),
        input_spec=SPEC,
        loss=package.losses.SparseCategoricalCrossentropy(),
        metrics=[package.metrics.SparseCategoricalAccuracy()],
    )


def two_rounds(package, client_optimizer_fn, **options):
    process = fedlearn.algorithms.build_weighted_fed_avg(
        lambda: model_fn(package), client_optimizer_fn=client_optimizer_fn, **options
    )
    with fedcore.context.use(fedsim.local_context(seed=1, xla=False)):
        state = process.initialize()
        for _ in range(2):
            output = process.next(state, DATA)
            state = output.state
    return state.global_model_weights, output.metrics["client_work"]["train"]


def assert_same(one, other):
    for a, b in zip(one[0].trainable, other[0].trainable):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert list(one[1]) == list(other[1])
    for name, value in one[1].items():
        np.testing.assert_allclose(value, other[1][name], rtol=1e-5)


def test_a_round_is_that_of_the_same_model_in_keras_3():
    assert_same(
        two_rounds(tf_keras, lambda: tf_keras.optimizers.SGD(0.1)),
        two_rounds(keras, lambda: keras.optimizers.SGD(0.1)),
    )


@pytest.mark.parametrize(
    ("two", "three"),
    [
        (lambda k: k.optimizers.SGD(0.1, momentum=0.9), None),
        (lambda k: k.optimizers.Adam(0.01), None),
        (lambda k: k.optimizers.legacy.SGD(0.1), lambda k: k.optimizers.SGD(0.1)),
        (
            lambda k: k.optimizers.legacy.Adagrad(0.1),
            lambda k: k.optimizers.Adagrad(0.1),
        ),
        (
            lambda k: k.optimizers.SGD(
                k.optimizers.schedules.ExponentialDecay(0.1, 1, 0.5)
            ),
            None,
        ),
    ],
    ids=["momentum", "Adam", "legacy SGD", "legacy Adagrad", "schedule"],
)
def test_optimizers_keep_their_state_from_step_to_step(two, three):
    three = three or two
    assert_same(
        two_rounds(tf_keras, lambda: two(tf_keras)),
        two_rounds(keras, lambda: three(keras)),
    )


def test_optimizers_at_the_server_keep_their_state_from_round_to_round():
    def rounds(package):
        return two_rounds(
            package,
            lambda: package.optimizers.SGD(0.1),
            server_optimizer_fn=lambda: package.optimizers.Adam(0.1),
        )

    assert_same(rounds(tf_keras), rounds(keras))


def test_an_optimizer_may_be_of_the_other_generation():
    expected = two_rounds(keras, lambda: keras.optimizers.SGD(0.1))
    assert_same(two_rounds(keras, lambda: tf_keras.optimizers.SGD(0.1)), expected)
    assert_same(two_rounds(tf_keras, lambda: keras.optimizers.SGD(0.1)), expected)
    ours = fedlearn.optimizers.build_sgdm(0.1)
    assert_same(two_rounds(tf_keras, ours), expected)


def test_evaluation_gives_what_keras_2_gives():
    weights, _ = two_rounds(tf_keras, lambda: tf_keras.optimizers.SGD(0.1))
    evaluate = fedlearn.build_federated_evaluation(model_fn)
    model = build_model(tf_keras)
    weights.assign_weights_to(model)
    for variable, value in zip(model.trainable_weights, weights.trainable):
        np.testing.assert_array_equal(variable.numpy(), value)
    model.compile(
        loss=tf_keras.losses.SparseCategoricalCrossentropy(),
        metrics=["sparse_categorical_accuracy"],
    )
    x, y = (np.concatenate([b[k] for c in DATA for b in c]) for k in ("x", "y"))
    _, accuracy = model.evaluate(x, y, verbose=0, batch_size=len(x))
    found = evaluate(weights, DATA)["eval"]
    assert found["sparse_categorical_accuracy"] == pytest.approx(accuracy)
    assert found["num_examples"] == len(x)


def test_initial_weights_follow_from_the_contexts_seed():
    process = fedlearn.algorithms.build_weighted_fed_avg(
        lambda: fedlearn.models.from_keras_model(
            build_model(tf_keras, "glorot_uniform"),
            input_spec=SPEC,
            loss=tf_keras.losses.SparseCategoricalCrossentropy(),
        ),
        client_optimizer_fn=lambda: tf_keras.optimizers.SGD(0.1),
    )

    def drawn(seed):
        with fedcore.context.use(fedsim.local_context(seed=seed)):
            return process.initialize().global_model_weights.trainable[0]

    np.testing.assert_array_equal(drawn(1), drawn(1))
    assert not np.array_equal(drawn(1), drawn(2))


def test_weights_go_into_a_model_and_come_out_of_it():
    weights = fedlearn.models.ModelWeights.from_model(build_model(tf_keras))
    assert [tuple(w.shape) for w in weights.trainable] == [(4, 3), (3,)]


def test_a_saved_model_predicts_and_finalizes_as_before(tmp_path):
    model = model_fn()
    fedlearn.models.save(model, str(tmp_path / "model"))
    loaded = fedlearn.models.load(str(tmp_path / "model"))
    batch = DATA[0][0]
    np.testing.assert_allclose(
        loaded.predict_on_batch(batch["x"]), model.predict_on_batch(batch["x"])
    )
    for one in (model, loaded):
        one.forward_pass(batch)
    values = model.report_local_unfinalized_metrics()
    for name, finalize in model.metric_finalizers().items():
        again = loaded.metric_finalizers()[name](values[name])
        np.testing.assert_allclose(again, finalize(values[name]))


class Kept(tf_keras.metrics.Metric):
    """Keeps its variables where a finalizer does not look for them."""

    def __init__(self, name="kept", **kwargs):
        super().__init__(name=name, **kwargs)
        self.parts = [self.add_weight(name="a", initializer="zeros")]

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.parts[0].assign_add(1.0)

    def result(self):
        return self.parts[0] * 2.0


@pytest.mark.parametrize(
    ("metric", "values", "expected"),
    [
        (tf_keras.metrics.Mean(), [6.0, 4.0], 1.5),
        (lambda: tf_keras.metrics.Sum(), [6.0], 6.0),
        (tf_keras.metrics.AUC(num_thresholds=3), [[1.0, 1.0, 0.0]] * 4, None),
        (Kept(), [3.0], 6.0),
    ],
)
def test_finalizers_of_metrics(metric, values, expected):
    finalize = fedlearn.metrics.create_keras_metric_finalizer(metric)
    types = fedcore.to_type([tf.TensorSpec(np.shape(v), tf.float32) for v in values])
    computation = fedcore.tf_computation(finalize, types)
    values = [np.asarray(v, np.float32) for v in values]
    assert computation(values) == pytest.approx(float(finalize(values)))
    if expected is not None:
        assert computation(values) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("model", "loss", "metric", "told"),
    [
        (tf_keras, keras, tf_keras, "of keras (Keras 3) at `loss`"),
        (tf_keras, tf_keras, keras, "of keras (Keras 3) at `metrics`"),
        (keras, tf_keras, keras, "of tf_keras (Keras 2) at `loss`"),
        (keras, keras, tf_keras, "of tf_keras (Keras 2) at `metrics`"),
    ],
)
def test_losses_and_metrics_are_of_the_models_generation(model, loss, metric, told):
    with pytest.raises(TypeError, match="needs objects of one Keras") as caught:
        fedlearn.models.from_keras_model(
            build_model(model),
            input_spec=SPEC,
            loss=loss.losses.SparseCategoricalCrossentropy(),
            metrics=[metric.metrics.SparseCategoricalAccuracy],
        )
    assert told in str(caught.value)


def test_a_compiled_or_unbuilt_model_is_refused_as_one_of_keras_3_is():
    compiled = build_model(tf_keras)
    compiled.compile()
    loss = tf_keras.losses.SparseCategoricalCrossentropy()
    with pytest.raises(ValueError, match="needs a model that is not compiled"):
        fedlearn.models.from_keras_model(compiled, input_spec=SPEC, loss=loss)
    unbuilt = tf_keras.Sequential([tf_keras.layers.Dense(3)])
    with pytest.raises(ValueError, match="needs a built model"):
        fedlearn.models.from_keras_model(unbuilt, input_spec=SPEC, loss=loss)


def test_batch_normalisation_is_warned_of():
    layers = [tf_keras.layers.Input((4,)), tf_keras.layers.BatchNormalization()]
    model = tf_keras.Sequential([*layers, tf_keras.layers.Dense(3)])
    loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    with pytest.warns(UserWarning, match="Batch normalisation"):
        fedlearn.models.from_keras_model(model, input_spec=SPEC, loss=loss)


def test_an_optimizer_that_counts_in_python_is_refused():
    with pytest.raises(TypeError, match=r"`tf_keras.optimizers.Nadam`, whose count"):
        two_rounds(tf_keras, lambda: tf_keras.optimizers.Nadam(0.1))
    with pytest.raises(TypeError, match=r"pass `lambda: tf_keras.optimizers.SGD"):
        two_rounds(tf_keras, tf_keras.optimizers.SGD(0.1))


def test_a_functional_model_needs_keras_3():
    loss = tf_keras.losses.SparseCategoricalCrossentropy()
    for model, at in ((tf_keras, "keras_model"), (keras, "loss_fn")):
        given = loss if model is keras else keras.losses.SparseCategoricalCrossentropy()
        with pytest.raises(TypeError, match=rf"\(Keras 2\) at `{at}`"):
            fedlearn.models.functional_model_from_keras(build_model(model), given, SPEC)
