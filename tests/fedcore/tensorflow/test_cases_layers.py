"""Keras layers and models trained inside a computation, against eager execution."""

import keras
import pytest
import tensorflow as tf
from keras import layers


def glorot(seed):
    return keras.initializers.GlorotUniform(seed=seed)


def orthogonal(seed):
    return keras.initializers.Orthogonal(seed=seed)


def logits():
    return layers.Dense(3, kernel_initializer=glorot(9))


def sgd():
    return keras.optimizers.SGD(0.1)


def batch_norm():
    return keras.Sequential(
        [
            layers.Input((4,)),
            layers.Dense(5, kernel_initializer=glorot(1)),
            layers.BatchNormalization(),
            logits(),
        ]
    )


def seeded_dropout():
    return keras.Sequential([layers.Input((4,)), layers.Dropout(0.5, seed=3), logits()])


def norms():
    return keras.Sequential(
        [
            layers.Input((4,)),
            layers.Dense(8, kernel_initializer=glorot(1)),
            layers.LayerNormalization(),
            layers.GroupNormalization(4),
            logits(),
        ]
    )


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden = layers.Dense(6, kernel_initializer=glorot(1))
        self.out = logits()

    def call(self, x, training=False):
        return self.out(tf.nn.relu(self.hidden(x)))


def built_lazily():
    return keras.Sequential([layers.Dense(6, kernel_initializer=glorot(1)), logits()])


@pytest.mark.parametrize(
    "build", [batch_norm, seeded_dropout, norms, Subclassed, built_lazily]
)
def test_a_model_of_vectors(build, agrees, train, batches_spec, batches):
    agrees(train(build, sgd), [batches_spec()], [batches()])


def test_a_lazily_built_model_with_slots(agrees, train, batches_spec, batches):
    adam = train(built_lazily, lambda: keras.optimizers.Adam(0.01))
    agrees(adam, [batches_spec()], [batches()])


def gru():
    return keras.Sequential(
        [
            layers.Input((7,), dtype="int32"),
            layers.Embedding(11, 6, embeddings_initializer=glorot(1)),
            layers.GRU(
                5,
                kernel_initializer=glorot(1),
                recurrent_initializer=orthogonal(2),
                seed=5,
            ),
            logits(),
        ]
    )


def lstm():
    return keras.Sequential(
        [
            layers.Input((7,), dtype="int32"),
            layers.Embedding(11, 6, mask_zero=True, embeddings_initializer=glorot(1)),
            layers.LSTM(
                5,
                return_sequences=True,
                kernel_initializer=glorot(1),
                recurrent_initializer=orthogonal(2),
                seed=5,
            ),
            layers.LSTM(
                4,
                kernel_initializer=glorot(3),
                recurrent_initializer=orthogonal(2),
                seed=5,
            ),
            logits(),
        ]
    )


def attention():
    inputs = layers.Input((7,), dtype="int32")
    embedded = layers.Embedding(11, 6, embeddings_initializer=glorot(1))(inputs)
    attended = layers.MultiHeadAttention(2, 3, kernel_initializer=glorot(4))(
        embedded, embedded
    )
    pooled = layers.GlobalAveragePooling1D()(layers.Add()([attended, embedded]))
    return keras.Model(inputs, logits()(pooled))


@pytest.mark.parametrize(
    ("build", "optimizer"),
    [
        (gru, sgd),
        (lstm, lambda: keras.optimizers.Adam(0.01)),
        (attention, lambda: keras.optimizers.Adam(0.01)),
    ],
    ids=["gru", "lstm", "attention"],
)
def test_a_model_of_words(build, optimizer, agrees, train, batches_spec, batches):
    specs = [batches_spec((7,), tf.int32)]
    # Adam divides by the gradients' size: where that is nearly nothing, rounding shows.
    agrees(train(build, optimizer), specs, [batches((7,), 11)], rtol=2e-3, atol=2e-4)


def test_a_convolutional_model(agrees, train, batches_spec, batches):
    def build():
        return keras.Sequential(
            [
                layers.Input((12, 12, 1)),
                layers.Conv2D(4, 3, activation="relu", kernel_initializer=glorot(1)),
                layers.MaxPooling2D(),
                layers.Flatten(),
                logits(),
            ]
        )

    agrees(train(build, sgd), [batches_spec((12, 12, 1))], [batches((12, 12, 1))])


def test_regularizers_losses_and_constraints(agrees, batches_spec, batches):
    def fn(ds):
        dense = layers.Dense(
            3,
            kernel_initializer=glorot(1),
            kernel_regularizer="l2",
            activity_regularizer="l2",
            kernel_constraint="max_norm",
        )
        model = keras.Sequential([layers.Input((4,)), dense])
        optimizer = sgd()
        loss_fn = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        for batch in ds:
            with tf.GradientTape() as tape:
                loss = loss_fn(batch["y"], model(batch["x"]))
                loss += tf.add_n(model.losses)
            gradients = tape.gradient(loss, model.trainable_variables)
            optimizer.apply_gradients(zip(gradients, model.trainable_variables))
        return model.trainable_variables

    agrees(fn, [batches_spec()], [batches()])


def test_stateless_call(agrees, small_model, batches_spec, batches):
    def fn(ds):
        model = small_model()
        loss_fn = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        weights = tuple(tf.identity(v.value) for v in model.trainable_variables)
        for batch in ds:
            with tf.GradientTape() as tape:
                tape.watch(weights)
                out, _ = model.stateless_call(
                    list(weights), [], batch["x"], training=True
                )
                loss = loss_fn(batch["y"], out)
            gradients = tape.gradient(loss, weights)
            weights = tuple(w - 0.1 * g for w, g in zip(weights, gradients))
        return weights

    agrees(fn, [batches_spec()], [batches()])


def test_a_mixed_precision_policy(agrees, batches_spec, batches):
    def fn(ds):
        model = keras.Sequential(
            [
                layers.Input((4,), dtype="float32"),
                layers.Dense(8, dtype="mixed_bfloat16", kernel_initializer=glorot(1)),
                layers.Dense(3, dtype="float32", kernel_initializer=glorot(2)),
            ]
        )
        optimizer = sgd()
        loss_fn = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        for batch in ds:
            with tf.GradientTape() as tape:
                loss = loss_fn(batch["y"], model(batch["x"]))
            gradients = tape.gradient(loss, model.trainable_variables)
            optimizer.apply_gradients(zip(gradients, model.trainable_variables))
        return model.trainable_variables

    agrees(fn, [batches_spec()], [batches()], rtol=2e-2, atol=1e-3)


def test_arithmetic_and_nest_on_keras_variables(agrees, small_model):
    shapes = [(4, 8), (8,), (8, 3), (3,)]
    specs = [tf.TensorSpec(shape, tf.float32) for shape in shapes]

    def fn(*start):
        model = small_model()
        variables = model.trainable_variables
        tf.nest.map_structure(lambda v, t: v.assign(t), variables, list(start))
        tf.nest.map_structure(lambda v, t: v.assign_add(t), variables, variables)
        differences = tf.nest.map_structure(lambda v, t: v - t, variables, list(start))
        return differences, tf.add_n([tf.nn.l2_loss(v) for v in variables])

    agrees(fn, specs, [tf.random.stateless_normal(s, [1, 2]) for s in shapes])


def test_initial_weights_of_seeded_initializers(agrees, small_model):
    agrees(lambda: small_model().trainable_variables)
