"""A `Model` on disk."""

from __future__ import annotations

import collections
from functools import partial
from typing import Any

import keras
import tensorflow as tf

from fedcore.types import type_to_tf_tensor_specs
from fedlearn.metrics import MetricFinalizersType
from fedlearn.metrics._fresh import apart
from fedlearn.models._batch import inputs_of
from fedlearn.models._keras import KerasModel
from fedlearn.models._model import BatchOutput, Model
from fedlearn.models._saved_functions import (
    LoadedFunction,
    SavedFunctions,
    check_path,
    output_dict,
    read,
)
from fedlearn.models._saved_nest import from_json
from fedlearn.models._stateless import unseeded_states

_MODEL = "fedlearn.Model"
_PARTS = ("trainable", "non_trainable", "local")


def save(model: Model, path: str, input_type: Any = None) -> None:
    """Saves a model with its weights and metrics as a SavedModel.

    Args:
        model: The model.
        path: A directory, made if need be.
        input_type: The type (or structure of specs) of what `predict_on_batch` takes; the
            inputs of `model.input_spec` if None.

    Raises:
        TypeError: If `model` is no `Model`.
        ValueError: If `path` is empty.
    """
    if not isinstance(model, Model):
        raise TypeError(f"`save` needs a `Model`, found `{type(model).__name__}`.")
    check_path("save", path)
    if input_type is None:
        inputs = inputs_of(model.input_spec)
    else:
        inputs = type_to_tf_tensor_specs(input_type)

    def forward(batch: Any, training: bool) -> dict[str, Any]:
        return output_dict(model.forward_pass(batch, training))

    saved = SavedFunctions()
    for training in (False, True):
        mode = {"training": training}
        saved.add(f"forward_{training}", partial(forward, **mode), model.input_spec)
        predict = partial(model.predict_on_batch, **mode)
        saved.add(f"predict_{training}", predict, inputs)
    saved.add("unfinalized", model.report_local_unfinalized_metrics)
    saved.add("reset", lambda: model.reset_metrics() or [])
    unfinalized = saved.results["unfinalized"]
    for name, finalizer in model.metric_finalizers().items():
        saved.add(f"finalize_{name}", finalizer, unfinalized[name])
    for part in _PARTS:
        variables = getattr(model, f"{part}_variables")
        bare = [v.value if isinstance(v, keras.Variable) else v for v in variables]
        setattr(saved.module, part, bare)
    saved.add_other_variables()
    saved.write(
        path,
        kind=_MODEL,
        input_spec=model.input_spec,
        metrics=list(model.metric_finalizers()),
        unseeded=_unseeded(model, saved.module.other),
    )


def load(path: str) -> Model:
    """Loads a model that `save` has saved.

    Call it inside `model_fn`: each call makes variables of its own, with the values that
    were saved.

    Args:
        path: The directory.

    Returns:
        A `Model`.

    Raises:
        FileNotFoundError: If there is no saved model in `path`.
        ValueError: If `path` is empty, or what is there is of another kind.
    """
    check_path("load", path)
    return _LoadedModel(*read("load", path, _MODEL))


class _LoadedModel(Model):
    """A loaded model: saved functions over new variables."""

    def __init__(
        self, loaded: Any, functions: dict[str, LoadedFunction], structures: Any
    ):
        # The functions hold on to the variables they were loaded with only weakly.
        self._loaded = loaded
        self._functions = functions
        self._input_spec = from_json(structures["input_spec"])
        self._metric_names = structures["metrics"]
        self._variables = {}
        handles = {}
        for part in (*_PARTS, "other"):
            self._variables[part] = []
            stored = list(getattr(loaded, part))
            with apart():
                values = [old.numpy() for old in stored]
            for i, (old, value) in enumerate(zip(stored, values)):
                if part == "other" and i in structures["unseeded"]:
                    value = keras.random.SeedGenerator().state
                new = tf.Variable(value, trainable=part == "trainable", dtype=old.dtype)
                self._variables[part].append(new)
                handles[id(old.handle)] = new.handle
        for function in functions.values():
            captured = function.concrete.captured_inputs
            function.concrete.set_external_captures(
                [handles.get(id(tensor), tensor) for tensor in captured]
            )

    @property
    def trainable_variables(self) -> list[tf.Variable]:
        return self._variables["trainable"]

    @property
    def non_trainable_variables(self) -> list[tf.Variable]:
        return self._variables["non_trainable"]

    @property
    def local_variables(self) -> list[tf.Variable]:
        return self._variables["local"]

    @property
    def input_spec(self) -> Any:
        return self._input_spec

    def forward_pass(self, batch_input: Any, training: bool = True) -> BatchOutput:
        for variable in self.trainable_variables:
            variable.read_value()  # so that a gradient tape notices
        return BatchOutput(**self._functions[f"forward_{training}"](batch_input))

    def predict_on_batch(self, x: Any, training: bool = True) -> Any:
        return self._functions[f"predict_{training}"](x)

    def report_local_unfinalized_metrics(
        self,
    ) -> collections.OrderedDict[str, list[tf.Tensor]]:
        return self._functions["unfinalized"]()

    def metric_finalizers(self) -> MetricFinalizersType:
        return collections.OrderedDict(
            (name, self._functions[f"finalize_{name}"]) for name in self._metric_names
        )

    def reset_metrics(self) -> None:
        self._functions["reset"]()


def _unseeded(model: Model, variables: list[tf.Variable]) -> list[int]:
    """Which of `variables` are states of random generators that were given no seed."""
    if not isinstance(model, KerasModel):
        return []
    ids = {id(v.value) for v in unseeded_states(model.keras_model)}
    return [i for i, variable in enumerate(variables) if id(variable) in ids]
