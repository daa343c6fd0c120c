"""Values as people look at them: each leaf by its path, in a line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from fedcore import structure
from fedcore.types import SequenceType, StructType, Type


def leaves(value: Any, type_: Type, path: str) -> Iterator[tuple[str, Any]]:
    """The leaves of a value of Python, each with its path."""
    if not isinstance(type_, StructType):
        yield path, value
        return
    if isinstance(value, dict):
        items = list(value.values())
    elif isinstance(value, tf.RaggedTensor | tf.SparseTensor):
        yield path, value
        return
    else:
        items = list(structure.from_container(value))
    for i, (item, (name, element)) in enumerate(
        zip(items, structure.iter_elements(type_))
    ):
        where = f"{path}.{name}" if name else f"{path}[{i}]"
        yield from leaves(item, element, where)


def described(value: Any, type_: Type) -> list[str]:
    """Its leaves, a line for each."""
    return [
        f"{path.lstrip('.')}{': ' if path else ''}{_summary(leaf, type_)}"
        for path, leaf in leaves(value, type_, "")
    ] or ["nothing"]


def _summary(leaf: Any, type_: Type) -> str:
    if isinstance(leaf, tf.data.Dataset):
        count = int(leaf.cardinality())
        element = str(type_.element) if isinstance(type_, SequenceType) else "elements"
        element = element if len(element) <= 50 else "elements"
        return f"a dataset of {count if count >= 0 else 'many'} {element}"
    array = np.asarray(leaf)
    if array.size <= 4:
        return str(array.tolist())
    text = f"{array.dtype.name}[{','.join(map(str, array.shape))}]"
    if array.dtype.kind not in "fiu":
        return text
    finite = array[np.isfinite(array)]
    if finite.size < array.size:
        text += f" {array.size - finite.size} not finite"
    if finite.size:
        text += (
            f" min {finite.min():.4g} mean {finite.mean():.4g} max {finite.max():.4g}"
        )
    return text
