"""A `FunctionalModel` on disk."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from fedlearn.models._batch import inputs_of, labels_of
from fedlearn.models._functional import FunctionalModel
from fedlearn.models._model import BatchOutput
from fedlearn.models._saved_functions import (
    SavedFunctions,
    check_path,
    output_dict,
    read,
)
from fedlearn.models._saved_nest import from_json, to_json

_FUNCTIONAL = "fedlearn.FunctionalModel"
_WEIGHTS = "initial_weights.npz"


def save_functional_model(functional_model: FunctionalModel, path: str) -> None:
    """Saves a functional model with its initial weights as a SavedModel.

    Args:
        functional_model: The model.
        path: A directory, made if need be.

    Raises:
        TypeError: If there is no `FunctionalModel`.
        ValueError: If `path` is empty.
    """
    model = functional_model
    if not isinstance(model, FunctionalModel):
        raise TypeError(
            "`save_functional_model` needs a `FunctionalModel`, found "
            f"`{type(model).__name__}`."
        )
    check_path("save_functional_model", path)
    arrays = tf.nest.map_structure(np.asarray, model.initial_weights)
    weights = from_json(to_json(arrays))
    spec = model.input_spec

    def forward(weights: Any, batch: Any, training: bool) -> dict[str, Any]:
        return output_dict(model.forward_pass(weights, batch, training))

    saved = SavedFunctions()
    for training in (False, True):
        mode = {"training": training}
        saved.add(f"forward_{training}", partial(forward, **mode), weights, spec)
        predict = partial(model.predict_on_batch, **mode)
        saved.add(f"predict_{training}", predict, weights, inputs_of(spec))
    saved.add("initialize_metrics", model.initialize_metrics_state)
    state = saved.results["initialize_metrics"]
    predictions = saved.results["forward_True"]["predictions"]
    saved.add(
        "update_metrics",
        model.update_metrics_state,
        state,
        labels_of(spec),
        predictions,
    )
    saved.add("finalize_metrics", model.finalize_metrics, state)
    saved.write(path, kind=_FUNCTIONAL, input_spec=spec, weights=to_json(arrays))
    flat = tf.nest.flatten(arrays)
    np.savez(os.path.join(path, _WEIGHTS), *flat)


def load_functional_model(path: str) -> FunctionalModel:
    """Loads a functional model that `save_functional_model` has saved.

    Args:
        path: The directory.

    Returns:
        A `FunctionalModel`.

    Raises:
        FileNotFoundError: If there is no saved model in `path`.
        ValueError: If `path` is empty, or what is there is of another kind.
    """
    check_path("load_functional_model", path)
    _, functions, structures = read("load_functional_model", path, _FUNCTIONAL)
    with np.load(os.path.join(path, _WEIGHTS), allow_pickle=False) as stored:
        flat = [stored[f"arr_{i}"] for i in range(len(stored.files))]
    weights = tf.nest.pack_sequence_as(from_json(structures["weights"]), flat)

    @tf.function
    def forward_pass(model_weights: Any, batch: Any, training: bool = True) -> Any:
        return BatchOutput(**functions[f"forward_{training}"](model_weights, batch))

    @tf.function
    def predict_on_batch(model_weights: Any, x: Any, training: bool = True) -> Any:
        return functions[f"predict_{training}"](model_weights, x)

    @tf.function
    def update(state: Any, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        if sample_weight is not None:
            raise ValueError("A loaded model's metrics take no `sample_weight`.")
        return functions["update_metrics"](state, y_true, y_pred)

    return FunctionalModel(
        initial_weights=weights,
        forward_pass_fn=forward_pass,
        predict_on_batch_fn=predict_on_batch,
        metrics_fns=(
            tf.function(functions["initialize_metrics"]),
            update,
            tf.function(functions["finalize_metrics"]),
        ),
        input_spec=from_json(structures["input_spec"]),
    )
