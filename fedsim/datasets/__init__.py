"""Client data: where each client's examples come from."""

from fedsim.datasets import download, emnist
from fedsim.datasets.client_data import ClientData
from fedsim.datasets.client_dataset import ClientDataset
from fedsim.datasets.columnar import Columns, open_or_build
from fedsim.datasets.file_per_user import FilePerUserClientData
from fedsim.datasets.mixing import (
    build_dataset_mixture,
    build_single_label_dataset,
    build_synthethic_iid_datasets,
)
from fedsim.datasets.sql import (
    SqlClientData,
    load_and_parse_sql_client_data,
    save_to_sql_client_data,
)
from fedsim.datasets.test_client_data import TestClientData
from fedsim.datasets.transforming import TransformingClientData

__all__ = [
    "ClientData",
    "ClientDataset",
    "Columns",
    "FilePerUserClientData",
    "SqlClientData",
    "TestClientData",
    "TransformingClientData",
    "build_dataset_mixture",
    "build_single_label_dataset",
    "build_synthethic_iid_datasets",
    "download",
    "emnist",
    "load_and_parse_sql_client_data",
    "open_or_build",
    "save_to_sql_client_data",
]
