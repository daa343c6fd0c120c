"""Prints what real TFF 0.40 gives for the landing page's program (seed document 004).

Run it with the interpreter of a TFF 0.40 installation, not with the project's, and give it
the unpacked `emnist_all.sqlite`; the figures stand in `tests/seeds/test_landing_page.py`:

    /opt/tff040/bin/python tests/goldens/landing_page_tff.py emnist_all.sqlite

0.40 no longer has `build_federated_averaging_process`; its heir trains alike.
"""

import sqlite3
import sys

import tensorflow as tf
import tensorflow_federated as tff

SPLIT = "digits_only_train"
FEATURES = {
    "pixels": tf.io.FixedLenFeature((28, 28), tf.float32),
    "label": tf.io.FixedLenFeature((), tf.int64),
}


def writers(path):
    """The datasets of the first three writers."""
    with sqlite3.connect(path) as database:
        ids = database.execute(
            "SELECT DISTINCT client_id FROM client_metadata WHERE split_name = ?",
            (SPLIT,),
        )
        found = []
        for (client_id,) in sorted(ids)[:3]:
            rows = database.execute(
                "SELECT serialized_example_proto FROM examples "
                "WHERE split_name = ? AND client_id = ?",
                (SPLIT, client_id),
            )
            examples = tf.constant([row for (row,) in rows])
            parsed = tf.io.parse_example(examples, FEATURES)
            pixels = tf.reshape(parsed["pixels"], [-1, 784])
            labels = tf.cast(parsed["label"], tf.int32)
            dataset = tf.data.Dataset.from_tensor_slices((pixels, labels))
            found.append(dataset.repeat(10).batch(20))
    return found


def run(data, activation, from_logits):
    def model_fn():
        layer = tf.keras.layers.Dense(
            10, activation, input_shape=(784,), kernel_initializer="zeros"
        )
        return tff.learning.from_keras_model(
            tf.keras.models.Sequential([layer]),
            input_spec=data[0].element_spec,
            loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=from_logits),
            metrics=[tf.keras.metrics.SparseCategoricalAccuracy()],
        )

    process = tff.learning.algorithms.build_weighted_fed_avg(
        model_fn, client_optimizer_fn=lambda: tf.keras.optimizers.SGD(0.1)
    )
    state = process.initialize()
    for _ in range(5):
        output = process.next(state, data)
        state = output.state
        print(dict(output.metrics["client_work"]["train"]))


if __name__ == "__main__":
    clients = writers(sys.argv[1])
    run(clients, tf.nn.softmax, False)
    run(clients, None, True)
