"""Frozen layers and LoRA: only trainable weights travel, and training is the same."""

import collections

import keras
import numpy as np
import pytest
import rounds
import tensorflow as tf

import fedcore
import fedlearn
import fedsim
from fedlearn.models import with_frozen_weights

sgdm = fedlearn.optimizers.build_sgdm


def seeded(units, **kwargs):
    return keras.layers.Dense(
        units, kernel_initializer=keras.initializers.GlorotUniform(seed=7), **kwargs
    )


def frozen_layer(model):
    model.layers[0].trainable = False


def lora(model):
    # Both factors are far from 0, so that both are trained.
    for layer in model.layers[:1]:
        layer.enable_lora(
            2,
            a_initializer=keras.initializers.GlorotUniform(seed=1),
            b_initializer=keras.initializers.GlorotUniform(seed=2),
        )


def batch_normalization(model):
    model.layers[0].trainable = False


def model_fn_of(freeze):
    def model_fn():
        layers = [seeded(5, activation="relu"), seeded(3)]
        if freeze is batch_normalization:
            layers.insert(1, keras.layers.BatchNormalization())
        model = keras.Sequential([keras.Input((6,)), *layers])
        freeze(model)
        return fedlearn.from_keras_model(
            model,
            rounds.crossentropy(),
            rounds.SPEC,
            metrics=[keras.metrics.SparseCategoricalAccuracy()],
        )

    return model_fn


class LowRank(keras.layers.Layer):
    """A frozen dense layer with a trainable correction of rank 1, written by hand."""

    def build(self, shape):
        init = keras.initializers.GlorotUniform(seed=3)
        self.kernel = self.add_weight(
            shape=(shape[-1], 3), initializer=init, trainable=False
        )
        self.a = self.add_weight(shape=(shape[-1], 1), initializer=init)
        self.b = self.add_weight(shape=(1, 3), initializer=init)

    def call(self, inputs):
        return inputs @ self.kernel + (inputs @ self.a) @ self.b


def low_rank_model_fn():
    model = keras.Sequential([keras.Input((6,)), LowRank()])
    return fedlearn.from_keras_model(model, rounds.crossentropy(), rounds.SPEC)


class HandWritten(fedlearn.Model):
    """A linear model on variables, the bias of which is frozen."""

    def __init__(self):
        self._kernel = tf.Variable(tf.fill([6, 3], 0.1))
        self._bias = tf.Variable([0.1, 0.2, 0.3], trainable=False)
        self._seen = tf.Variable(0.0, trainable=False)

    trainable_variables = property(lambda self: [self._kernel])
    non_trainable_variables = property(lambda self: [self._bias])
    local_variables = property(lambda self: [self._seen])
    input_spec = property(lambda self: rounds.SPEC)

    def predict_on_batch(self, batch_input, training=True):
        return batch_input @ self._kernel + self._bias

    def forward_pass(self, batch_input, training=True):
        logits = self.predict_on_batch(batch_input["x"])
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
            batch_input["y"], logits
        )
        number = tf.shape(logits)[0]
        self._seen.assign_add(tf.cast(number, tf.float32))
        return fedlearn.BatchOutput(tf.reduce_mean(losses), logits, number)

    def report_local_unfinalized_metrics(self):
        return collections.OrderedDict(seen=[self._seen.read_value()])

    def metric_finalizers(self):
        return collections.OrderedDict(seen=lambda values: values[0])

    def reset_metrics(self):
        self._seen.assign(0.0)


MODELS = {
    "frozen layer": model_fn_of(frozen_layer),
    "lora": model_fn_of(lora),
    "batch normalisation": model_fn_of(batch_normalization),
    "low rank by hand": low_rank_model_fn,
    "variables": HandWritten,
}


def fed_avg(model_fn):
    return fedlearn.algorithms.build_weighted_fed_avg(model_fn, sgdm(0.3))


def bytes_of(weights):
    return sum(np.asarray(w).nbytes for w in weights)


