"""Contexts: everything here runs on the reference runtime and on the fast one."""

import pytest

from fedcore.context import use
from fedsim.runtime import local_context, reference_context


@pytest.fixture(params=[reference_context, local_context], ids=["reference", "fused"])
def context(request):
    """A context with a fixed seed, installed."""
    context = request.param(seed=11)
    with use(context):
        yield context
