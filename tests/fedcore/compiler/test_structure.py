"""Where programs are cut, what vanishes, and that nothing is made twice."""

import collections
import pathlib
import re

import computations
import pytest
import tensorflow as tf

import fedcore
from fedcore import (
    federated_broadcast,
    federated_computation,
    federated_eval,
    federated_map,
    federated_max,
    federated_mean,
    federated_sum,
    federated_zip,
    ir,
    sequence_reduce,
    tf_computation,
)
from fedcore.compiler import (
    Aggregate,
    ClientStep,
    Graph,
    Local,
    Program,
    Reduce,
    Select,
    SequenceMap,
    ServerStep,
    compile_tree,
    desugar,
    normalize,
    steps,
)
from fedcore.types import CLIENTS, SERVER, SequenceType, at_clients, at_server
from fedsim import runtime

GOLDENS = pathlib.Path(__file__).parents[2] / "goldens" / "compiler"


@tf_computation(tf.float32)
def half(x):
    return x / 2


@tf_computation(tf.float32, tf.float32)
def add(a, b):
    return a + b


def trips(fn):
    """The client steps of a computation."""
    return [s for s in compile_tree(fn.node).steps if isinstance(s, ClientStep)]


def kinds(ops):
    return [type(op).__name__ for op in ops]


# --- Cuts ---------------------------------------------------------------------------


def test_several_aggregations_are_one_trip():
    (step,) = trips(computations.several_aggregates()[0])
    # Two accumulators for each of three means, one for each leaf of the rest.
    assert len(step.totals) == len(step.zero) == 10
    assert kinds(step.work) == ["Graph"]
    assert kinds(step.accumulate.ops) == kinds(step.merge.ops) == ["Graph"]


def test_two_round_trips():
    plan = compile_tree(computations.two_round_trips()[0].node)
    first, second = (s for s in plan.steps if isinstance(s, ClientStep))
    assert [type(s) for s in plan.steps] == 2 * [ServerStep, ClientStep] + [ServerStep]
    assert not first.keep
    assert first.inputs == second.inputs == plan.program.parameters
    # The difference stays at the clients and is returned.
    assert second.keep == (plan.program.results[1],)


@pytest.mark.parametrize("build", [computations.select, computations.secure_select])
def test_keys_come_from_the_clients(build):
    (step,) = trips(build()[0])
    assert kinds(step.work) == ["Graph", "Select", "Reduce"]
    assert len(step.keep) == 2  # sums and slices
    select = step.work[1]
    assert set(select.keys) <= set(step.work[0].outputs)
    assert {*select.value, *select.max_key} <= set(step.shared)


def test_a_result_kept_at_the_clients_needs_no_aggregation():
    @federated_computation(at_clients(tf.float32))
    def fn(x):
        return federated_map(half, x)

    plan = compile_tree(fn.node)
    (step,) = plan.steps
    assert (step.totals, step.zero) == ((), ())
    assert step.keep == plan.program.results


def test_what_clients_made_is_kept_for_a_later_trip():
    @federated_computation(at_clients(tf.float32))
    def fn(x):
        halves = federated_map(half, x)
        total = federated_broadcast(federated_sum(halves))
        return federated_sum(federated_map(add, (halves, total)))

    first, second = trips(fn)
    assert first.keep == second.inputs
    assert len(first.keep) == 1


def test_all_equal_values_stay_at_the_server():
    plan = compile_tree(computations.all_equal_values()[0].node)
    (step,) = (s for s in plan.steps if isinstance(s, ClientStep))
    assert step.inputs == ()
    sent, same, both, _, _, _ = plan.program.results
    assert (sent, same) == plan.program.parameters
    assert both in plan.program.at_clients


def test_a_mapped_broadcast_is_no_work_at_the_server():
    @federated_computation(at_server(tf.float32))
    def fn(x):
        return federated_map(half, federated_broadcast(x))

    (step,) = compile_tree(fn.node).steps
    assert isinstance(step, ClientStep)
    assert step.shared == compile_tree(fn.node).program.parameters


@pytest.mark.parametrize(
    "build",
    [
        computations.local_lambda,
        computations.no_argument,
        computations.no_placement,
        computations.server_only,
    ],
)
def test_no_clients_no_trip(build):
    plan = compile_tree(build()[0].node)
    assert [type(s) for s in plan.steps] == [ServerStep]
    assert kinds(plan.steps[0].ops) == ["Graph"]


def test_a_result_that_is_the_argument_has_no_step():
    @federated_computation(at_clients(tf.float32), at_server(tf.int32))
    def fn(x, y):
        return y, x

    plan = compile_tree(fn.node)
    assert plan.steps == ()
    assert plan.program.results == tuple(reversed(plan.program.parameters))


