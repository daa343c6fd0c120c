"""Each pass keeps the meaning: what it makes gives what the reference runtime gives."""

import computations
import programs
import pytest

import fedcore
from fedcore import ir
from fedcore.compiler import compile_tree, desugar, local, normalize, steps
from fedcore.computation import ConcreteComputation, pack_args
from fedcore.federated import body_of
from fedsim import runtime
from fedsim.runtime._seeds import fold

SEED = 3

CORPUS = pytest.mark.parametrize(
    "build", computations.ALL, ids=[build.__name__ for build in computations.ALL]
)


def reference(fn, arguments):
    count = computations.COUNT
    context = runtime.reference_context(seed=SEED, default_num_clients=count)
    with fedcore.context.use(context):
        return fn(*arguments)


def interpreted(interpret, what, fn, arguments):
    type_ = fn.type_signature
    argument = pack_args(type_.parameter, arguments, {}, "fn")
    # The first call of a context draws from this seed.
    return interpret(what, type_, argument, computations.COUNT, fold(SEED, 0))


@CORPUS
def test_desugar(build):
    fn, arguments = build()
    plain = ConcreteComputation(desugar(fn.node), "plain")
    assert plain.type_signature == fn.type_signature
    wanted = reference(fn, arguments)
    computations.assert_same(reference(plain, arguments), wanted)


@CORPUS
def test_desugar_leaves_primitives_alone(build):
    tree = desugar(build()[0].node)

    def check(node):
        assert not isinstance(node, ir.Intrinsic) or body_of(node) is None
        return node

    ir.rewrite(tree, check)
    assert desugar(tree) == tree


@CORPUS
def test_normalize(build):
    fn, arguments = build()
    program = normalize(desugar(fn.node))
    found = interpreted(programs.run_program, program, fn, arguments)
    computations.assert_same(found, reference(fn, arguments))


@CORPUS
def test_steps(build):
    fn, arguments = build()
    plan = steps(normalize(desugar(fn.node)))
    found = interpreted(programs.run_plan, plan, fn, arguments)
    computations.assert_same(found, reference(fn, arguments))


@CORPUS
def test_local(build):
    fn, arguments = build()
    plan = local(steps(normalize(desugar(fn.node))))
    found = interpreted(programs.run_plan, plan, fn, arguments)
    computations.assert_same(found, reference(fn, arguments))


@CORPUS
def test_local_twice_is_local_once(build):
    fn, arguments = build()
    plan = local(compile_tree(fn.node))
    found = interpreted(programs.run_plan, plan, fn, arguments)
    computations.assert_same(found, reference(fn, arguments))


@CORPUS
def test_each_name_is_made_once(build):
    program = normalize(desugar(build()[0].node))
    made = [*program.parameters, *(n for op in program.ops for n in op.outputs)]
    assert len(set(made)) == len(made)
    assert set(program.results) <= set(made)
    known = set(program.parameters)
    for op in program.ops:
        assert set(op.uses()) <= known
        assert all((n in program.at_clients) == op.at_clients for n in op.outputs)
        known.update(op.outputs)
