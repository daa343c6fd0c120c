"""What to do about two types that do not fit: cast, batch, place, zip, map."""

from typing import TYPE_CHECKING, Any

import tensorflow as tf

from fedcore import structure

if TYPE_CHECKING:
    from fedcore.types._types import Type


def remedy(target: "Type", source: "Type") -> str:
    """One line of advice where `source` came and `target` was wanted; or nothing."""
    wanted, found = _parting(target, source)
    if wanted.is_federated() or found.is_federated():
        return _of_placements(wanted, found)
    if wanted.is_tensor() and found.is_tensor():
        return _of_tensors(wanted, found)
    if wanted.is_struct() and found.is_struct() and len(wanted) == len(found):
        if sorted(map(str, _names(wanted))) == sorted(map(str, _names(found))):
            return "The names are the same: give the elements in the order of the type."
        return "Give the elements the names of the type."
    if wanted.is_sequence() and not found.is_sequence():
        return "Pass a dataset, or a list of elements."
    return ""


def _parting(wanted: Any, found: Any) -> tuple[Any, Any]:
    """The innermost pair of types that do not fit, on the way to the first such."""
    if wanted.is_struct() and found.is_struct() and len(wanted) == len(found):
        pairs = zip(_names(wanted), _names(found))
        if any(theirs not in (None, ours) for ours, theirs in pairs):
            return wanted, found
        for a, b in zip(wanted, found):
            if not a.is_assignable_from(b):
                return _parting(a, b)
    elif wanted.is_sequence() and found.is_sequence():
        return _parting(wanted.element, found.element)
    elif wanted.is_federated() and found.is_federated():
        if not wanted.member.is_assignable_from(found.member):
            if wanted.placement is found.placement:
                return _parting(wanted.member, found.member)
    return wanted, found


def _names(struct: Any) -> list[str | None]:
    return structure.name_list_with_nones(struct)


def _of_tensors(wanted: Any, found: Any) -> str:
    if wanted.dtype != found.dtype:
        if tf.string in (wanted.dtype, found.dtype):
            return ""
        return f"Cast it with `tf.cast(value, tf.{wanted.dtype.name})`."
    if None in (wanted.shape.rank, found.shape.rank):
        return ""
    if wanted.shape.rank == found.shape.rank + 1:
        return "Is a `batch` missing? Else reshape it with `tf.reshape`."
    if (
        wanted.shape.rank + 1 == found.shape.rank
        and wanted.shape[:1] != found.shape[:1]
    ):
        return "Is it batched once too often? Else reshape it with `tf.reshape`."
    return "Reshape it with `tf.reshape`."


def _of_placements(wanted: Any, found: Any) -> str:
    if not wanted.is_federated():
        return "Apply what wants it with `federated_map(fn, value)`."
    if found.is_struct() and any(element.is_federated() for element in found):
        return "Make one federated value of the parts with `federated_zip`."
    if not found.is_federated():
        where = f"fedcore.{wanted.placement.name}"
        return f"Place it with `federated_value(value, {where})`."
    if wanted.placement is not found.placement:
        if wanted.placement.is_clients():
            return "Send it to the clients with `federated_broadcast`."
        return "Bring it to the server with an aggregation, such as `federated_sum`."
    return ""
