"""The models and data sets of the workloads, for TensorFlow 2.14 and 2.21 alike."""

import collections

import tensorflow as tf

from benchmarks.workloads import BATCH_SIZE, SHUFFLE_BUFFER, WORKLOADS


def preprocess_for(name):
    """What a tutorial does to a client's data, on tf.data or recorded on columns."""
    work = WORKLOADS[name]

    def format_batch(element):
        pixels, label = element["pixels"], element["label"]
        if work.model == "softmax":
            x = tf.reshape(pixels, [-1, 784])
        else:
            x = tf.expand_dims(pixels, -1)
        return collections.OrderedDict(x=x, y=tf.reshape(label, [-1, 1]))

    def preprocess(dataset):
        repeated = dataset.repeat(work.epochs).shuffle(SHUFFLE_BUFFER)
        return repeated.batch(BATCH_SIZE).map(format_batch)

    return preprocess


def keras_model(name):
    """W1 and W2: softmax regression, 7,850 weights. W3: a CNN, 1.2 million."""
    layers = tf.keras.layers
    if WORKLOADS[name].model == "softmax":
        return tf.keras.Sequential(
            [
                tf.keras.Input((784,)),
                layers.Dense(10, kernel_initializer="zeros"),
                layers.Softmax(),
            ]
        )
    return tf.keras.Sequential(
        [
            tf.keras.Input((28, 28, 1)),
            layers.Conv2D(32, 3, activation="relu"),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPool2D(2),
            layers.Dropout(0.25),
            layers.Flatten(),
            layers.Dense(128, activation="relu"),
            layers.Dropout(0.5),
            layers.Dense(10, activation="softmax"),
        ]
    )


def loss_and_metrics():
    losses, metrics = tf.keras.losses, tf.keras.metrics
    return losses.SparseCategoricalCrossentropy(), [metrics.SparseCategoricalAccuracy()]


def hand_written(model_class, batch_output):
    """Softmax regression by hand on `tf.Variable`s, as the custom-model tutorial's.

    Args:
        model_class: The framework's model class to derive from.
        batch_output: The framework's class of what a forward pass gives.

    Returns:
        A model class without constructor arguments.
    """

    class SoftmaxRegression(model_class):
        def __init__(self):
            self._weights = tf.Variable(tf.zeros([784, 10]), name="weights")
            self._bias = tf.Variable(tf.zeros([10]), name="bias")
            self._sums = collections.OrderedDict(
                (name, tf.Variable(0.0, name=name, trainable=False))
                for name in ("num_examples", "loss", "accuracy")
            )

        @property
        def trainable_variables(self):
            return [self._weights, self._bias]

        @property
        def non_trainable_variables(self):
            return []

        @property
        def local_variables(self):
            return list(self._sums.values())

        @property
        def input_spec(self):
            return collections.OrderedDict(
                x=tf.TensorSpec([None, 784], tf.float32),
                y=tf.TensorSpec([None, 1], tf.int32),
            )

        @tf.function
        def predict_on_batch(self, x, training=True):
            return tf.nn.softmax(tf.matmul(x, self._weights) + self._bias)

        @tf.function
        def forward_pass(self, batch_input, training=True):
            predictions = self.predict_on_batch(batch_input["x"], training)
            labels = tf.reshape(batch_input["y"], [-1])
            log_likelihood = tf.reduce_sum(
                tf.one_hot(labels, 10) * tf.math.log(predictions), axis=1
            )
            loss = -tf.reduce_mean(log_likelihood)
            correct = tf.equal(tf.argmax(predictions, 1, tf.int32), labels)
            accuracy = tf.reduce_mean(tf.cast(correct, tf.float32))
            count = tf.shape(labels)[0]
            for name, value in (("loss", loss), ("accuracy", accuracy)):
                self._sums[name].assign_add(value * tf.cast(count, tf.float32))
            self._sums["num_examples"].assign_add(tf.cast(count, tf.float32))
            return batch_output(loss=loss, predictions=predictions, num_examples=count)

        @tf.function
        def report_local_unfinalized_metrics(self):
            count = self._sums["num_examples"]
            return collections.OrderedDict(
                num_examples=[count],
                loss=[self._sums["loss"], count],
                accuracy=[self._sums["accuracy"], count],
            )

        def metric_finalizers(self):
            return collections.OrderedDict(
                num_examples=tf.function(lambda x: x[0]),
                loss=tf.function(lambda x: x[0] / x[1]),
                accuracy=tf.function(lambda x: x[0] / x[1]),
            )

        @tf.function
        def reset_metrics(self):
            for variable in self.local_variables:
                variable.assign(tf.zeros_like(variable))

    return SoftmaxRegression
