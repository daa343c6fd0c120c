"""The client loop, written once: begin, a step for each batch, finish.

Where the model is pure, a client's pass over its data is a `sequence_reduce` of the IR,
which a runtime sees and can compile; a hand-written model with variables runs as one
traced graph for each client, with the same results.
"""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import attrs
import tensorflow as tf

from fedcore.computation import Computation
from fedcore.federated import federated_computation, sequence_reduce
from fedcore.tensorflow import tf_computation
from fedcore.tensorflow._masked import MASK_TYPE, attach_masked
from fedcore.types import SequenceType, Type, to_type, type_to_tf_tensor_specs
from fedlearn.models import BatchOutput, Model, ModelWeights, weights_type_from_model
from fedlearn.models._pure import PureModel, pure_model


@attrs.frozen(eq=False)
class Learner:
    """A model as the algorithms see it, whichever road its clients take.

    Attributes:
        model_fn: Makes the `Model`, inside a `tf_computation`.
        pure: The model as pure functions; None for a hand-written one with variables.
        weights_type: The type of its `ModelWeights`.
        data_type: The type `D*` of a client's data.
        metric_finalizers: The finalizer of each metric.
        metrics_type: The type of a client's unfinalized metrics.
        constraints: In flat order of the trainable weights, the constraint that a Keras
            variable carries, or None.
    """

    model_fn: Callable[[], Model]
    pure: PureModel | None
    weights_type: Type
    data_type: SequenceType
    metric_finalizers: OrderedDict
    metrics_type: Type
    constraints: tuple[Callable[[tf.Tensor], tf.Tensor] | None, ...]

    @property
    def trainable_specs(self) -> list[tf.TensorSpec]:
        """The trainable weights as an optimizer's `initialize` takes them, flat."""
        weights: Any = self.weights_type
        return tf.nest.flatten(type_to_tf_tensor_specs(weights.trainable))

    @property
    def initial_weights(self) -> Computation:
        """`( -> W)`: the model's initial weights, drawn anew on each run."""
        if self.pure is not None:
            return tf_computation(self.pure.initial_weights)
        return tf_computation(lambda: ModelWeights.from_model(self.model_fn()))


def learner(model_fn: Any) -> Learner:
    """The model that `model_fn` makes, looked at once.

    Args:
        model_fn: A function without arguments that returns a `Model`, or a
            `FunctionalModel`.

    Returns:
        A `Learner`: the model with its types.

    Raises:
        TypeError: If it is neither.
    """
    pure = pure_model(model_fn)
    if pure is not None:
        zero = tf_computation(pure.begin_metrics)
        return Learner(
            model_fn,
            pure,
            pure.weights_type,
            SequenceType(to_type(pure.input_spec)),
            pure.metric_finalizers,
            zero.type_signature.result,
            pure.constraints,
        )
    finalizers, spec, constraints = _look_at(model_fn)

    @tf_computation
    def zero():
        # Held by a name: a tf.function method has but a weak reference to its model.
        model = model_fn()
        return model.report_local_unfinalized_metrics()

    return Learner(
        model_fn,
        None,
        weights_type_from_model(model_fn),
        SequenceType(to_type(spec)),
        finalizers,
        zero.type_signature.result,
        constraints,
    )


def _look_at(model_fn: Callable[[], Model]) -> tuple[OrderedDict, Any, tuple]:
    with tf.Graph().as_default():  # its variables are not kept
        model = model_fn()
        constraints = [
            getattr(variable, "constraint", None)
            for variable in model.trainable_variables
        ]
        return model.metric_finalizers(), model.input_spec, tuple(constraints)


def client_pass(
    model: Learner,
    start_type: Type,
    *,
    weights_of: Callable[[Any], ModelWeights],
    begin: Callable[[Any], Any],
    update: Callable[[Any, Any, Any, Any, Any], tuple[Any, Any]] | None,
    finish: Callable[[Any, ModelWeights, Any, tf.Tensor, Any], Any],
    training: bool = True,
    observe: Callable[[Any, Any, BatchOutput, Any], Any] | None = None,
) -> Computation:
    """A client's pass over its data, as a computation `(<start,D*> -> result)`.

    Begin, a step for each batch, finish. All functions are traced, and take and return
    structures of tensors.

    Args:
        model: The model, as `learner` gives it.
        start_type: The type of what the server sends the client.
        weights_of: `start -> ModelWeights` that the client starts from.
        begin: `start -> extra`: the state besides the model's own, such as an
            optimizer's.
        update: `start, extra, trainable, gradients, num_examples -> extra, trainable`: one
            step, `num_examples` that of the batch; weights and gradients are flat lists,
            and a gradient is None where the loss does not depend on the weight. None where
            nothing is trained, as in evaluation.
        finish: `start, weights, extra, num_examples, metrics -> result`.
        training: Whether the model runs in training mode.
        observe: `start, extra, output, num_examples -> extra`: what is kept of a batch,
            the model's `BatchOutput`, before it is trained on; nothing if None.

    Returns:
        The computation, local to a client.
    """
    build = _pure_pass if model.pure is not None else _traced_pass
    return build(
        model, start_type, weights_of, begin, update, finish, training, observe
    )


