"""The fused runtime gives what the reference runtime gives."""

import computations
import pytest

import fedcore
from fedsim import runtime


def run(context, fn, arguments):
    with fedcore.context.use(context):
        return fn(*arguments)


@pytest.mark.parametrize("build", computations.ALL, ids=lambda f: f.__name__)
def test_fused_equals_the_reference(build):
    fn, arguments = build()
    options = {"seed": 3, "default_num_clients": 5}
    wanted = run(runtime.reference_context(**options), fn, arguments)
    found = run(runtime.local_context(**options), fn, arguments)
    computations.assert_same(found, wanted)


@pytest.mark.parametrize("build", computations.ALL, ids=lambda f: f.__name__)
def test_bits_do_not_depend_on_the_workers(build):
    fn, arguments = build()
    options = {"seed": 3, "default_num_clients": 5}
    one, two, eight = (
        run(runtime.local_context(workers=n, **options), fn, arguments)
        for n in (1, 2, 8)
    )
    computations.assert_same(two, one, tolerance=0)
    computations.assert_same(eight, one, tolerance=0)
