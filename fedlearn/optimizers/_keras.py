"""Keras optimizers as pure functions of Keras's own arithmetic.

A step of a Keras optimizer writes variables, which keeps it out of a compiled loop over
clients. Here a plain optimizer is read by `get_config()` once and its step is said
again in the same operations in the same order, so the results are the same to the bit.

`as_optimizer` gives None, and the caller runs the Keras object itself, for:
- a class that is not in `_RULES`, subclasses of these and all of Keras 2 included;
- `use_ema`, `gradient_accumulation_steps`, `loss_scale_factor`;
- a learning rate that is neither a number nor one of Keras's own schedules;
- weight decay with variables left out (`exclude_from_weight_decay`);
- an optimizer that was built or has taken steps, and weights that are not floats.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import keras
import tensorflow as tf

from fedlearn.optimizers._keras2 import (
    check_counts_in_variables,
    is_keras_2_optimizer,
)
from fedlearn.optimizers._optimizer import (
    Optimizer,
    check_weights_gradients_match,
    dense,
)


def as_optimizer(
    optimizer_or_fn: Any,
    weight_specs: Any,
    constraints: Sequence[Callable[[tf.Tensor], tf.Tensor] | None] | None = None,
) -> Optimizer | None:
    """Returns a pure optimizer that does what the given one does, or None.

    Args:
        optimizer_or_fn: A `fedlearn.optimizers.Optimizer`, which is returned as it is,
            or a function without arguments that returns one or a Keras optimizer.
        weight_specs: Structure of `tf.TensorSpec`s of the weights to be optimized.
        constraints: In flat order of the weights, the constraint that a Keras variable
            carries or None; Keras's optimizers apply it after their step.

    Returns:
        An optimizer. That of a Keras optimizer has as its state the flat list of
        Keras's `optimizer.variables` in Keras's order, without the learning rate: the
        iteration (`int64`), then the slots. None if there is no pure equivalent.

    Raises:
        TypeError: If `optimizer_or_fn` is or returns something else.
        RuntimeError: If the function is to be called while a computation is traced.
    """
    if isinstance(optimizer_or_fn, Optimizer):
        return optimizer_or_fn
    if not tf.executing_eagerly():
        raise RuntimeError(
            "`as_optimizer` needs to run outside a computation being traced, found a "
            "graph.\nKeras makes variables at once, which would become part of it."
        )
    optimizer = call_optimizer_fn(optimizer_or_fn)
    if isinstance(optimizer, Optimizer):
        return optimizer
    return _pure(optimizer, weight_specs, constraints)


def call_optimizer_fn(optimizer_fn: Any) -> Any:
    """Returns what the function returns, after checking that it is an optimizer."""
    if _is_keras_optimizer(optimizer_fn):
        package = "tf_keras" if is_keras_2_optimizer(optimizer_fn) else "keras"
        raise TypeError(
            f"{_WANTED}, found the Keras optimizer {type(optimizer_fn).__name__} "
            "itself.\nIts variables cannot be shared between computations: pass "
            f"`lambda: {package}.optimizers.{type(optimizer_fn).__name__}(...)`."
        )
    if not callable(optimizer_fn):
        raise TypeError(f"{_WANTED}, found {type(optimizer_fn).__name__}.\n{_TO_DO}")
    optimizer = optimizer_fn()
    if not isinstance(optimizer, Optimizer) and not _is_keras_optimizer(optimizer):
        raise TypeError(
            f"{_WANTED}, found a function that returns {type(optimizer).__name__}.\n"
            f"{_TO_DO}"
        )
    if is_keras_2_optimizer(optimizer):
        check_counts_in_variables(optimizer)
    return optimizer


def _is_keras_optimizer(value: Any) -> bool:
    return isinstance(value, keras.optimizers.Optimizer) or is_keras_2_optimizer(value)


_WANTED = (
    "An optimizer argument needs a `fedlearn.optimizers.Optimizer` or a function "
    "without arguments that returns a Keras optimizer"
)
_TO_DO = (
    "For example `fedlearn.optimizers.build_sgdm(0.1)` or "
    "`lambda: keras.optimizers.SGD(0.1)`."
)
_STATEFUL_OPTIONS = ("use_ema", "gradient_accumulation_steps", "loss_scale_factor")


def _pure(optimizer, weight_specs, constraints):
    rule = _RULES.get(type(optimizer))
    floats = all(spec.dtype.is_floating for spec in tf.nest.flatten(weight_specs))
    if rule is None or not floats or not _is_fresh(optimizer):
        return None
    try:
        config = optimizer.get_config()
    except (NotImplementedError, TypeError, ValueError):
        return None  # A schedule of the user's that cannot describe itself.
    learning_rate = _learning_rate(config["learning_rate"])
    if learning_rate is None or any(config[option] for option in _STATEFUL_OPTIONS):
        return None
    if config["weight_decay"] is not None and _leaves_weights_undecayed(optimizer):
        return None
    return KerasOptimizer(
        rule, config, learning_rate, tuple(constraints) if constraints else None
    )


@attrs.frozen
class _Rule:
    """How one Keras class steps.

    `groups(config)` lists groups of slots `(name, initial value)`: Keras makes the slots
    of a group weight by weight, and one group after the other. `step(config, rate,
    iteration, weight, gradient, its square, slots)` gives a new weight and new slots, by
    name. `shared` are the first values of scalars that all weights share, passed to
    `step` last, and `share(config, iteration, values)` are their values in a step.
    """

    groups: Callable[[Mapping], Sequence[Sequence[tuple[str, float]]]]
    step: Callable[..., tuple[tf.Tensor, dict]]
    shared: Sequence[float] = ()
    share: Callable[..., list] = lambda config, iteration, values: list(values)


@attrs.frozen(eq=False)
class KerasOptimizer(Optimizer):
    """A Keras optimizer without its variables; `rate(iteration)` is its learning rate."""

    rule: _Rule
    config: Mapping[str, Any]
    rate: Callable[[tf.Tensor], Any]
    constraints: tuple[Callable | None, ...] | None = None

    def with_learning_rate(self, learning_rate: Any) -> "KerasOptimizer":
        """Returns this optimizer with another rate, a float or a scalar tensor."""
        return attrs.evolve(self, rate=lambda iteration: learning_rate)

    def initialize(self, specs: Any) -> list:
        flat = tf.nest.flatten(specs)
        state = [tf.zeros([], tf.int64)]
        for group in self.rule.groups(self.config):
            for spec in flat:
                for _, value in group:
                    state.append(tf.cast(tf.fill(spec.shape, value), spec.dtype))
        dtype = flat[0].dtype if flat else keras.config.floatx()
        return state + [tf.cast(value, dtype) for value in self.rule.shared]

    def next(self, state: Any, weights: Any, gradients: Any) -> tuple[list, Any]:
        check_weights_gradients_match(weights, gradients)
        flat_weights = [tf.convert_to_tensor(w) for w in tf.nest.flatten(weights)]
        flat_gradients = tf.nest.flatten(gradients)
        if not flat_weights:
            return list(state), weights
        _check_some_gradients(flat_gradients)
        iteration, slots, shared = self._unpack(list(state), len(flat_weights))
        rate = self.rate(iteration)
        flat_gradients = _clip(self.config, flat_gradients)
        shared = self.rule.share(self.config, iteration, shared)
        for i, gradient in enumerate(flat_gradients):
            if gradient is not None:
                flat_weights[i], slots[i] = self._step(
                    i, rate, iteration, flat_weights[i], gradient, slots[i], shared
                )
        new_state = self._pack(iteration + 1, slots, shared)
        return new_state, tf.nest.pack_sequence_as(weights, flat_weights)

    def _step(self, index, rate, iteration, weight, gradient, slots, shared):
        dtype = weight.dtype
        rate, gradient = tf.cast(rate, dtype), tf.cast(gradient, dtype)
        # Keras squares slices before it sums those of one row.
        square = dense(keras.ops.square(gradient))
        decay = self.config["weight_decay"]
        if decay is not None:
            weight = weight - weight * tf.cast(decay, dtype) * rate
        new_weight, new_slots = self.rule.step(
            self.config,
            rate,
            iteration,
            weight,
            gradient,
            square,
            slots,
            *shared,
        )
        constraint = self.constraints[index] if self.constraints else None
        return new_weight if constraint is None else constraint(new_weight), new_slots

    def _unpack(self, state, num_weights):
        iteration, *rest = state
        slots = [{} for _ in range(num_weights)]
        values = iter(rest)
        for group in self.rule.groups(self.config):
            for of_weight in slots:
                of_weight.update((name, next(values)) for name, _ in group)
        return tf.convert_to_tensor(iteration, tf.int64), slots, list(values)

    def _pack(self, iteration, slots, shared):
        groups = self.rule.groups(self.config)
        in_order = [of[name] for group in groups for of in slots for name, _ in group]
        return [iteration, *in_order, *shared]


def _is_fresh(optimizer: Any) -> bool:
    return not optimizer.built and int(optimizer.iterations) == 0


def _leaves_weights_undecayed(optimizer: Any) -> bool:
    # `exclude_from_weight_decay` leaves no trace in the configuration.
    return bool(
        getattr(optimizer, "_exclude_from_weight_decay", None)
        or getattr(optimizer, "_exclude_from_weight_decay_pattern", None)
    )


def _learning_rate(config: Any) -> Callable[[tf.Tensor], Any] | None:
    if isinstance(config, float):
        return lambda iteration: config
    if not isinstance(config, dict):
        return None
    name = config.get("class_name")
    kept = config.get("module") == "keras.optimizers.schedules"
    if kept and config.get("registered_name") is None and name in _SCHEDULES:
        schedule = keras.optimizers.schedules.deserialize(config)
        return lambda iteration: schedule(iteration)
    return None


_SCHEDULES = (
    "CosineDecay",
    "CosineDecayRestarts",
    "ExponentialDecay",
    "InverseTimeDecay",
    "PiecewiseConstantDecay",
    "PolynomialDecay",
)


def _check_some_gradients(gradients: Sequence[Any]) -> None:
    missing = [i for i, gradient in enumerate(gradients) if gradient is None]
    if len(missing) == len(gradients):
        raise ValueError(
            "`Optimizer.next` needs a gradient for some weight, found None for all.\n"
            "The loss does not depend on the weights."
        )
    if missing:
        warnings.warn(
            f"The loss does not depend on the weights numbered {missing}: they stay.",
            stacklevel=3,
        )


def _clip(config: Mapping, gradients: Sequence[Any]) -> list:
    """Clips as Keras does: slices by norm or value before those of a row are summed."""
    norm, value = config["clipnorm"], config["clipvalue"]
    if norm and norm > 0:
        clipped = [g if g is None else tf.clip_by_norm(g, norm) for g in gradients]
        return clipped
    limit = config["global_clipnorm"]
    if limit and limit > 0:
        return _clip_by_global_norm([dense(g) for g in gradients], limit)
    if value and value > 0:
        gradients = [
            g if g is None else tf.clip_by_value(g, -value, value) for g in gradients
        ]
    return list(gradients)


def _clip_by_global_norm(gradients: Sequence[Any], limit: float) -> list:
    present = [g for g in gradients if g is not None]
    squares = [keras.ops.sum(keras.ops.square(g)) for g in present]
    norm: Any = keras.ops.sqrt(keras.ops.sum(keras.ops.stack(squares)))
    scale: Any = keras.ops.minimum(1.0 / norm, 1.0 / limit)
    scale = limit * scale
    scale = scale + (norm - norm)  # NaN if the norm is not finite
    return [g if g is None else g * scale for g in gradients]


def _sgd_groups(config):
    return [[("momentum", 0.0)]] if config["momentum"] != 0 else []


def _sgd(config, rate, iteration, weight, gradient, square, slots):
    gradient = dense(gradient)
    if not slots:
        return weight - gradient * rate, slots
    momentum = tf.cast(config["momentum"], weight.dtype)
    velocity = slots["momentum"] * momentum - gradient * rate
    change = velocity * momentum - gradient * rate if config["nesterov"] else velocity
    return weight + change, {"momentum": velocity}


def _adam_groups(config):
    moments = [("momentum", 0.0), ("velocity", 0.0)]
    return [moments, [("velocity_hat", 0.0)]] if config["amsgrad"] else [moments]


def _adam(config, rate, iteration, weight, gradient, square, slots):
    beta_1, beta_2 = config["beta_1"], config["beta_2"]
    step = tf.cast(iteration + 1, weight.dtype)
    power_1 = tf.pow(tf.cast(beta_1, weight.dtype), step)
    power_2 = tf.pow(tf.cast(beta_2, weight.dtype), step)
    alpha = rate * tf.sqrt(1 - power_2) / (1 - power_1)
    m, v = slots["momentum"], slots["velocity"]
    m = m + (dense(gradient) - m) * (1 - beta_1)
    v = v + (square - v) * (1 - beta_2)
    new_slots = {"momentum": m, "velocity": v}
    if config["amsgrad"]:
        v = new_slots["velocity_hat"] = tf.maximum(slots["velocity_hat"], v)
    return weight - m * alpha / (tf.sqrt(v) + config["epsilon"]), new_slots


def _adagrad_groups(config):
    return [[("accumulator", config["initial_accumulator_value"])]]


def _adagrad(config, rate, iteration, weight, gradient, square, slots):
    accumulator = slots["accumulator"] + square
    root = tf.sqrt(accumulator + config["epsilon"])
    return weight - rate * dense(gradient) / root, {"accumulator": accumulator}


def _rmsprop_groups(config):
    groups = [[("velocity", 0.0)]]
    if config["momentum"] > 0:
        groups.append([("momentum", 0.0)])
    if config["centered"]:
        groups.append([("average_gradient", 0.0)])
    return groups


def _rmsprop(config, rate, iteration, weight, gradient, square, slots):
    rho, epsilon = config["rho"], config["epsilon"]
    velocity = rho * slots["velocity"] + (1 - rho) * square
    new_slots = {"velocity": velocity}
    if config["centered"]:
        average = rho * slots["average_gradient"] + (1 - rho) * dense(gradient)
        new_slots["average_gradient"] = average
        mean_square = velocity - tf.square(average) + epsilon
    else:
        mean_square = velocity + epsilon
    change = rate * dense(gradient) / tf.sqrt(mean_square)
    if config["momentum"] > 0:
        change = config["momentum"] * slots["momentum"] + change
        new_slots["momentum"] = change
    return weight - change, new_slots


def _adadelta_groups(config):
    return [[("accumulated_grad", 0.0), ("accumulated_delta_var", 0.0)]]


def _adadelta(config, rate, iteration, weight, gradient, square, slots):
    rho, epsilon = config["rho"], config["epsilon"]
    past = slots["accumulated_delta_var"]
    mean_square = rho * slots["accumulated_grad"] + (1 - rho) * square
    # Slices stay slices here, as in Keras, until their product has been squared.
    product = keras.ops.multiply(tf.sqrt(past + epsilon), gradient)
    change = keras.ops.divide(product, tf.sqrt(mean_square + epsilon))
    past = rho * past + (1 - rho) * dense(keras.ops.square(change))
    new_slots = {"accumulated_grad": mean_square, "accumulated_delta_var": past}
    return weight + rate * -dense(change), new_slots


def _nadam_groups(config):
    return [[("momentum", 0.0), ("velocity", 0.0)]]


def _nadam_share(config, iteration, values):
    [product] = values
    decay = tf.pow(
        tf.constant(0.96, product.dtype), tf.cast(iteration + 1, product.dtype)
    )
    return [product * config["beta_1"] * (1.0 - 0.5 * decay)]


def _nadam(config, rate, iteration, weight, gradient, square, slots, product):
    dtype = weight.dtype
    beta_1, beta_2 = tf.cast(config["beta_1"], dtype), tf.cast(config["beta_2"], dtype)
    decay = tf.cast(0.96, dtype)
    step, next_step = tf.cast(iteration + 1, dtype), tf.cast(iteration + 2, dtype)
    u = beta_1 * (1.0 - 0.5 * tf.pow(decay, step))
    next_u = beta_1 * (1.0 - 0.5 * tf.pow(decay, next_step))
    product = tf.cast(product, dtype)
    m, v = slots["momentum"], slots["velocity"]
    m = m + (dense(gradient) - m) * (1 - beta_1)
    v = v + (square - v) * (1 - beta_2)
    m_hat = next_u * m / (1 - product * next_u) + (1 - u) * dense(gradient) / (
        1 - product
    )
    v_hat = v / (1 - tf.pow(beta_2, step))
    new_weight = weight - m_hat * rate / (tf.sqrt(v_hat) + config["epsilon"])
    return new_weight, {"momentum": m, "velocity": v}


_RULES = {
    keras.optimizers.SGD: _Rule(_sgd_groups, _sgd),
    keras.optimizers.Adam: _Rule(_adam_groups, _adam),
    keras.optimizers.AdamW: _Rule(_adam_groups, _adam),
    keras.optimizers.Adagrad: _Rule(_adagrad_groups, _adagrad),
    keras.optimizers.RMSprop: _Rule(_rmsprop_groups, _rmsprop),
    keras.optimizers.Adadelta: _Rule(_adadelta_groups, _adadelta),
    keras.optimizers.Nadam: _Rule(
        _nadam_groups, _nadam, shared=(1.0,), share=_nadam_share
    ),
}
