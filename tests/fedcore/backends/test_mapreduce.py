"""Forms: a computation in pieces computes what the whole computes."""

import collections

import pytest
import tensorflow as tf

import fedcore
from fedcore.backends import mapreduce

STATE = fedcore.type_at_server(tf.int32)
DATA = fedcore.type_at_clients(tf.float32)


@fedcore.tf_computation(tf.float32)
def to_int(x):
    return tf.cast(x, tf.int32)


@fedcore.federated_computation(STATE, DATA)
def a_round(state, data):
    prepare = fedcore.tf_computation(lambda s: tf.cast(s, tf.float32), tf.int32)
    work = fedcore.tf_computation(lambda d, s: d * s, tf.float32, tf.float32)
    count = fedcore.tf_computation(lambda s: s + 1, tf.int32)
    scale = fedcore.federated_broadcast(fedcore.federated_map(prepare, state))
    mean = fedcore.federated_mean(fedcore.federated_map(work, (data, scale)))
    whole = fedcore.federated_map(to_int, data)
    below = fedcore.federated_secure_sum_bitwidth(whole, 8)
    modulo = fedcore.federated_secure_modular_sum(whole, 4)
    outputs = fedcore.federated_zip(
        collections.OrderedDict(mean=mean, below=below, modulo=modulo)
    )
    return fedcore.federated_map(count, state), outputs


def test_map_reduce_form_has_the_types_of_its_pieces():
    form = mapreduce.get_map_reduce_form_for_computation(a_round)
    lines = []
    form.summary(lines.append)
    types = {k.strip(): v for k, v in (line.split(": ", 1) for line in lines)}
    assert types["prepare"] == "(int32 -> <float32>)"
    assert types["work"] == "(<float32,<float32>> -> <<float32>,<int32>,<>,<int32>>)"
    assert types["accumulate"] == (
        "(<<float32,float32>,<float32>> -> <float32,float32>)"
    )
    assert types["secure_sum_bitwidth"] == "( -> <int32>)"
    assert types["secure_modular_sum_modulus"] == "( -> <int32>)"
    assert types["update"] == (
        "(<int32,<<float32,float32>,<int32>,<>,<int32>>> -> "
        "<int32,<mean=float32,below=int32,modulo=int32>>)"
    )
    assert (form.server_state_label, form.client_data_label) == ("state", "data")
    assert form.securely_aggregates_tensors


def test_map_reduce_form_computes_the_same():
    form = mapreduce.get_map_reduce_form_for_computation(a_round)
    again = mapreduce.get_computation_for_map_reduce_form(form)
    assert again.type_signature.is_equivalent_to(a_round.type_signature)
    assert again(3, [1.0, 2.0, 3.0]) == a_round(3, [1.0, 2.0, 3.0])
    assert again(3, [1.0, 2.0, 3.0]) == (
        4,
        collections.OrderedDict(mean=6.0, below=6, modulo=2),
    )


def test_map_reduce_form_of_passes_over_sequences():
    data = fedcore.type_at_clients(fedcore.SequenceType(tf.int32))

    @fedcore.tf_computation(tf.int32)
    def double(x):
        return 2 * x

    @fedcore.tf_computation(tf.int32, tf.int32)
    def add(x, y):
        return x + y

    @fedcore.tf_computation
    def zero():
        return 0

    @fedcore.federated_computation(fedcore.SequenceType(tf.int32))
    def total(xs):
        return fedcore.sequence_reduce(fedcore.sequence_map(double, xs), zero(), add)

    @fedcore.federated_computation(STATE, data)
    def count(state, xs):
        return state, fedcore.federated_sum(fedcore.federated_map(total, xs))

    form = mapreduce.get_map_reduce_form_for_computation(count)
    assert form.work.type_signature.result[0] == fedcore.StructType([tf.int32])
    again = mapreduce.get_computation_for_map_reduce_form(form)
    assert again(1, [[1, 2], [], [3]]) == count(1, [[1, 2], [], [3]]) == (1, 12)


def test_initial_state_is_computed_without_placements():
    start = fedcore.federated_computation(
        lambda: fedcore.federated_value(7, fedcore.SERVER)
    )
    init = mapreduce.get_state_initialization_computation_for_map_reduce_form(start)
    assert str(init.type_signature) == "( -> int32)"
    assert init() == 7