def test_no_clients_at_all():
    @federated_computation(at_clients(tf.float32))
    def fn(x):
        return federated_sum(x), federated_max(x), federated_map(half, x)

    for context in (runtime.local_context(), runtime.reference_context()):
        with fedcore.context.use(context):
            assert fn([]) == (0.0, tf.float32.min, [])


def test_a_mean_needs_clients_even_if_nobody_looks_at_it():
    @federated_computation(at_clients(tf.float32))
    def fn(x):
        federated_mean(x)
        return federated_sum(x)

    assert compile_tree(fn.node).needs_clients
    assert not compile_tree(computations.sequences()[0].node).needs_clients
    for context in (runtime.local_context(), runtime.reference_context()):
        with fedcore.context.use(context), pytest.raises(runtime.EmptyMeanError):
            fn([])


def test_draws_at_the_clients_are_client_work():
    @tf_computation
    def one():
        return 1.0

    @federated_computation
    def fn():
        return federated_sum(federated_eval(one, CLIENTS)), federated_eval(one, SERVER)

    (step,) = trips(fn)
    assert (step.shared, step.inputs) == ((), ())


def test_the_loop_over_a_clients_data_stays_a_line_of_its_own():
    (step,) = trips(computations.datasets()[0])
    assert kinds(step.work) == ["Reduce", "Graph"]
    assert kinds(step.work[0].step.ops) == ["Graph"]


def test_local_functions_see_values_around_them():
    (step,) = trips(computations.loop_with_a_value_around()[0])
    constants, first, second = step.work
    assert isinstance(constants, Graph)
    assert first.step.free() == (step.shared[0],)
    assert second.step.free() == first.outputs


# --- Dead lines ---------------------------------------------------------------------


def lines(program):
    return kinds(normalize(desugar(program.node)).ops)


def test_dead_lines_vanish():
    @federated_computation(at_clients(tf.float32), at_server(tf.float32))
    def fn(x, y):
        federated_sum(federated_map(half, x))
        dead = federated_map(add, (x, federated_broadcast(y)))
        federated_mean(dead)
        return federated_map(half, y)

    assert lines(fn) == ["Graph"]


def test_dead_parts_of_a_structure_vanish():
    @federated_computation(at_clients(tf.float32), at_clients(tf.float32))
    def fn(x, y):
        pair = federated_zip((federated_map(half, x), federated_map(half, y)))
        return federated_sum(pair[1])

    program = normalize(desugar(fn.node))
    (step,) = trips(fn)
    assert step.inputs == program.parameters[1:]


def test_dead_lines_in_a_loop_vanish():
    @federated_computation(at_clients(SequenceType(tf.float32)))
    def fn(data):
        def step(state, x):
            half(x)
            return add(state, x)

        return federated_map(lambda d: sequence_reduce(d, 0.0, step), data)

    loop = next(op for op in normalize(desugar(fn.node)).ops if isinstance(op, Reduce))
    assert kinds(loop.step.ops) == ["Graph"]


def test_parameters_nobody_uses_stay():
    @federated_computation(at_server(tf.float32), at_server(tf.int32))
    def fn(x, y):
        return y

    program = normalize(desugar(fn.node))
    assert len(program.parameters) == 2
    assert program.ops == ()


def test_one_call_of_a_shared_value_is_one_line():
    @federated_computation(at_clients(tf.float32))
    def fn(x):
        y = federated_map(half, x)
        return federated_sum(y), federated_sum(y), y

    (step,) = trips(fn)
    assert lines(fn).count("Aggregate") == 2
    assert kinds(step.work) == ["Graph"]
    assert len(step.work[0].parts) == 0


def test_what_has_no_line_is_named():
    data = ir.Data("a/b", fedcore.types.TensorType(tf.int32))
    with pytest.raises(TypeError, match="The compiler has no straight line for"):
        normalize(ir.Lambda(None, None, data))


def test_an_intrinsic_of_no_known_meaning_is_named():
    type_ = fedcore.types.FunctionType(
        at_server(tf.int32), fedcore.types.FederatedType(tf.int32, SERVER, True)
    )
    tree = ir.Lambda(
        "x",
        type_.parameter,
        ir.Call(ir.Intrinsic("own_op", type_), ir.Reference("x", type_.parameter)),
    )
    with pytest.raises(TypeError, match="The compiler has no line for `own_op`"):
        normalize(tree)


# --- What a line uses ---------------------------------------------------------------


def test_free_names_of_a_local_function():
    inner = Graph(("c",), True, "federated_map", b"", ("a", "b"))
    fn = Local(("a",), (inner,), ("c", "d"))
    assert fn.free() == ("b", "d")
    line = SequenceMap(("s",), True, "federated_map", ("data",), fn)
    assert list(line.uses()) == ["data", "b", "d"]
    fold = Reduce(("s",), True, "federated_map", ("data",), ("z",), fn)
    assert list(fold.uses()) == ["data", "z", "b", "d"]
    pick = Select(("s",), True, "federated_select", ("k",), ("m",), ("v",), fn)
    assert list(pick.uses()) == ["k", "m", "v", "b", "d"]