@pytest.mark.filterwarnings("ignore:Batch normalisation")
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("road", rounds.ROADS)
def test_training_is_the_same_and_only_trainable_weights_travel(name, road):
    data = rounds.ROADS[road](rounds.two_epochs)
    results, traffic = [], []
    for model_fn in (MODELS[name], with_frozen_weights(MODELS[name])):
        process = fed_avg(model_fn)
        with fedcore.context.use(fedsim.local_context(seed=2)):
            state = process.initialize()
            weights = process.get_model_weights(state)
            (step,) = (
                step
                for step in fedsim.explain(process.next, state, data).steps
                if step.place == "clients"
            )
            traffic.append((step.down.bytes, step.up.bytes))
            metrics = []
            for _ in range(3):
                output = process.next(state, data)
                state = output.state
                metrics.append(output.metrics["client_work"]["train"])
        results.append((list(state.global_model_weights.trainable), metrics))
    rounds.assert_same(
        *([np.asarray(leaf) for leaf in tf.nest.flatten(r)] for r in results)
    )
    assert not list(weights.non_trainable)
    (down_before, up_before), (down, up) = traffic
    sent = bytes_of(weights.trainable)
    rate = 4  # the learning rate is a hyperparameter in the state, and is sent
    assert down == sent + rate
    assert down < down_before
    assert up == up_before
    assert sent <= up <= sent + 64  # and the metrics and the weight


def test_frozen_models_run_alike_on_both_runtimes():
    rounds.assert_rounds_are_one(fed_avg(with_frozen_weights(MODELS["lora"])))


def test_masks_are_kept():
    for name in ("frozen layer", "lora"):
        process = fed_avg(with_frozen_weights(MODELS[name]))
        data = rounds.columnar(rounds.two_epochs)
        with fedcore.context.use(fedsim.local_context()):
            steps = fedsim.explain(process.next, process.initialize(), data).steps
        assert "XLA (masked)" in [s.road for s in steps if s.place == "clients"][0]


def test_frozen_values_are_those_of_the_time_of_wrapping():
    def model_fn():
        model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])
        model.add(keras.layers.Dense(3))
        model.layers[0].trainable = False
        return fedlearn.from_keras_model(model, rounds.crossentropy(), rounds.SPEC)

    wrapped = with_frozen_weights(model_fn)
    x = np.ones([2, 6], np.float32)
    one, two = wrapped(), wrapped()
    assert one.non_trainable_variables == []
    weights = fed_avg(wrapped).initialize().global_model_weights
    for model in (one, two):
        weights.assign_weights_to(model)
    np.testing.assert_array_equal(one.predict_on_batch(x), two.predict_on_batch(x))


def test_evaluation_and_saved_weights_see_the_frozen_ones():
    process = fed_avg(with_frozen_weights(MODELS["frozen layer"]))
    data = rounds.tf_data(rounds.two_epochs)
    state = process.next(process.initialize(), data).state
    weights = process.get_model_weights(state)
    evaluate = fedlearn.build_federated_evaluation(
        with_frozen_weights(MODELS["frozen layer"])
    )
    whole = fedlearn.build_federated_evaluation(MODELS["frozen layer"])
    frozen = fedlearn.ModelWeights.from_model(MODELS["frozen layer"]())
    found = evaluate(weights, data)
    wanted = whole(
        fedlearn.ModelWeights(
            weights.trainable, frozen.convert_variables_to_arrays().non_trainable
        ),
        data,
    )
    assert found["eval"] == pytest.approx(wanted["eval"])


@pytest.mark.parametrize(
    ("model_fn", "message"),
    [
        (3, "needs a function without arguments that makes a `Model`, found `int`"),
        (lambda: 3, "needs `model_fn` to make a `Model`, found `int`"),
    ],
)
def test_what_is_no_model_fn_is_refused(model_fn, message):
    with pytest.raises(TypeError, match=message):
        with_frozen_weights(model_fn)


def test_a_functional_model_is_refused():
    model = fedlearn.models.functional_model_from_keras(
        keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)]),
        rounds.crossentropy(),
        rounds.SPEC,
    )
    with pytest.raises(TypeError, match="found a `FunctionalModel`"):
        with_frozen_weights(model)
