"""Which programs XLA compiles: by the operations in them, never by a timing."""

from __future__ import annotations

from collections.abc import Iterable

import tensorflow as tf
from tensorflow.compiler.tf2xla.python import xla as xla_ops

# Operations that XLA runs as fast as TensorFlow on a CPU, or faster, and with the same
# result to the last bits. Convolutions and pooling are 25 times slower there; random
# operations draw other bits; sorts are slow; what holds state or text it cannot compile.
FINE = frozenset(
    [
        "Abs",
        "AddN",
        "Add",
        "AddV2",
        "All",
        "Any",
        "ArgMax",
        "ArgMin",
        "Assert",
        "BatchMatMul",
        "BatchMatMulV2",
        "BiasAdd",
        "BiasAddGrad",
        "Bitcast",
        "BitwiseAnd",
        "BitwiseOr",
        "BroadcastTo",
        "BroadcastGradientArgs",
        "Cast",
        "Ceil",
        "ClipByValue",
        "ConcatV2",
        "Const",
        "Cos",
        "DivNoNan",
        "Einsum",
        "EnsureShape",
        "Elu",
        "EluGrad",
        "Equal",
        "Erf",
        "Exp",
        "ExpandDims",
        "Expm1",
        "Fill",
        "Floor",
        "FloorDiv",
        "FloorMod",
        "FusedBatchNormV3",
        "FusedBatchNormGradV3",
        "GatherV2",
        "Greater",
        "GreaterEqual",
        "Identity",
        "IdentityN",
        "InvGrad",
        "IsFinite",
        "IsInf",
        "IsNan",
        "L2Loss",
        "LeakyRelu",
        "LeakyReluGrad",
        "Less",
        "LessEqual",
        "Log",
        "Log1p",
        "LogicalAnd",
        "LogicalNot",
        "LogicalOr",
        "LogSoftmax",
        "MatMul",
        "Max",
        "Maximum",
        "Mean",
        "Min",
        "Minimum",
        "MulNoNan",
        "Mul",
        "Neg",
        "NoOp",
        "NotEqual",
        "OneHot",
        "OnesLike",
        "Pack",
        "PartitionedCall",
        "Placeholder",
        "PlaceholderWithDefault",
        "Pow",
        "PreventGradient",
        "Prod",
        "Range",
        "Rank",
        "RealDiv",
        "Reciprocal",
        "ReciprocalGrad",
        "Relu",
        "Relu6",
        "Relu6Grad",
        "ReluGrad",
        "Reshape",
        "Round",
        "Rsqrt",
        "RsqrtGrad",
        "Select",
        "SelectV2",
        "Selu",
        "SeluGrad",
        "Shape",
        "ShapeN",
        "Sigmoid",
        "SigmoidGrad",
        "Sign",
        "Sin",
        "Size",
        "Slice",
        "Softmax",
        "SoftmaxCrossEntropyWithLogits",
        "Softplus",
        "SoftplusGrad",
        "Softsign",
        "SoftsignGrad",
        "SparseSoftmaxCrossEntropyWithLogits",
        "Split",
        "SplitV",
        "Sqrt",
        "SqrtGrad",
        "Square",
        "SquaredDifference",
        "Squeeze",
        "StatefulPartitionedCall",
        "StopGradient",
        "StridedSlice",
        "StridedSliceGrad",
        "Sub",
        "Sum",
        "Tanh",
        "TanhGrad",
        "Tile",
        "Transpose",
        "Unpack",
        "UnsortedSegmentSum",
        "Xdivy",
        "Xlog1py",
        "Xlogy",
        "ZerosLike",
    ]
)

# Of those, what is right where a dimension is known at run time only. XLA is silently
# wrong for some others (`x[-1]`), which the one-off comparison would find as well.
FINE_AT_ANY_LENGTH = FINE - frozenset(
    [
        "BatchMatMul",
        "BatchMatMulV2",
        "ConcatV2",
        "Einsum",
        "FusedBatchNormV3",
        "FusedBatchNormGradV3",
        "GatherV2",
        "Slice",
        "Split",
        "SplitV",
        "Unpack",
        "UnsortedSegmentSum",
    ]
)


# Where there are others, these say less of why a program is not compiled.
_STATE = frozenset(["AssignVariableOp", "ReadVariableOp", "VarHandleOp"])


def unfit(ops: Iterable[str], fine: frozenset[str] = FINE) -> str | None:
    """An operation that keeps a program from XLA, the first by name; None if none does."""
    wrong = {op for op in ops if op not in fine}
    return min(wrong - _STATE or wrong, default=None)


def dynamic_length(tensor: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
    """The tensor, of which XLA takes the first `length` rows to be there."""
    bounded = xla_ops.set_dynamic_dimension_size(tensor, 0, length)
    return tf.ensure_shape(bounded, [None, *tensor.shape[1:]])
