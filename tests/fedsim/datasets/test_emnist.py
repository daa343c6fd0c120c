"""EMNIST: TFF's file, two fixed clients, and generated writers."""

import collections
import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from fedsim.datasets import emnist
from fedsim.datasets.download import DownloadError

ELEMENT = collections.OrderedDict(
    label=tf.TensorSpec([], tf.int32), pixels=tf.TensorSpec([28, 28], tf.float32)
)


def columns(dataset):
    """All elements as two arrays."""
    elements = list(dataset.as_numpy_iterator())
    labels = np.array([e["label"] for e in elements])
    return labels, np.array([e["pixels"] for e in elements])


def assert_is_handwriting(labels, pixels):
    """White paper around dark strokes, in the middle of the picture."""
    assert pixels.dtype == np.float32
    assert labels.dtype == np.int32
    assert pixels.min() >= 0
    assert pixels.max() == 1
    border = np.concatenate([pixels[:, 0], pixels[:, -1]])
    assert border.mean() > 0.95
    ink = (1 - pixels).sum(axis=(1, 2))
    assert (ink > 10).all()
    assert (ink < 350).all()


# The published file.


@pytest.mark.parametrize(
    ("only_digits", "clients", "examples"),
    [(True, 104, (10_596, 1_180)), (False, 105, (14_708, 1_685))],
)
def test_load_data_counts(emnist_cache, only_digits, clients, examples):
    for data, count in zip(
        emnist.load_data(only_digits, emnist_cache), examples, strict=True
    ):
        assert len(data.client_ids) == clients
        assert data.client_ids == sorted(data.client_ids)
        sizes = [len(data.client_columns(i)["label"]) for i in data.client_ids]
        assert sum(sizes) == count
        assert data.element_type_structure == ELEMENT
        assert list(data.element_type_structure) == ["label", "pixels"]


def test_load_data_pictures(emnist_cache):
    train, test = emnist.load_data(cache_dir=emnist_cache)
    assert train.client_ids == test.client_ids
    for data in (train, test):
        labels, pixels = columns(data.create_tf_dataset_for_client("f1501_00"))
        assert set(labels) <= set(range(10))
        assert_is_handwriting(labels, pixels)


def test_load_data_roads_agree(emnist_cache):
    train, _ = emnist.load_data(cache_dir=emnist_cache)
    eager = columns(train.create_tf_dataset_for_client("f1521_17"))
    graph = columns(train.serializable_dataset_fn(tf.constant("f1521_17")))
    for one, other in zip(eager, graph, strict=True):
        np.testing.assert_array_equal(one, other)


def test_load_data_from_all_clients(emnist_cache):
    _, test = emnist.load_data(cache_dir=emnist_cache)
    labels, _ = columns(test.create_tf_dataset_from_all_clients(seed=0))
    assert len(labels) == 1_180
    assert (np.bincount(labels) > 80).all()


def test_load_data_has_all_classes(emnist_cache):
    train, _ = emnist.load_data(only_digits=False, cache_dir=emnist_cache)
    labels = np.concatenate(
        [train.client_columns(i)["label"] for i in train.client_ids]
    )
    assert set(labels) == set(range(62))


def test_federated_averaging_in_numpy_gives_tffs_losses(emnist_cache, test_data):
    """The order of a client's examples is TFF's: its training losses follow from it."""
    path = test_data.parent / "goldens" / "tff_0_40_emnist.json"
    if not path.is_file():
        pytest.skip(f"needs the losses of real TFF in {path}")
    golden = json.loads(path.read_text())
    train, _ = emnist.load_data(cache_dir=emnist_cache)
    clients = [train.client_columns(i) for i in golden["client_ids"]]
    weights, bias = np.zeros((784, 10)), np.zeros(10)
    for expected in golden["fed_avg"]["rounds"][:3]:
        updates, loss, examples = [], 0.0, 0
        for client in clients:
            w, b, client_loss, n = trained(client, weights.copy(), bias.copy())
            updates.append((n, w - weights, b - bias))
            loss += client_loss
            examples += n
        weights = weights + sum(n * w for n, w, _ in updates) / examples
        bias = bias + sum(n * b for n, _, b in updates) / examples
        assert examples == expected["num_examples"]
        np.testing.assert_allclose(loss / examples, expected["loss"], rtol=2e-5)


