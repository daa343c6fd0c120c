"""The framework's faces: execution contexts, cardinalities, operations, trees."""

import operator

import pytest
import tensorflow as tf

import fedcore
from fedcore import framework

CLIENTS = fedcore.type_at_clients(tf.float32)
total = fedcore.federated_computation(fedcore.federated_sum, CLIENTS)
add_one = fedcore.tf_computation(lambda x: x + 1, tf.int32)


def test_execution_context_runs_what_its_factory_makes():
    factory = framework.local_executor_factory(default_num_clients=3)
    context = framework.ExecutionContext(executor_fn=factory)
    count = fedcore.federated_computation(
        lambda: fedcore.federated_sum(fedcore.federated_value(1, fedcore.CLIENTS))
    )
    with fedcore.context.use(context):
        assert total([1.0, 2.0]) == 3.0
        assert count() == 3
    assert context.executor_factory is factory
    with pytest.raises(TypeError, match="needs `executor_fn` to be a factory"):
        framework.ExecutionContext(3)


def test_execution_context_compiles_once_and_asks_for_cardinalities():
    compiled, asked = [], []

    def compiler(comp):
        compiled.append(comp)
        return comp

    def infer(arg, type_spec):
        asked.append(str(type_spec))
        return {fedcore.CLIENTS: 5}

    count = fedcore.federated_computation(
        lambda: fedcore.federated_sum(fedcore.federated_value(1, fedcore.CLIENTS))
    )
    context = framework.ExecutionContext(
        framework.local_executor_factory(), compiler, cardinality_inference_fn=infer
    )
    with fedcore.context.use(context):
        assert [count(), count()] == [5, 5]
    assert compiled == [count]
    assert asked == ["None", "None"]


def test_cardinalities_are_merged_and_inferred():
    clients, server = fedcore.CLIENTS, fedcore.SERVER
    merged = framework.merge_cardinalities({clients: 2}, {clients: 2, server: 1})
    assert merged == {clients: 2, server: 1}
    with pytest.raises(
        framework.executors_errors.CardinalityError, match="found 1 and 2"
    ):
        framework.merge_cardinalities({clients: 1}, {clients: 2})
    with pytest.raises(TypeError, match="needs placements as keys"):
        framework.merge_cardinalities({"clients": 1}, {})
    type_ = fedcore.StructType(
        [("a", CLIENTS), ("b", fedcore.type_at_server(tf.int32))]
    )
    assert framework.infer_cardinalities({"a": [1.0, 2.0], "b": 1}, type_) == {
        clients: 2
    }

    class Ten(framework.CardinalityCarrying):
        @property
        def cardinality(self):
            return {clients: 10}

    assert framework.infer_cardinalities(Ten(), CLIENTS) == {clients: 10}


def test_cardinality_error_is_the_one_that_calls_raise():
    both = fedcore.federated_computation(
        lambda a, b: (fedcore.federated_sum(a), fedcore.federated_sum(b)),
        CLIENTS,
        CLIENTS,
    )
    with pytest.raises(framework.executors_errors.CardinalityError):
        both([1.0], [1.0, 2.0])


def test_operations_are_checked():
    tree = add_one.to_building_block()
    assert framework.check_disallowed_ops(tree, {"ReadFile"}) == (tree, False)
    allowed = {"AddV2", "Const", "Identity", "Placeholder"}
    assert framework.check_allowed_ops(tree, allowed) == (tree, False)
    error = framework.DisallowedOpInTensorFlowComputationError
    with pytest.raises(error, match="not allowed: AddV2"):
        framework.check_disallowed_ops(tree, {"AddV2"})
    with pytest.raises(error, match="AddV2"):
        framework.check_allowed_ops(tree, {"Const"})
    with pytest.raises(TypeError, match="to_building_block"):
        framework.check_allowed_ops(add_one, {"Const"})


def test_intrinsics_are_replaced_by_their_bodies():
    tree, changed = framework.replace_intrinsics_with_bodies(total.to_building_block())
    assert changed
    assert "federated_aggregate" in tree.compact_representation()
    assert framework.replace_intrinsics_with_bodies(tree) == (tree, False)


def test_trees_show_themselves():
    pair = fedcore.federated_computation(lambda x: (x, x), tf.int32)
    tree = pair.to_building_block()
    assert isinstance(tree, framework.ComputationBuildingBlock)
    name = tree.parameter
    assert tree.compact_representation() == f"({name} -> <{name},{name}>)"
    assert tree.formatted_representation().startswith(f"({name} -> <")
    assert tree.structural_representation() == (
        f"Lambda({name})\n└─ Struct\n   ├─ Ref({name})\n   └─ Ref({name})"
    )
    assert tree.is_lambda()
    assert not tree.is_call()
    tree.check_lambda()
    with pytest.raises(framework.UnexpectedBlockError, match="kind `Call` is needed"):
        tree.check_call()
    again = framework.ComputationBuildingBlock.from_proto(tree.proto)
    assert again.type_signature == tree.type_signature


def test_computations_types_and_values_survive_as_bytes():
    again = framework.deserialize_computation(framework.serialize_computation(total))
    assert again([1.0, 2.0]) == 3.0
    type_ = fedcore.types.deserialize_type(fedcore.types.serialize_type(CLIENTS))
    assert type_ is CLIENTS
    data, type_ = framework.serialize_value(5, tf.int32)
    assert framework.deserialize_value(data) == (5, type_)
    with pytest.raises(TypeError, match="needs a traced computation"):
        framework.serialize_computation(3)


# What `tff_0_40_to_0_87.md` says of the core: the 0.40 name, and the later one.
LATER_NAMES = [
    ("federated_secure_modular_sum", "backends.mapreduce.federated_secure_modular_sum"),
    ("framework.ExecutionContext", "framework.SyncExecutionContext"),
    ("framework.deserialize_type", "types.deserialize_type"),
    ("framework.executors_errors.RetryableError", "framework.RetryableError"),
    ("framework.local_executor_factory", "framework.local_cpp_executor_factory"),
    (
        "framework.replace_intrinsics_with_bodies",
        "tensorflow.replace_intrinsics_with_bodies",
    ),
    ("framework.serialize_type", "types.serialize_type"),
    ("framework.type_to_tf_tensor_specs", "types.type_to_tf_tensor_specs"),
    ("structure_from_tensor_type_tree", "types.structure_from_tensor_type_tree"),
    ("tf_computation", "tensorflow.computation"),
    ("aggregators.federated_max", "federated_max"),
    ("aggregators.federated_min", "federated_min"),
]


@pytest.mark.parametrize(("name", "later"), LATER_NAMES)
def test_later_names_are_the_same_objects(name, later):
    get = operator.attrgetter
    assert get(later)(fedcore) is get(name)(fedcore)


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match="has no name `nothing`"):
        fedcore.tensorflow.nothing
