"""Writes `kmeans_tff_0_40.json`: what real TFF 0.40 does in federated k-means.

Run it with the interpreter of a TFF 0.40 installation, not with the project's:

    /opt/tff040/bin/python tests/goldens/kmeans.py

The tests share `CASES` and `client_data`.
"""

import json
import pathlib

ROUNDS = 4
CASES = {
    "points": {"num_clusters": 3, "data_shape": (2,), "random_seed": (1, 2)},
    "numbers": {"num_clusters": 2, "data_shape": (), "random_seed": (3, 4)},
    "matrices": {"num_clusters": 4, "data_shape": (2, 3), "random_seed": (5, 6)},
    "one_cluster": {"num_clusters": 1, "data_shape": (2,), "random_seed": (7, 8)},
}


def client_data(tf, np, data_shape):
    """Datasets of four clients, one of them empty, with two equal points."""
    values = np.random.RandomState(0).normal(size=(12, *data_shape)).astype(np.float32)
    values[3] = values[4]
    parts = [values[:5], values[5:6], values[6:], values[:0]]
    return [tf.data.Dataset.from_tensor_slices(part) for part in parts]


def run(tf, np, build, case):
    process = build(**case)
    data = client_data(tf, np, case["data_shape"])
    state = process.initialize()
    found = {
        "next": str(process.next.type_signature),
        "initial": np.asarray(state.global_model_weights).tolist(),
        "rounds": [],
    }
    for _ in range(ROUNDS):
        output = process.next(state, data)
        state = output.state
        found["rounds"].append(
            {
                "centroids": np.asarray(state.global_model_weights).tolist(),
                "weights": np.asarray(state.finalizer).tolist(),
                "num_examples": int(output.metrics["client_work"]["num_examples"]),
            }
        )
    return found


def main():
    import numpy as np
    import tensorflow as tf
    import tensorflow_federated as tff

    build = tff.learning.algorithms.build_fed_kmeans
    results = {name: run(tf, np, build, case) for name, case in CASES.items()}
    path = pathlib.Path(__file__).parent / "kmeans_tff_0_40.json"
    path.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
