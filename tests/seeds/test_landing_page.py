"""Seed document 004, the landing page's program, line by line."""

import os

import numpy as np
import pytest
import seed_data
import tensorflow as tf

import fedlearn

pytestmark = pytest.mark.slow


def test_the_program_of_the_landing_page():
    # Load simulation data.
    source, _ = seed_data.load_data()

    def client_data(n):
        return (
            source.create_tf_dataset_for_client(source.client_ids[n])
            .map(lambda e: (tf.reshape(e["pixels"], [-1]), e["label"]))
            .repeat(10)
            .batch(20)
        )

    # Pick a subset of client devices to participate in training.
    train_data = [client_data(n) for n in range(3)]

    # Wrap a Keras model for use with TFF.
    def model_fn():
        model = tf.keras.models.Sequential(
            [
                tf.keras.layers.Input((784,)),
                tf.keras.layers.Dense(10, tf.nn.softmax, kernel_initializer="zeros"),
            ]
        )
        return fedlearn.from_keras_model(
            model,
            input_spec=train_data[0].element_spec,
            loss=tf.keras.losses.SparseCategoricalCrossentropy(),
            metrics=[tf.keras.metrics.SparseCategoricalAccuracy()],
        )

    # Simulate a few rounds of training with the selected client devices.
    trainer = fedlearn.build_federated_averaging_process(
        model_fn, client_optimizer_fn=lambda: tf.keras.optimizers.SGD(0.1)
    )
    state = trainer.initialize()
    losses = []
    for _ in range(5):
        state, metrics = trainer.next(state, train_data)
        losses.append(metrics["train"]["loss"])
    # So large a step drives the probabilities to 0 and 1, where Keras's clipping leaves no
    # gradient. Real TFF 0.40 gives these figures for this program on these writers.
    if "FEDSIM_TEST_DATA" in os.environ:
        np.testing.assert_allclose(losses, [13.4118] + 4 * [14.49616], rtol=1e-4)
    assert np.all(np.isfinite(losses))
    assert list(metrics) == ["broadcast", "aggregation", "train"]
