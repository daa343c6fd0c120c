"""Every Keras optimizer, TFF's tutorial code, and compiled steps, against eager."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import optimizers

F32 = tf.TensorSpec([], tf.float32)
SHAPES = [(4, 8), (8,), (8, 3), (3,)]
WEIGHTS = [tf.TensorSpec(shape, tf.float32) for shape in SHAPES]


def weight_values():
    rng = np.random.default_rng(3)
    return [rng.normal(size=shape).astype(np.float32) for shape in SHAPES]


OPTIMIZERS = {
    "sgd": lambda: optimizers.SGD(0.1),
    "nesterov": lambda: optimizers.SGD(0.1, momentum=0.9, nesterov=True),
    "adam": lambda: optimizers.Adam(0.01),
    "adamw": lambda: optimizers.AdamW(0.01),
    "adagrad": lambda: optimizers.Adagrad(0.1),
    "rmsprop": lambda: optimizers.RMSprop(0.01, momentum=0.5, centered=True),
    "adafactor": lambda: optimizers.Adafactor(0.01),
    "ftrl": lambda: optimizers.Ftrl(0.1),
    "lion": lambda: optimizers.Lion(0.01),
    "nadam": lambda: optimizers.Nadam(0.01),
    "adadelta": lambda: optimizers.Adadelta(0.1),
    "adamax": lambda: optimizers.Adamax(0.1),
    "clip_and_average": lambda: optimizers.SGD(0.1, clipnorm=1.0, use_ema=True),
    "accumulate": lambda: optimizers.SGD(0.1, gradient_accumulation_steps=2),
    "schedule": lambda: optimizers.SGD(
        optimizers.schedules.ExponentialDecay(0.1, 1, 0.9)
    ),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_with(name, agrees, train, small_model, batches_spec, batches):
    agrees(train(small_model, OPTIMIZERS[name]), [batches_spec()], [batches()])


@tf.function
def client_update(model, dataset, server_weights, client_optimizer):
    tf.nest.map_structure(
        lambda x, y: x.assign(y), model.trainable_variables, server_weights
    )
    loss_fn = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    for batch in dataset:
        with tf.GradientTape() as tape:
            loss = loss_fn(batch["y"], model(batch["x"], training=True))
        gradients = tape.gradient(loss, model.trainable_variables)
        client_optimizer.apply_gradients(zip(gradients, model.trainable_variables))
    return model.trainable_variables


@pytest.mark.parametrize("optimizer", [optimizers.SGD, optimizers.Adam])
def test_a_module_level_client_update(
    optimizer, agrees, small_model, batches_spec, batches
):
    def fn(ds, *weights):
        return client_update(small_model(), ds, list(weights), optimizer(0.01))

    specs = [batches_spec(), *WEIGHTS]
    agrees(fn, specs, [batches(), *weight_values()])


def test_a_learning_rate_that_is_an_argument(
    agrees, small_model, batches_spec, batches
):
    def fn(ds, learning_rate):
        model = small_model()
        optimizer = optimizers.SGD()
        optimizer.learning_rate = learning_rate
        loss_fn = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        for batch in ds:
            with tf.GradientTape() as tape:
                loss = loss_fn(batch["y"], model(batch["x"]))
            gradients = tape.gradient(loss, model.trainable_variables)
            optimizer.apply_gradients(zip(gradients, model.trainable_variables))
        return model.trainable_variables

    agrees(fn, [batches_spec(), F32], [batches(), 0.3])


def test_the_state_of_a_server_optimizer_goes_in_and_out(agrees, small_model):
    def fn(*args):
        weights, delta, state = args[:4], args[4:8], args[8:]
        model, optimizer = small_model(), optimizers.Adam(0.1)
        optimizer.build(model.trainable_variables)
        for variable, value in zip(model.trainable_variables, weights):
            variable.assign(value)
        for variable, value in zip(optimizer.variables, state):
            variable.assign(value)
        pairs = zip([-d for d in delta], model.trainable_variables)
        optimizer.apply_gradients(pairs)
        return model.trainable_variables, optimizer.variables

    values = weight_values()
    slots = [np.abs(value) for value in values for _ in range(2)]
    slot_specs = [spec for spec in WEIGHTS for _ in range(2)]
    specs = [*WEIGHTS, *WEIGHTS, tf.TensorSpec([], tf.int64), F32, *slot_specs]
    deltas = [value * 0.1 for value in values]
    agrees(fn, specs, [*values, *deltas, np.int64(4), np.float32(0.1), *slots])


def test_sparse_gradients(agrees, batches_spec, batches):
    def fn(ds):
        initializer = keras.initializers.GlorotUniform(seed=1)
        embedding = keras.layers.Embedding(11, 3, embeddings_initializer=initializer)
        embedding.build(None)
        optimizer = optimizers.Adam(0.1)
        for batch in ds:
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(embedding(batch["x"]) ** 2)
            gradients = tape.gradient(loss, embedding.trainable_variables)
            pairs = zip(gradients, embedding.trainable_variables)
            optimizer.apply_gradients(pairs)
        return embedding.trainable_variables

    specs = [batches_spec((7,), tf.int32)]
    agrees(fn, specs, [batches((7,), 11)])


def test_a_compiled_step_with_slots(agrees, batches_spec, batches):
    def fn(ds):
        v = tf.Variable(tf.ones([4, 4]) * 0.1)
        optimizer = optimizers.Adam(0.01)

        @tf.function(jit_compile=True)
        def step(x):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((x @ v - 1.0) ** 2)
            optimizer.apply_gradients([(tape.gradient(loss, v), v)])
            return loss

        total = 0.0
        for batch in ds:
            total += step(batch["x"])
        return v, total

    agrees(fn, [batches_spec()], [batches()])


def test_a_compiled_keras_step(agrees, small_model, batches_spec, batches):
    def fn(ds):
        model, optimizer = small_model(), optimizers.SGD(0.1, momentum=0.9)
        optimizer.build(model.trainable_variables)
        loss_fn = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

        @tf.function(jit_compile=True, reduce_retracing=True)
        def step(x, y):
            with tf.GradientTape() as tape:
                loss = loss_fn(y, model(x, training=True))
            gradients = tape.gradient(loss, model.trainable_variables)
            optimizer.apply_gradients(zip(gradients, model.trainable_variables))
            return loss

        for batch in ds:
            step(batch["x"], batch["y"])
        return model.trainable_variables

    agrees(fn, [batches_spec()], [batches()])
