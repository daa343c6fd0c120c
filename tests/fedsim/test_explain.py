"""`explain`: what a computation does and costs."""

import json

import looked_into
import numpy as np
import pytest
import tensorflow as tf
from looked_into import CLIENTS, a_round

import fedcore
import fedsim


@pytest.fixture(autouse=True)
def fused():
    """Roads are those of the fused runtime, whatever the suite runs on."""
    with fedcore.context.use(fedsim.local_context()):
        yield


@pytest.fixture(scope="module")
def averaging():
    return looked_into.averaging()


def test_explain_counts_bytes_for_each_client():
    found = fedsim.explain(a_round, CLIENTS, 2.0)
    step = next(s for s in found.steps if s.place == "clients")
    assert found.clients == 3
    assert step.functions[:2] == ("scaled_sum", "noise")
    assert step.down.bytes == 4
    assert step.up.bytes == 4 + 4 * 20
    assert step.road.startswith("general: ")
    assert step.memory.exact
    assert found.traced == 2


def test_explain_fits_a_terminal_and_can_be_written(averaging):
    process, state, cohort = averaging
    for found in (
        fedsim.explain(process.next, clients=100),
        fedsim.explain(process.next, state, cohort),
        fedsim.explain(a_round),
    ):
        assert max(map(len, repr(found).splitlines())) <= 80
        assert json.loads(json.dumps(found.to_dict()))["name"] == found.name


def test_explain_says_the_road_and_what_was_made_of_it(averaging):
    process, state, cohort = averaging
    before = fedsim.explain(process.next, state, cohort)
    step = next(s for s in before.steps if s.place == "clients")
    assert step.road.startswith("columnar, XLA")
    assert step.compiled
    assert "road   columnar, XLA" in repr(before)
    context = fedsim.local_context(seed=1, xla=False)
    with fedcore.context.use(context):
        process.next(state, cohort)
        after = fedsim.explain(process.next, state, cohort)
    step = next(s for s in after.steps if s.place == "clients")
    assert step.road == "columnar, graph: XLA is switched off"
    assert not step.compiled
    assert step.programs >= 1
    assert after.planned_before


def test_explain_without_arguments_says_what_it_needs():
    text = repr(fedsim.explain(a_round, clients=10))
    assert "pass arguments" in text
    assert "10 clients" in text
    assert "40 B in all" in text  # the scale, down


@fedcore.tf_computation(tf.float32, tf.float32)
def square_of_difference(x, mean):
    return (x - mean) ** 2


@fedcore.federated_computation(fedcore.type_at_clients(tf.float32))
def variance(xs):
    mean = fedcore.federated_broadcast(fedcore.federated_mean(xs))
    return fedcore.federated_mean(
        fedcore.federated_map(square_of_difference, (xs, mean))
    )


def test_explain_tells_two_round_trips_in_the_users_own_operators():
    found = fedsim.explain(variance, [1.0, 2.0, 6.0])
    assert [(step.place, step.operators) for step in found.steps] == [
        ("clients", ("federated_mean",)),
        ("server", ("federated_mean",)),
        ("clients", ("federated_map", "federated_mean")),
        ("server", ("federated_mean",)),
    ]
    assert [step.down.bytes for step in found.steps[::2]] == [0, 4]
    assert found.down.bytes == 3 * 4
    assert found.up.bytes == 3 * (4 + 4)
    assert found.to_dict()["up"] == {"bytes": 24, "exact": True}


def test_explain_counts_the_slices_that_a_client_asks_for():
    row = fedcore.TensorType(tf.float32, [4])
    table, keys = fedcore.TensorType(tf.float32, [10, 4]), (tf.int32, [3])
    pick = fedcore.tf_computation(lambda t, k: tf.gather(t, k), table, tf.int32)
    add = fedcore.tf_computation(
        lambda rows: rows.reduce(tf.zeros([4]), lambda a, b: a + b),
        fedcore.SequenceType(row),
    )

    @fedcore.federated_computation(
        fedcore.type_at_clients(keys), fedcore.type_at_server(table)
    )
    def selected(keys, table):
        most = fedcore.federated_value(10, fedcore.SERVER)
        rows = fedcore.federated_select(keys, most, table, pick)
        return fedcore.federated_sum(fedcore.federated_map(add, rows))

    step = fedsim.explain(selected, clients=2).steps[0]
    assert step.down.bytes == 3 * 16
    assert step.up.bytes == 3 * 4 + 16


@pytest.mark.parametrize("options", [{"clients": 0}, {}])
def test_explain_of_no_clients(options):
    found = fedsim.explain(variance, *([] if options else [[]]), **options)
    assert found.clients == 0
    assert found.steps[0].road == "none: there are no clients"
    assert json.dumps(found.to_dict())


@fedcore.federated_computation(
    fedcore.type_at_server((tf.float32, [None])), fedcore.type_at_clients(tf.float32)
)
def shifted(vector, x):
    add = fedcore.tf_computation(lambda v, x: tf.reduce_sum(v) + x)
    sent = fedcore.federated_broadcast(vector)
    return fedcore.federated_sum(fedcore.federated_map(add, (sent, x)))


