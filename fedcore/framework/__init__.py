"""For those who build on the core: contexts, trees, and serialisation."""

from fedcore.context import (
    AsyncContext,
    ContextError,
    ContextStack,
    SyncContext,
    get_context_stack,
    set_default_context,
)
from fedcore.framework import executors_errors
from fedcore.framework._cardinalities import (
    CardinalitiesType,
    CardinalityCarrying,
    infer_cardinalities,
    merge_cardinalities,
)
from fedcore.framework._execution import (
    AsyncExecutionContext,
    ExecutionContext,
    SizeInfo,
    local_executor_factory,
    sizing_executor_factory,
)
from fedcore.framework._ops import (
    DisallowedOpInTensorFlowComputationError,
    check_allowed_ops,
    check_disallowed_ops,
    replace_intrinsics_with_bodies,
)
from fedcore.framework._serialization import (
    deserialize_computation,
    deserialize_type,
    deserialize_value,
    serialize_computation,
)
from fedcore.framework.executors_errors import CardinalityError, RetryableError
from fedcore.ir import (
    Node as ComputationBuildingBlock,
)
from fedcore.ir import (
    SerializationError,
    UnexpectedBlockError,
    serialize_type,
    serialize_value,
)
from fedcore.types import (
    PlacementLiteral,
    type_from_tensors,
    type_to_tf_tensor_specs,
)

# Names of later versions of TFF.
SyncExecutionContext = ExecutionContext
local_cpp_executor_factory = local_executor_factory

__all__ = [
    "AsyncContext",
    "AsyncExecutionContext",
    "CardinalitiesType",
    "CardinalityCarrying",
    "CardinalityError",
    "ComputationBuildingBlock",
    "ContextError",
    "ContextStack",
    "DisallowedOpInTensorFlowComputationError",
    "ExecutionContext",
    "PlacementLiteral",
    "RetryableError",
    "SerializationError",
    "SizeInfo",
    "SyncContext",
    "SyncExecutionContext",
    "UnexpectedBlockError",
    "check_allowed_ops",
    "check_disallowed_ops",
    "deserialize_computation",
    "deserialize_type",
    "deserialize_value",
    "executors_errors",
    "get_context_stack",
    "infer_cardinalities",
    "local_cpp_executor_factory",
    "local_executor_factory",
    "merge_cardinalities",
    "replace_intrinsics_with_bodies",
    "serialize_computation",
    "serialize_type",
    "serialize_value",
    "set_default_context",
    "sizing_executor_factory",
    "type_from_tensors",
    "type_to_tf_tensor_specs",
]
