"""What all tests share: quiet TensorFlow on the CPU, real data where it is, goldens."""

import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("MPLBACKEND", "Agg")

# Strategies shared by test files are modules of this folder.
sys.path.insert(0, str(pathlib.Path(__file__).parent))

import hypothesis
import pytest

# Deadlines are times, and times differ from machine to machine.
hypothesis.settings.register_profile("repository", deadline=None, max_examples=60)
hypothesis.settings.load_profile("repository")


def pytest_addoption(parser):
    parser.addoption(
        "--runtime",
        choices=["fused", "reference"],
        default="fused",
        help="what runs computations where a test sets no context of its own",
    )
    parser.addoption(
        "--update-goldens",
        action="store_true",
        help="write the text goldens anew instead of comparing with them",
    )


def pytest_configure(config):
    """The reference runtime as the default: `pytest --runtime=reference`."""
    if config.getoption("--runtime") == "reference":
        import fedcore
        import fedsim

        fedcore.context.set_default_context(fedsim.reference_context())


@pytest.fixture
def update_goldens(request):
    return request.config.getoption("--update-goldens")


@pytest.fixture(scope="session")
def test_data():
    """The folder with the real data sets; the test is skipped where there is none."""
    folder = os.environ.get("FEDSIM_TEST_DATA")
    if not folder:
        pytest.skip("FEDSIM_TEST_DATA is not set: no real data on this machine")
    return pathlib.Path(folder)