def _pure_pass(
    model, start_type, weights_of, begin, update, finish, training, observe
) -> Computation:
    pure = model.pure

    @tf_computation(start_type)
    def begin_fn(start):
        weights = weights_of(start)
        return OrderedDict(
            trainable=tuple(tf.nest.flatten(weights.trainable)),
            non_trainable=tuple(tf.nest.flatten(weights.non_trainable)),
            local=tuple(pure.begin_local()),
            metrics=pure.begin_metrics(),
            num_examples=tf.constant(0, tf.int64),
            extra=begin(start),
        )

    state_type = begin_fn.type_signature.result

    def step(start, state, batch, forward, update_metrics):
        trainable = list(state["trainable"])
        non_trainable = list(state["non_trainable"])
        with tf.GradientTape() as tape:
            tape.watch(trainable)
            output, new_non_trainable, local = forward(
                ModelWeights(trainable, non_trainable),
                list(state["local"]),
                batch,
                training,
            )
        num_examples = tf.cast(_count(output, batch), tf.int64)
        new_state = OrderedDict(
            trainable=tuple(trainable),
            non_trainable=tuple(tf.nest.flatten(new_non_trainable)),
            local=tuple(local),
            metrics=update_metrics(state["metrics"], batch, output),
            num_examples=state["num_examples"] + num_examples,
            extra=state["extra"],
        )
        if observe is not None:
            new_state["extra"] = observe(start, state["extra"], output, num_examples)
        if update is not None:
            gradients = tape.gradient(output.loss, trainable)
            extra, trained = update(
                start, new_state["extra"], trainable, gradients, num_examples
            )
            new_state["extra"], new_state["trainable"] = extra, tuple(trained)
        return new_state

    element = model.data_type.element

    @tf_computation(start_type, state_type, element)
    def step_fn(start, state, batch):
        return step(start, state, batch, pure.forward, pure.update_metrics)

    if pure.masked is not None:

        @tf_computation(start_type, state_type, element, MASK_TYPE)
        def masked_fn(start, state, batch, mask):
            forward = functools.partial(pure.masked.forward, mask=mask)
            update_metrics = functools.partial(pure.masked.update_metrics, mask=mask)
            return step(start, state, batch, forward, update_metrics)

        attach_masked(step_fn, masked_fn)

    @tf_computation(start_type, state_type)
    def finish_fn(start, state):
        weights = ModelWeights(list(state["trainable"]), list(state["non_trainable"]))
        return finish(
            start, weights, state["extra"], state["num_examples"], state["metrics"]
        )

    @federated_computation(start_type, model.data_type)
    def client_work(start, data):
        state = sequence_reduce(
            data, begin_fn(start), lambda state, batch: step_fn(start, state, batch)
        )
        return finish_fn(start, state)

    return client_work


def _traced_pass(
    model, start_type, weights_of, begin, update, finish, training, observe
) -> Computation:
    @tf_computation(start_type, model.data_type)
    def client_work(start, data):
        variables = model.model_fn()
        weights = ModelWeights.from_model(variables)
        tf.nest.map_structure(
            lambda v, w: v.assign(w),
            [*weights.trainable, *weights.non_trainable],
            _flat_weights(weights_of(start)),
        )
        zero = begin(start)

        # A tf.function of its own: the loop's order of effects is kept in it.
        @tf.function
        def train(data):
            extra = tuple(tf.nest.flatten(zero))
            num_examples = tf.constant(0, tf.int64)
            for batch in data:
                with tf.GradientTape() as tape:
                    output = variables.forward_pass(batch, training=training)
                in_batch = tf.cast(_count(output, batch), tf.int64)
                if observe is not None:
                    kept = tf.nest.pack_sequence_as(zero, extra)
                    kept = observe(start, kept, output, in_batch)
                    extra = tuple(tf.nest.flatten(kept))
                if update is not None:
                    gradients = tape.gradient(output.loss, weights.trainable)
                    nested, trained = update(
                        start,
                        tf.nest.pack_sequence_as(zero, extra),
                        [v.read_value() for v in weights.trainable],
                        gradients,
                        in_batch,
                    )
                    extra = tuple(tf.nest.flatten(nested))
                    for variable, value in zip(weights.trainable, trained):
                        variable.assign(value)
                num_examples += in_batch
            return extra, num_examples

        extra, num_examples = train(data)
        trained = ModelWeights(
            [v.read_value() for v in weights.trainable],
            [v.read_value() for v in weights.non_trainable],
        )
        return finish(
            start,
            trained,
            tf.nest.pack_sequence_as(zero, list(extra)),
            num_examples,
            variables.report_local_unfinalized_metrics(),
        )

    return client_work


def _flat_weights(weights: ModelWeights) -> list[Any]:
    return [
        *tf.nest.flatten(weights.trainable),
        *tf.nest.flatten(weights.non_trainable),
    ]


def _count(output: Any, batch: Any) -> Any:
    """The batch's number of examples: the model's own count, or the batch's length."""
    if output.num_examples is not None:
        return output.num_examples
    return tf.shape(tf.nest.flatten(batch)[0])[0]