def trained(client, w, b):
    """Five epochs of SGD 0.02 over batches of 20, as `repeat(5).batch(20)`."""
    x = np.tile(client["pixels"].reshape(-1, 784), (5, 1))
    y = np.tile(client["label"], 5)
    loss = 0.0
    for start in range(0, len(y), 20):
        rows, labels = x[start : start + 20], y[start : start + 20]
        scores = rows @ w + b
        p = np.exp(scores - scores.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        at_label = (np.arange(len(labels)), labels)
        loss -= np.log(np.maximum(p[at_label], 1e-7)).sum()
        p[at_label] -= 1
        w -= 0.02 * rows.T @ p / len(labels)
        b -= 0.02 * p.mean(axis=0)
    return w, b, loss, len(y)


def test_load_data_offline_says_what_to_do(tmp_path):
    with pytest.raises(DownloadError, match=r"`emnist_all\.sqlite\.lzma` is not in"):
        emnist.load_data(cache_dir=str(tmp_path), offline=True)


def test_load_data_takes_base_url(tmp_path):
    mirror = pathlib.Path(tmp_path / "mirror").as_uri()
    with pytest.raises(DownloadError, match="there is no such file"):
        emnist.load_data(cache_dir=str(tmp_path / "cache"), base_url=mirror)


# Two fixed clients.


def test_get_synthetic():
    data = emnist.get_synthetic()
    assert len(data.client_ids) == 2
    assert data.element_type_structure == ELEMENT
    for client_id in data.client_ids:
        labels, pixels = columns(data.create_tf_dataset_for_client(client_id))
        assert labels.tolist() == list(range(10))
        assert_is_handwriting(labels, pixels)
        again = columns(data.serializable_dataset_fn(client_id))
        np.testing.assert_array_equal(pixels, again[1])


# Generated writers.


def test_load_synthetic():
    train, test = emnist.load_synthetic(num_writers=5)
    assert train.client_ids == test.client_ids
    assert len(train.client_ids) == 5
    assert "5 clients ('writer_00000'" in repr(train)
    for client_id in train.client_ids:
        sizes = []
        for data in (train, test):
            assert data.element_type_structure == ELEMENT
            dataset = data.create_tf_dataset_for_client(client_id)
            assert dataset.element_spec == ELEMENT
            labels, pixels = columns(dataset)
            assert set(labels) <= set(range(10))
            assert_is_handwriting(labels, pixels)
            sizes.append(len(labels))
        assert 20 <= sum(sizes) <= 300
        assert sizes[1] == max(2, sum(sizes) // 10)


def test_load_synthetic_roads_agree():
    train, test = emnist.load_synthetic(num_writers=3, seed=4)
    for data in (train, test):
        for client_id in data.client_ids:
            eager = columns(data.create_tf_dataset_for_client(client_id))
            graph = columns(data.serializable_dataset_fn(tf.constant(client_id)))
            for one, other in zip(eager, graph, strict=True):
                np.testing.assert_array_equal(one, other)
        joined = columns(data.create_tf_dataset_from_all_clients(seed=1))[0]
        sizes = [len(data.client_columns(i)["label"]) for i in data.client_ids]
        assert len(joined) == sum(sizes)


def test_load_synthetic_is_deterministic():
    def picture(**kwargs):
        train, _ = emnist.load_synthetic(**kwargs)
        return train.client_columns("writer_00001")["pixels"]

    first = picture(num_writers=2, seed=3)
    emnist._digits_of_writer.cache_clear()
    np.testing.assert_array_equal(first, picture(num_writers=2, seed=3))
    # A writer is the same whoever else is there.
    np.testing.assert_array_equal(first, picture(num_writers=9, seed=3))
    other = picture(num_writers=2, seed=4)
    assert other.shape != first.shape or (other != first).any()


def test_writers_differ_in_number_mix_and_hand():
    train, _ = emnist.load_synthetic(num_writers=30)
    data = [train.client_columns(i) for i in train.client_ids]
    sizes = np.array([len(client["label"]) for client in data])
    assert sizes.max() > 2 * sizes.min()
    mixes = np.array([np.bincount(c["label"], minlength=10) for c in data])
    shares = mixes / mixes.sum(axis=1, keepdims=True)
    assert shares.std(axis=0).mean() > 0.02
    ink = np.array([(1 - client["pixels"]).sum((1, 2)).mean() for client in data])
    assert ink.std() > 10


def test_a_linear_model_learns_the_digits_but_not_perfectly():
    """Trained centrally; held-out digits of the same writers."""
    train, test = emnist.load_synthetic(num_writers=60)
    x, y = joined(train)
    rng = np.random.default_rng(0)
    w, b = np.zeros((784, 10), np.float32), np.zeros(10, np.float32)
    for _ in range(8):
        for rows in np.array_split(rng.permutation(len(y)), len(y) // 32):
            scores = x[rows] @ w + b
            p = np.exp(scores - scores.max(axis=1, keepdims=True))
            p /= p.sum(axis=1, keepdims=True)
            p[np.arange(len(rows)), y[rows]] -= 1
            w -= 0.1 * x[rows].T @ p / len(rows)
            b -= 0.1 * p.mean(axis=0)
    x, y = joined(test)
    accuracy = ((x @ w + b).argmax(axis=1) == y).mean()
    assert 0.85 < accuracy < 0.97


def joined(data):
    """All clients' digits, as ink on nothing, and their labels."""
    clients = [data.client_columns(i) for i in data.client_ids]
    x = np.concatenate([c["pixels"].reshape(-1, 784) for c in clients])
    return 1 - x, np.concatenate([c["label"] for c in clients])


def test_load_synthetic_errors():
    with pytest.raises(ValueError, match="needs `num_writers` >= 1, found 0"):
        emnist.load_synthetic(num_writers=0)
    with pytest.raises(ValueError, match="needs `seed` >= 0, found -1"):
        emnist.load_synthetic(seed=-1)
    train, _ = emnist.load_synthetic(num_writers=3)
    with pytest.raises(ValueError, match="needs one of the 3 client ids"):
        train.create_tf_dataset_for_client("writer_00003")


# Either, and it says which.


def test_load_synthetic_by_name(capsys):
    train, test = emnist.load("synthetic", seed=5)
    assert capsys.readouterr().out == "Data: generated digits of 100 writers.\n"
    expected, _ = emnist.load_synthetic(seed=5)
    client_id = train.client_ids[7]
    assert test.client_ids == train.client_ids
    np.testing.assert_array_equal(
        train.client_columns(client_id)["pixels"],
        expected.client_columns(client_id)["pixels"],
    )


@pytest.mark.parametrize("source", ["auto", "emnist"])
def test_load_takes_the_real_set_from_the_cache(emnist_cache, capsys, source):
    train, test = emnist.load(source, cache_dir=emnist_cache)
    assert capsys.readouterr().out == "Data: real EMNIST digits of 104 writers.\n"
    assert len(train.client_ids) == len(test.client_ids) == 104


def test_load_auto_falls_back_and_says_why(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FEDSIM_OFFLINE", "1")
    train, _ = emnist.load(cache_dir=str(tmp_path))
    said = capsys.readouterr().out
    assert said.startswith("Data: generated digits of 100 writers (the real set cannot")
    assert "downloads are switched off" in said
    assert train.client_ids[0] == "writer_00000"
    with pytest.raises(DownloadError, match="downloads are switched off"):
        emnist.load("emnist", cache_dir=str(tmp_path))


def test_load_knows_three_sources():
    with pytest.raises(ValueError, match="auto, emnist or synthetic, found 'mnist'"):
        emnist.load("mnist")