def test_form_refuses_other_types():
    get = mapreduce.get_map_reduce_form_for_computation
    one = fedcore.federated_computation(fedcore.federated_sum, DATA)
    with pytest.raises(TypeError, match="`MapReduceForm` needs a computation with two"):
        get(one)
    with pytest.raises(TypeError, match="needs a traced computation, found `int`"):
        get(3)

    @fedcore.federated_computation(STATE, DATA)
    def keeps(state, data):
        return state, data

    with pytest.raises(TypeError, match="needs the output that it returns to be at S"):
        get(keeps)

    @fedcore.federated_computation(STATE, DATA)
    def other_state(state, data):
        return fedcore.federated_sum(data), state

    with pytest.raises(
        TypeError, match="the state that is returned to be one that can"
    ):
        get(other_state)


def test_form_refuses_two_trips_to_the_clients():
    @fedcore.tf_computation(tf.float32, tf.float32)
    def subtract(x, y):
        return x - y

    @fedcore.federated_computation(STATE, DATA)
    def centred(state, data):
        mean = fedcore.federated_broadcast(fedcore.federated_mean(data))
        moved = fedcore.federated_map(subtract, (data, mean))
        return state, fedcore.federated_sum(moved)

    with pytest.raises(ValueError, match="An aggregation depends on the result of"):
        mapreduce.get_map_reduce_form_for_computation(centred)


def test_form_checks_pieces_that_are_put_together_by_hand():
    form = mapreduce.get_map_reduce_form_for_computation(a_round)
    pieces = [getattr(form, name) for name in mapreduce.MapReduceForm._PIECES]
    with pytest.raises(TypeError, match="`report` to take what `merge` gives"):
        pieces[5] = to_int
        mapreduce.MapReduceForm(form.type_signature, *pieces)
    with pytest.raises(TypeError, match="needs `report` to be a traced computation"):
        pieces[5] = None
        mapreduce.MapReduceForm(form.type_signature, *pieces)


@fedcore.federated_computation(fedcore.type_at_server(tf.float32), DATA)
def scaled(scale, data):
    more = fedcore.tf_computation(lambda s: s + 1.0, tf.float32)
    times = fedcore.tf_computation(lambda s, d: s * d, tf.float32, tf.float32)
    sent = fedcore.federated_broadcast(fedcore.federated_map(more, scale))
    return fedcore.federated_map(times, (sent, data))


def test_broadcast_form_computes_the_same():
    form = mapreduce.get_broadcast_form_for_computation(scaled)
    assert str(form.compute_server_context.type_signature) == "(float32 -> <float32>)"
    assert (form.server_data_label, form.client_data_label) == ("scale", "data")
    again = mapreduce.get_computation_for_broadcast_form(form)
    assert again.type_signature == scaled.type_signature
    assert again(1.0, [1.0, 2.0]) == scaled(1.0, [1.0, 2.0]) == [2.0, 4.0]


def test_broadcast_form_refuses_aggregations():
    with pytest.raises(TypeError, match="the result of the computation to be at CLIEN"):
        mapreduce.get_broadcast_form_for_computation(a_round)

    @fedcore.federated_computation(fedcore.type_at_server(tf.float32), DATA)
    def back_and_forth(scale, data):
        return fedcore.federated_broadcast(fedcore.federated_sum(data))

    with pytest.raises(ValueError, match="a computation without aggregations, found"):
        mapreduce.get_broadcast_form_for_computation(back_and_forth)


def test_distribute_aggregate_form_checks_how_its_pieces_fit():
    comp = fedcore.tf_computation(lambda x: x, tf.int32)
    with pytest.raises(
        TypeError, match="the result of `server_prepare` to be a struct"
    ):
        mapreduce.DistributeAggregateForm(
            comp.type_signature, comp, comp, comp, comp, comp
        )

    def piece(*types):
        return fedcore.tf_computation(lambda x, y: (x, y), *types)

    pair = piece(tf.int32, tf.int32)
    one = fedcore.tf_computation(lambda x: x, tf.int32)
    last = fedcore.tf_computation(lambda x, y: x, tf.int32, tf.int32)
    form = mapreduce.DistributeAggregateForm(
        pair.type_signature, pair, one, last, last, last
    )
    lines = []
    form.summary(lines.append)
    assert lines[0].startswith("server_prepare")


def test_one_graph_of_a_tree_without_placements():
    @fedcore.federated_computation(tf.int32)
    def twice(x):
        add = fedcore.tf_computation(lambda a: a + 1, tf.int32)
        return add(add(x))

    node = mapreduce.parse_tff_to_tf(twice.to_building_block(), None)
    assert node.is_compiled_computation()
    assert str(node.type) == "(int32 -> int32)"
    with pytest.raises(TypeError, match="needs tensors, sequences and structures"):
        mapreduce.parse_tff_to_tf(a_round.to_building_block(), None)
