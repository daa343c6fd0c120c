"""The two halves of a batch: inputs and labels."""

from __future__ import annotations

import collections
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from fedcore import structure
from fedcore.types import StructType, TensorType, Type

_SPECS = (tf.TensorSpec, tf.RaggedTensorSpec)


def inputs_of(batch: Any) -> Any:
    """The inputs of a batch: `x` of a mapping, else the first of two."""
    return batch["x"] if isinstance(batch, Mapping) else batch[0]


def labels_of(batch: Any) -> Any:
    """The labels of a batch: `y` of a mapping, else the second of two."""
    return batch["y"] if isinstance(batch, Mapping) else batch[1]


def predictions_of(keras_model: Any, inputs: Any, training: bool) -> Any:
    """What a Keras model predicts, as values that do not show where they come from.

    Else Keras's cross-entropies would find the logits behind a last softmax or sigmoid and
    use them instead. TFF's models hide them, and where a probability is 0 or 1 in float32,
    loss and gradient differ: only this way results agree.
    """
    return tf.nest.map_structure(tf.identity, keras_model(inputs, training=training))


def checked_input_spec(function: str, input_spec: Any) -> Any:
    """`input_spec` as a structure of specs with exactly inputs and labels.

    Raises:
        TypeError: If a member is not a spec.
        ValueError: If there are not exactly two, or a mapping has other keys.
    """
    if isinstance(input_spec, Type):
        input_spec = _specs_of_type(input_spec)
    if not isinstance(input_spec, (Mapping, list, tuple)):
        raise TypeError(
            f"`{function}` needs a mapping of `x` and `y` or a sequence of two at "
            f"`input_spec`, found `{type(input_spec).__name__}`.\n"
            "Pass for example dataset.element_spec."
        )
    if len(input_spec) != 2:
        raise ValueError(
            f"`{function}` needs exactly two top-level elements in `input_spec`, inputs "
            f"and labels, found {len(input_spec)}: {input_spec}."
        )
    if isinstance(input_spec, Mapping):
        for key, what in (("x", "inputs"), ("y", "labels")):
            if key not in input_spec:
                raise ValueError(
                    f"`{function}` needs the {what} under key `{key}` of `input_spec`, "
                    f"found keys {sorted(input_spec)}."
                )
    for spec in tf.nest.flatten(input_spec):
        if not isinstance(spec, _SPECS):
            raise TypeError(
                f"`{function}` needs `tf.TensorSpec`s in `input_spec`, found "
                f"`{type(spec).__name__}`."
            )
    return input_spec


def _specs_of_type(type_spec: Type) -> Any:
    if isinstance(type_spec, TensorType):
        return tf.TensorSpec(type_spec.shape, type_spec.dtype)
    if not isinstance(type_spec, StructType):
        raise TypeError(
            f"`input_spec` needs a structure of tensors, found `{type_spec}`.\n"
            "Pass the type of one batch, not of the dataset."
        )
    container = (
        type_spec.python_container if type_spec.is_struct_with_python() else None
    )
    elements = [(k, _specs_of_type(v)) for k, v in structure.iter_elements(type_spec)]
    if elements and all(name is not None for name, _ in elements):
        named = collections.OrderedDict(elements)
        if container is None or issubclass(container, Mapping):
            return named
        return container(**named)
    specs = [spec for _, spec in elements]
    return specs if container is list else tuple(specs)
