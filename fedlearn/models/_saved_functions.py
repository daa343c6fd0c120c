"""Functions and their structures on disk: a SavedModel beside a JSON file.

Nothing of it is Python code: a loaded model needs no class of the program that saved it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from fedlearn.metrics._fresh import apart
from fedlearn.models._model import BatchOutput
from fedlearn.models._saved_nest import from_json, to_json

_STRUCTURES = "structures.json"


class SavedFunctions:
    """Functions on their way to disk: flat tensors in, flat tensors out."""

    def __init__(self):
        self.module = tf.Module()
        self.functions: list[Any] = []
        self.results: dict[str, Any] = {}

    def add(self, name: str, fn: Callable, *specs: Any) -> None:
        """Traces `fn` for arguments of `specs`; notes the structure of its result."""

        def flat_fn(*flat: tf.Tensor) -> list[tf.Tensor]:
            result = fn(*tf.nest.pack_sequence_as(specs, flat))
            result = tf.nest.map_structure(tf.convert_to_tensor, result)
            self.results[name] = from_json(to_json(result))
            return tf.nest.flatten(result)

        function = tf.function(flat_fn, input_signature=tf.nest.flatten(specs))
        function.get_concrete_function()
        setattr(self.module, f"f{len(self.functions)}", function)
        self.functions.append(function)

    def add_other_variables(self) -> None:
        """Notes variables that are in use but named by no part, as random states are."""
        known = {id(v) for v in self.module.variables}
        self.module.other = []
        for function in self.functions:
            for variable in function.get_concrete_function().variables:
                if id(variable) not in known:
                    known.add(id(variable))
                    self.module.other.append(variable)

    def write(self, path: str, *, kind: str, input_spec: Any, **more: Any) -> None:
        tf.saved_model.save(self.module, path)
        structures = {
            "version": 1,
            "kind": kind,
            "input_spec": to_json(input_spec),
            "results": [[name, to_json(spec)] for name, spec in self.results.items()],
            **more,
        }
        with open(os.path.join(path, _STRUCTURES), "w") as file:
            json.dump(structures, file, indent=1)


class LoadedFunction:
    """A loaded function: a structure in, a structure out."""

    def __init__(self, concrete: Any, result: Any):
        self.concrete, self._result = concrete, result

    def __call__(self, *args: Any) -> Any:
        flat = self.concrete(*map(tf.convert_to_tensor, tf.nest.flatten(args)))
        return tf.nest.pack_sequence_as(self._result, tf.nest.flatten(flat))


def output_dict(output: BatchOutput) -> dict[str, Any]:
    return {
        "loss": output.loss,
        "predictions": output.predictions,
        "num_examples": output.num_examples,
    }


def check_path(function: str, path: Any) -> None:
    if not isinstance(path, str) or not path:
        raise ValueError(
            f"`{function}` needs a non-empty string at `path`, found {path!r}."
        )


def read(
    function: str, path: str, kind: str
) -> tuple[Any, dict[str, LoadedFunction], Any]:
    """The SavedModel, its functions by name, and the structures beside it."""
    try:
        with open(os.path.join(path, _STRUCTURES)) as file:
            structures = json.load(file)
    except FileNotFoundError as e:
        raise FileNotFoundError(
            f"`{function}` needs the directory of a saved model at `path`, found no "
            f"{_STRUCTURES} in {path!r}."
        ) from e
    if structures.get("version") != 1 or structures.get("kind") != kind:
        raise ValueError(
            f"`{function}` needs a saved {kind} of version 1, found "
            f"{structures.get('kind')} of version {structures.get('version')} in {path!r}."
        )
    with apart():
        loaded = tf.saved_model.load(path)
    functions = {
        name: LoadedFunction(
            getattr(loaded, f"f{i}").concrete_functions[0], from_json(spec)
        )
        for i, (name, spec) in enumerate(structures["results"])
    }
    return loaded, functions, structures
