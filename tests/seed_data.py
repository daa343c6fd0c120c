"""The EMNIST data of the seed programs: the real set where it is, else a generated one."""

import os

from fedsim.datasets import emnist


def load_data():
    folder = os.environ.get("FEDSIM_TEST_DATA")
    if folder:
        return emnist.load_data(cache_dir=folder)
    return emnist.load_synthetic(num_writers=12)


# The two roads of a client's data: each function takes `ClientData` and an id.
ROADS = {
    "tf.data": lambda data, client_id: data.create_tf_dataset_for_client(client_id),
    "columnar": lambda data, client_id: data.client(client_id),
}