def test_explain_takes_types_for_arguments():
    unknown = fedsim.explain(shifted, clients=3)
    assert not unknown.steps[0].down.known
    assert "down   of unknown size: pass arguments, or their types" in repr(unknown)
    sizes = tf.TensorSpec([5], tf.float32), tf.TensorSpec([], tf.float32)
    assert fedsim.explain(shifted, *sizes, clients=3).steps[0].down.bytes == 20
    by_name = fedsim.explain(shifted, vector=sizes[0], x=sizes[1], clients=3)
    assert by_name.steps[0].down.exact
    values = fedsim.explain(shifted, np.ones(5, np.float32), [1.0, 2.0])
    assert values.steps[0].down.bytes == 20
    with pytest.raises(TypeError, match=r"`float32\[5,2\]` is not assignable"):
        fedsim.explain(shifted, tf.TensorSpec([5, 2]), sizes[1], clients=3)
    with pytest.raises(TypeError, match="needs types of the shape of"):
        fedsim.explain(shifted, fedcore.to_type([tf.float32]))
    with pytest.raises(TypeError, match="needs values for all arguments, or types"):
        fedsim.explain(shifted, sizes[0], [1.0])


def test_explain_of_a_computation_without_types_takes_them():
    @fedcore.tf_computation
    def doubled(x):
        return 2 * x

    found = fedsim.explain(doubled, tf.TensorSpec([3], tf.float32))
    assert found.type_signature == "(float32[3] -> float32[3])"
    with pytest.raises(TypeError, match="found `doubled`, whose parameters have no"):
        fedsim.explain(doubled)


def test_explain_tells_the_size_of_the_data(averaging):
    process, state, cohort = averaging
    stored = 4 * (28 * 28 + 1)
    counted = sum(client.num_examples for client in cohort)
    assert fedsim.explain(process.next, state, cohort).data.bytes == counted * stored
    guess = fedsim.explain(process.next, clients=10, examples=50)
    assert guess.data.bytes == 10 * 50 * 4 * (784 + 1)
    assert not fedsim.explain(process.next, clients=10).data.known
    lists = fedsim.explain(a_round, CLIENTS, 2.0)
    assert lists.data.bytes == 4 * 6
    assert "8 B a client on average, 24 B in all" in repr(lists)


def test_explain_says_what_to_pass_in_place_of_something_else(averaging):
    process, _, _ = averaging
    for wrong, advice in (
        (process, "`process.next` or `process.initialize`"),
        (
            test_explain_of_no_clients,
            "Decorate it with `fedcore.federated_computation`",
        ),
        (3, "Pass what `fedcore.federated_computation` or"),
    ):
        for look in (fedsim.explain, fedsim.record):
            with pytest.raises(TypeError, match="needs a traced computation") as caught:
                look(wrong)
            assert advice in str(caught.value)


def test_explain_checks_its_numbers():
    with pytest.raises(ValueError, match="`clients` to be 0 or more, found -1"):
        fedsim.explain(variance, clients=-1)
    with pytest.raises(ValueError, match="`examples` to be 0 or more, found -5"):
        fedsim.explain(variance, examples=-5)
    with pytest.raises(ValueError, match="which is 2, found 5"):
        fedsim.explain(variance, [1.0, 2.0], clients=5)
    with pytest.raises(TypeError, match=r"needs an int at `clients`, found 1\.5"):
        fedsim.explain(variance, clients=1.5)
    with pytest.raises(TypeError, match="by name: `clients=10`"):
        fedsim.explain(a_round, 10)


def test_explain_under_a_context_that_interprets(averaging):
    process, state, cohort = averaging
    with fedcore.context.use(fedsim.reference_context()):
        found = fedsim.explain(process.next, state, cohort)
    step = found.steps[0]
    assert step.road.startswith("none: a `ReferenceContext` interprets")
    assert step.memory is None
    assert " of memory" not in repr(found)


def test_explain_says_why_xla_compiles(averaging):
    process, state, cohort = averaging
    with fedcore.context.use(fedsim.local_context(seed=1)):
        process.next(state, cohort)
        found = fedsim.explain(process.next, state, cohort)
    step = found.steps[0]
    assert "every operation is fit for XLA" in step.why
    assert step.programs >= step.programs_by_xla >= 1
    assert "by XLA" in repr(found)


def test_explain_knows_that_sizes_may_be_open():
    ones = fedcore.tf_computation(lambda n: tf.ones([n]), tf.int32)

    @fedcore.federated_computation(fedcore.type_at_clients(tf.int32))
    def run(n):
        return fedcore.federated_map(ones, n), fedcore.federated_sum(n)

    step = fedsim.explain(run, clients=2).steps
    memory = next(s.memory for s in step if s.place == "clients")
    assert not memory.exact
