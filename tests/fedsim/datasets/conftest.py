"""What the tests of client data share."""

import pytest


@pytest.fixture(scope="session")
def emnist_cache(test_data, tmp_path_factory) -> str:
    """A cache directory with the unpacked EMNIST file."""
    from fedsim.datasets import emnist

    cache = tmp_path_factory.mktemp("emnist")
    emnist.load_data(cache_dir=str(cache), base_url=test_data.as_uri())
    return str(cache)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    """No test reads or writes the user's cache, or asks the network."""
    monkeypatch.setenv("FEDSIM_CACHE_DIR", str(tmp_path / "default-cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("FEDSIM_DATA_URL", raising=False)
    monkeypatch.delenv("FEDSIM_OFFLINE", raising=False)
