"""The EMNIST data of the seed programs: the real set where it is, else a generated one."""

import os

from fedsim.datasets import emnist


def load_data():
    folder = os.environ.get("FEDSIM_TEST_DATA")
    if folder:
        return emnist.load_data(cache_dir=folder)
    return emnist.load_synthetic(num_writers=12)
