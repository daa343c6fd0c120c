"""A federated computation in pieces: what runs before and after its aggregations.

The straight line of a computation falls into levels (see `fedcore.compiler`): what the
server prepares, what clients do with it, the aggregations, what the server makes of them.
Each piece becomes one TensorFlow computation.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import attrs
import tensorflow as tf

from fedcore import ir
from fedcore.compiler import (
    Aggregate,
    Constant,
    Graph,
    LeafType,
    Local,
    Op,
    Program,
    Reduce,
    Select,
    SequenceMap,
    constant,
    desugar,
    flat,
)
from fedcore.compiler._normalize import _Line
from fedcore.computation import ConcreteComputation
from fedcore.tensorflow import _trace, _values
from fedcore.tensorflow._graph import executable
from fedcore.types import FunctionType, SequenceType, StructType, Type

SECURE = (
    "federated_secure_sum_bitwidth",
    "federated_secure_sum",
    "federated_secure_modular_sum",
)


@attrs.frozen(eq=False)
class SecureSum(Op):
    """A secure sum, kept as it is: `operator` names it; a bound for each value."""

    value: tuple[str, ...]
    bound: tuple[str, ...]


class _SecureLine(_Line):
    """A line on which the secure sums stay what they are."""

    def apply(self, node: ir.Node, env: dict[str, Any], argument: Any) -> Any:
        if not (isinstance(node, ir.Intrinsic) and node.uri in SECURE):
            return super().apply(node, env, argument)
        server = self.at(False, node.uri)
        total, outputs = server.outputs(node.type.result.member)
        value, bound = (tuple(flat(part)) for part in argument)
        if len(bound) == 1:
            bound = bound * len(value)
        server.ops.append(SecureSum(outputs, False, node.uri, value, bound))
        return total


def straight_line(tree: ir.Node, *, secure: bool) -> Program:
    """The program of a tree; with `secure`, its secure sums are not taken apart."""
    tree = desugar(tree, frozenset(SECURE) if secure else frozenset())
    line = _SecureLine({}, set(), itertools.count())
    parameters: list[str] = []
    argument = None
    if tree.type.parameter is not None:
        argument = line.parameter(tree.type.parameter, False, parameters)
    results = tuple(flat(line.evaluate(tree, {})(argument)))
    ops = tuple(_needed(line.ops, results, ()))
    at_clients = frozenset(line.at_clients)
    return Program(tuple(parameters), ops, results, line.types, at_clients)


def _needed(ops: Iterable[Op], outputs: Iterable[str], inputs: Iterable[str]):
    """The lines that make `outputs` out of `inputs`, in order."""
    wanted, given, kept = set(outputs), set(inputs), []
    for op in reversed(list(ops)):
        if (wanted - given).intersection(op.outputs):
            wanted.update(op.uses())
            kept.append(op)
    return reversed(kept)


@attrs.frozen(eq=False)
class Levels:
    """A program whose aggregations do not depend on each other, and its levels.

    Attributes:
        program: The program.
        aggregates: Its aggregations, one after another.
        sums: Its secure sums, if they were kept.
        level: 0 for what is known before the aggregations, 1 after them.
        constants: The server's leaves that depend on no argument.
    """

    program: Program
    aggregates: tuple[Aggregate, ...]
    sums: tuple[SecureSum, ...]
    level: dict[str, int]
    constants: frozenset[str]

    def types(self, names: Iterable[str]) -> list[LeafType]:
        """The types of leaves."""
        return [self.program.types[name] for name in names]

    def struct(self, names: Iterable[str]) -> StructType:
        """The structure of leaves, without names."""
        return StructType(self.types(names))

    def piece(
        self,
        name: str,
        inputs: Sequence[str],
        parameter: Type | None,
        outputs: Sequence[str],
        result: Type,
        ops: Iterable[Op] = (),
    ) -> ConcreteComputation:
        """The lines that make `outputs` of `inputs`, as a TensorFlow computation.

        Args:
            name: What messages call it.
            inputs: The leaves of its parameter, in flat order.
            parameter: The type of that, or None.
            outputs: The leaves of its result, in flat order.
            result: The type of that.
            ops: The lines to take them from; those of the program if there is none.

        Raises:
            ValueError: If something else is needed.
        """
        types = self.program.types
        lines = list(_needed(ops or self.program.ops, outputs, inputs))
        made = {*inputs, *(n for op in lines for n in op.outputs)}
        used = [n for op in lines for n in op.uses()]
        missing = [n for n in (*used, *outputs) if n not in made]
        if missing or any(isinstance(op, Aggregate | SecureSum) for op in lines):
            raise ValueError(f"`{name}` needs what is not known where it runs.")

        def body(new_input: _trace.NewInput) -> list[tf.Tensor]:
            env: dict[str, tf.Tensor] = {}
            for leaf in inputs:
                is_tensor = not isinstance(types[leaf], SequenceType)
                dtype = types[leaf].dtype if is_tensor else tf.variant
                shape = types[leaf].shape if is_tensor else tf.TensorShape([])
                env[leaf] = new_input(dtype, shape)
            _emit(lines, env, types)
            # A result may be an input as it came; a graph gives nodes of its own.
            return [tf.identity(env[leaf]) for leaf in outputs]

        graph = _trace.build(name, body)
        type_ = FunctionType(parameter, result)
        return ConcreteComputation(ir.Compiled(graph, type_), name)


def levels_of(program: Program) -> Levels:
    """The levels of a program.

    Raises:
        ValueError: If an aggregation depends on another.
    """
    level = dict.fromkeys(program.parameters, 0)
    known: set[str] = set()
    for op in program.ops:
        height = max((level[n] for n in op.uses() if n in level), default=0)
        aggregates = isinstance(op, Aggregate | SecureSum)
        if height and aggregates:
            raise ValueError(
                f"An aggregation depends on the result of another: `{op.operator}` "
                "comes after a first trip to the clients and back.\n"
                "One trip to the clients and back is all that this form has; run the "
                "rest as a computation of its own."
            )
        level.update(dict.fromkeys(op.outputs, height + aggregates))
        if not op.at_clients and not aggregates and known.issuperset(op.uses()):
            known.update(op.outputs)
    return Levels(
        program,
        tuple(op for op in program.ops if isinstance(op, Aggregate)),
        tuple(op for op in program.ops if isinstance(op, SecureSum)),
        level,
        frozenset(known),
    )


def _emit(ops: Iterable[Op], env: dict[str, tf.Tensor], types: dict) -> None:
    """Puts lines into the graph being built; sequences are variants."""
    for op in ops:
        match op:
            case Graph():
                inputs = [env[name] for name in op.inputs]
                env.update(zip(op.outputs, executable(op.graph).inline(inputs)))
            case Constant():
                env[op.outputs[0]] = constant(op)
            case Reduce():
                env.update(zip(op.outputs, _reduced(op, env, types)))
            case SequenceMap():
                sequence = types[op.sequence[0]]
                dataset = _values.from_leaf(sequence, env[op.sequence[0]])
                mapped = dataset.map(_on_elements(op, sequence.element, env, types))
                env[op.outputs[0]] = tf.data.experimental.to_variant(mapped)
            case Select():
                element = types[op.outputs[0]].element
                value = [env[name] for name in op.value]

                def of_key(key, op=op, value=value, element=element):
                    leaves = _called(op.fn, [*value, key], env, types)
                    return _values.pack(element, iter(leaves))

                keys = tf.data.Dataset.from_tensor_slices(env[op.keys[0]])
                selected = keys.map(tf.autograph.experimental.do_not_convert(of_key))
                env[op.outputs[0]] = tf.data.experimental.to_variant(selected)
            case _:
                raise TypeError(f"There is no graph for a line `{type(op).__name__}`.")


def _called(fn: Local, arguments: Sequence[Any], env: dict, types: dict) -> list[Any]:
    inner = {**env, **dict(zip(fn.inputs, arguments, strict=True))}
    _emit(fn.ops, inner, types)
    return [inner[name] for name in fn.outputs]


def _reduced(op: Reduce, env: dict, types: dict) -> tuple[tf.Tensor, ...]:
    sequence = types[op.sequence[0]]
    dataset = _values.from_leaf(sequence, env[op.sequence[0]])

    def step(state: tuple[tf.Tensor, ...], *element: Any) -> tuple[tf.Tensor, ...]:
        element = element[0] if len(element) == 1 else element
        leaves = _values.flatten_as(element, sequence.element, "sequence_reduce")
        return tuple(_called(op.step, [*state, *leaves], env, types))

    if not op.zero:
        return ()
    step = tf.autograph.experimental.do_not_convert(step)
    return dataset.reduce(tuple(env[name] for name in op.zero), step)


def _on_elements(op: SequenceMap, element_type: Type, env: dict, types: dict):
    result = types[op.outputs[0]].element

    def mapped(*element: Any) -> Any:
        element = element[0] if len(element) == 1 else element
        leaves = _values.flatten_as(element, element_type, "sequence_map")
        return _values.pack(result, iter(_called(op.fn, leaves, env, types)))

    return tf.autograph.experimental.do_not_convert(mapped)