def test_levels_count_aggregations():
    """A server value is as high as the aggregations under it; clients follow."""
    empty = Local((), (), ())

    def total(name, *zero):
        return Aggregate((name,), False, "federated_aggregate", zero, empty, empty)

    def work(name, at, *inputs):
        return Graph((name,), at, "federated_map", b"", inputs)

    ops = (
        work("zero", False),
        total("a", "zero"),
        work("sent", False, "a"),
        work("y", True, "x", "sent"),
        work("early", True, "x"),
        total("b", "sent"),
        work("late", False, "b", "zero"),
    )
    program = Program(("x",), ops, ("late", "y"), {}, frozenset(["x", "y", "early"]))
    found = [
        [op.outputs[0] for op in s.ops]
        if isinstance(s, ServerStep)
        else ([op.outputs[0] for op in s.work], s.totals)
        for s in steps(program).steps
    ]
    assert found == [
        ["zero"],
        (["early"], ("a",)),
        ["sent"],
        (["y"], ("b",)),
        ["late"],
    ]


# --- Once ---------------------------------------------------------------------------


@pytest.fixture
def made():
    """Counts of what the runtime makes, with what was made since."""
    from fedsim.runtime import _drained, _kernel, _plan

    counters = (_plan.plans_made, _kernel.kernels_made, _drained.loops_made)
    before = [counter.count for counter in counters]
    return lambda: [c.count - b for c, b in zip(counters, before)]


def test_a_plan_is_made_once(made):
    fn, arguments = computations.two_round_trips()
    for context in (runtime.local_context(), runtime.local_context(workers=1)):
        with fedcore.context.use(context):
            fn(*arguments)
            fn(*arguments)
    assert made()[0] == 1


def test_a_loop_is_traced_once(made):
    fn, arguments = computations.datasets()
    for context in (runtime.local_context(), runtime.local_context(workers=2)):
        with fedcore.context.use(context):
            fn(*arguments)
            fn(*arguments)
    assert made() == [1, 1, 0]


def test_equal_computations_share_no_plan(made):
    for _ in range(2):
        fn, arguments = computations.server_only()
        with fedcore.context.use(runtime.local_context()):
            fn(*arguments)
    assert made()[0] == 2


@pytest.mark.parametrize(
    "build",
    [
        computations.nested_structures,
        computations.several_aggregates,
        computations.strings,
        computations.two_round_trips,
        computations.unseeded_draws,
    ],
)
def test_a_second_call_builds_no_graph(build, monkeypatch):
    fn, arguments = build()
    with fedcore.context.use(runtime.local_context(seed=1, default_num_clients=3)):
        fn(*arguments)
        graphs = []
        start = tf.Graph.__init__

        def counted(self, *args, **kwargs):
            graphs.append(self)
            start(self, *args, **kwargs)

        monkeypatch.setattr(tf.Graph, "__init__", counted)
        fn(*arguments)
    assert graphs == []


def test_python_runs_once_for_each_type():
    calls = []

    @tf_computation
    def double(x):
        calls.append(x.dtype)
        return 2 * x

    @federated_computation(at_clients(tf.int32), at_clients(tf.float32))
    def fn(x, y):
        twice = federated_map(double, federated_map(double, x))
        return federated_sum(twice), federated_sum(federated_map(double, y))

    traced = list(calls)
    assert sorted(d.name for d in traced) == ["float32", "int32"]
    with fedcore.context.use(runtime.local_context()):
        fn([1, 2], [1.0, 2.0])
        fn([1, 2, 3], [1.0, 2.0, 3.0])
    assert calls == traced


# --- Texts --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "build",
    [
        computations.all_equal_values,
        computations.datasets,
        computations.select,
        computations.several_aggregates,
        computations.two_round_trips,
        computations.zero_from_an_aggregate,
    ],
    ids=lambda f: f.__name__,
)
def test_texts_of_desugared_trees(build, update_goldens):
    text = ir.formatted(desugar(build()[0].node))
    # A graph's hash is that of one version of TensorFlow.
    text = re.sub(r"\w+#[0-9a-f]+", "graph", text) + "\n"
    golden = GOLDENS / f"{build.__name__}.txt"
    if update_goldens:
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_text(text)
    assert text == golden.read_text()


def test_names_in_a_desugared_tree_are_bound_once():
    for build in computations.ALL:
        names = []

        def look(node, names=names):
            if isinstance(node, ir.Block):
                names += [name for name, _ in node.locals]
            elif isinstance(node, ir.Lambda) and node.parameter is not None:
                names.append(node.parameter)
            return node

        ir.rewrite(desugar(build()[0].node), look)
        counts = collections.Counter(names)
        assert not [name for name, n in counts.items() if n > 1], build.__name__
