"""`FilePerUserClientData`: one file per client."""

import pytest
import tensorflow as tf

from fedsim.datasets.file_per_user import FilePerUserClientData


@pytest.fixture
def directory(tmp_path):
    (tmp_path / "lines").mkdir()
    (tmp_path / "lines" / "below").mkdir()
    for name, lines in (("bob", "x\ny"), ("ann", "a"), ("eve", "")):
        (tmp_path / "lines" / name).write_text(lines)
    return tmp_path / "lines"


def test_from_dir_takes_each_file_as_a_client(directory):
    data = FilePerUserClientData.create_from_dir(
        str(directory), tf.data.TextLineDataset
    )
    assert data.client_ids == ["ann", "bob", "eve"]
    assert data.element_type_structure == tf.TensorSpec([], tf.string)
    for make in (data.create_tf_dataset_for_client, data.serializable_dataset_fn):
        assert list(make("bob").as_numpy_iterator()) == [b"x", b"y"]
        assert list(make("eve").as_numpy_iterator()) == []
    joined = data.create_tf_dataset_from_all_clients().as_numpy_iterator()
    assert sorted(joined) == [b"a", b"x", b"y"]


def test_reads_tf_records_by_default(tmp_path):
    with tf.io.TFRecordWriter(str(tmp_path / "client")) as writer:
        writer.write(b"record")
    data = FilePerUserClientData.create_from_dir(str(tmp_path))
    found = data.create_tf_dataset_for_client("client").as_numpy_iterator()
    assert list(found) == [b"record"]


def test_errors(tmp_path, directory):
    with pytest.raises(ValueError, match="found no file in"):
        FilePerUserClientData.create_from_dir(str(directory / "below"))
    with pytest.raises(FileNotFoundError):
        FilePerUserClientData.create_from_dir(str(tmp_path / "none"))
    with pytest.raises(TypeError, match="needs a mapping from client id to path"):
        FilePerUserClientData(["a"], tf.data.TextLineDataset)
    with pytest.raises(ValueError, match="needs at least one client"):
        FilePerUserClientData({}, tf.data.TextLineDataset)
    data = FilePerUserClientData({"a": directory / "ann"}, tf.data.TextLineDataset)
    with pytest.raises(ValueError, match="needs one of the 1 client ids, found 'b'"):
        data.create_tf_dataset_for_client("b")
    with pytest.raises(tf.errors.InvalidArgumentError, match="Unknown client id"):
        data.serializable_dataset_fn("b")
