"""A small computation and a small learning process to look into."""

import collections
import functools

import keras
import tensorflow as tf

import fedcore
import fedlearn
import fedsim

DATA = fedcore.type_at_clients(fedcore.SequenceType(tf.float32))
seen = []


@fedcore.tf_computation(fedcore.SequenceType(tf.float32), tf.float32)
def scaled_sum(xs, scale):
    total = xs.reduce(0.0, lambda a, b: a + b)
    seen.append(total)
    tf.debugging.assert_less(total, 100.0)
    return total * scale


@fedcore.tf_computation(tf.float32)
def noise(x):
    return x + keras.layers.Dropout(0.5)(tf.ones([20]), training=True)


@fedcore.federated_computation(DATA, fedcore.type_at_server(tf.float32))
def a_round(data, scale):
    sent = fedcore.federated_broadcast(scale)
    sums = fedcore.federated_map(scaled_sum, (data, sent))
    noisy = fedcore.federated_map(noise, sums)
    return fedcore.federated_sum(sums), fedcore.federated_mean(noisy)


CLIENTS = [[1.0, 2.0], [3.0], [4.0, 5.0, 6.0]]


def fed_avg(recorded, layers, rate):
    """`(process, its state, clients' datasets)` on generated digits.

    Args:
        recorded: What is done to a client's dataset before it is flattened.
        layers: Makes the model's hidden layers.
        rate: The clients' step size.
    """
    train, _ = fedsim.datasets.emnist.load_synthetic(num_writers=3)

    def preprocess(dataset):
        def flatten(batch):
            return collections.OrderedDict(
                x=tf.reshape(batch["pixels"], [-1, 784]),
                y=tf.reshape(batch["label"], [-1, 1]),
            )

        return recorded(dataset).map(flatten)

    cohort = train.preprocess(preprocess).clients(train.client_ids)

    def model_fn():
        dense = keras.layers.Dense(10, "softmax")
        return fedlearn.models.from_keras_model(
            keras.Sequential([keras.layers.Input((784,)), *layers(), dense]),
            input_spec=cohort[0].element_spec,
            loss=keras.losses.SparseCategoricalCrossentropy(),
        )

    process = fedlearn.algorithms.build_weighted_fed_avg(
        model_fn, client_optimizer_fn=lambda: keras.optimizers.SGD(rate)
    )
    with fedcore.context.use(fedsim.local_context(seed=1)):
        return process, process.initialize(), cohort


@functools.cache
def averaging():
    """A dense model."""
    return fed_avg(lambda dataset: dataset.batch(20), list, 0.02)
