"""Small learning problems that real TFF and fedlearn solve alike.

Nothing here imports either: `learning` is the module `tff.learning` or `fedlearn`, `keras`
the Keras that goes with it.
"""

import collections
import functools

import numpy as np
import tensorflow as tf

FEATURES = 3
SIZES = (7, 4, 0, 2)
INPUT_SPEC = collections.OrderedDict(
    x=tf.TensorSpec([None, FEATURES], tf.float32),
    y=tf.TensorSpec([None, 1], tf.float32),
)
SATURATED_SPEC = collections.OrderedDict(
    x=tf.TensorSpec([None, FEATURES], tf.float32),
    y=tf.TensorSpec([None, 1], tf.int32),
)


def client_arrays(spoilt=()):
    """A list of `(x, y)`; the clients whose number is in `spoilt` hold a NaN."""
    draw = np.random.RandomState(11)
    clients = []
    for number, size in enumerate(SIZES):
        x = draw.normal(size=(size, FEATURES)).astype(np.float32)
        y = (x @ np.array([[1.0], [-2.0], [0.5]]) + number).astype(np.float32)
        if number in spoilt:
            x[0, 0] = np.nan
        clients.append((x, y))
    return clients


def client_data(spoilt=(), batch=3):
    """Batched datasets, in order, the last batch of a client a smaller one."""
    return [
        tf.data.Dataset.from_tensor_slices(collections.OrderedDict(x=x, y=y)).batch(
            batch
        )
        for x, y in client_arrays(spoilt)
    ]


def model_fn_of(learning, keras, layers=()):
    """The function that makes a model of `Dense(2)`, the given layers and `Dense(1)`."""

    def model_fn():
        constant = keras.initializers.Constant
        model = keras.Sequential(
            [
                keras.layers.InputLayer((FEATURES,)),
                keras.layers.Dense(2, kernel_initializer=constant(0.3)),
                *(make() for make in layers),
                keras.layers.Dense(1, kernel_initializer=constant(0.5)),
            ]
        )
        return learning.from_keras_model(
            model,
            loss=keras.losses.MeanSquaredError(),
            input_spec=INPUT_SPEC,
            metrics=[keras.metrics.MeanAbsoluteError()],
        )

    return model_fn


def processes(learning, keras):
    """By name, the function that builds a process, and the clients spoilt in each round."""
    algorithms, sgdm = learning.algorithms, learning.optimizers.build_sgdm
    optimizers = learning.optimizers
    model_fn = model_fn_of(learning, keras)
    normalized = model_fn_of(learning, keras, [keras.layers.BatchNormalization])

    def falling(round_num):
        return tf.where(round_num < 2, 0.05, 0.01)

    def keras_sgd():
        return keras.optimizers.SGD(0.05)

    def keras_momentum():
        return keras.optimizers.SGD(0.5, momentum=0.9)

    good = [(), (), ()]
    return collections.OrderedDict(
        fed_avg_momentum=(
            lambda: algorithms.build_weighted_fed_avg(
                model_fn, sgdm(0.05, 0.9), sgdm(0.7, 0.5)
            ),
            good,
        ),
        fed_avg_keras_momentum=(
            lambda: algorithms.build_weighted_fed_avg(
                model_fn, keras_sgd, keras_momentum
            ),
            good,
        ),
        fed_avg_nan=(
            lambda: algorithms.build_weighted_fed_avg(model_fn, sgdm(0.05), sgdm(1.0)),
            [(), (1,), (0, 1, 3), ()],
        ),
        fed_avg_batch_norm=(
            lambda: algorithms.build_weighted_fed_avg(normalized, keras_sgd),
            good,
        ),
        fed_avg_schedule=(
            lambda: algorithms.build_weighted_fed_avg_with_optimizer_schedule(
                model_fn,
                falling,
                lambda rate: keras.optimizers.SGD(rate, momentum=0.9),
            ),
            good,
        ),
        unweighted_fed_avg_nan=(
            lambda: algorithms.build_unweighted_fed_avg(model_fn, keras_sgd),
            [(), (1,), (0, 1, 3)],
        ),
        fed_prox=(
            lambda: algorithms.build_weighted_fed_prox(model_fn, 0.8, sgdm(0.05)),
            good,
        ),
        unweighted_fed_prox=(
            lambda: algorithms.build_unweighted_fed_prox(model_fn, 0.8, keras_sgd),
            good,
        ),
        fed_sgd=(
            lambda: algorithms.build_fed_sgd(
                model_fn, lambda: keras.optimizers.SGD(0.1)
            ),
            good,
        ),
        fed_sgd_default=(lambda: algorithms.build_fed_sgd(model_fn), [(), (0,)]),
        mime_lite_momentum=(
            lambda: algorithms.build_weighted_mime_lite(
                model_fn, sgdm(0.05, 0.9), sgdm(0.7, 0.5)
            ),
            good,
        ),
        mime_lite_adam=(
            lambda: algorithms.build_weighted_mime_lite(
                model_fn, optimizers.build_adam(0.05)
            ),
            good,
        ),
        mime_lite_adagrad=(
            lambda: algorithms.build_weighted_mime_lite(
                model_fn, optimizers.build_adagrad(0.05)
            ),
            good,
        ),
        mime_lite_nan=(
            lambda: algorithms.build_weighted_mime_lite(model_fn, sgdm(0.05, 0.9)),
            [(), (1,)],
        ),
        unweighted_mime_lite=(
            lambda: algorithms.build_unweighted_mime_lite(model_fn, sgdm(0.05, 0.9)),
            good,
        ),
        mime_lite_schedule=(
            lambda: algorithms.build_mime_lite_with_optimizer_schedule(
                model_fn, falling, sgdm(0.3, 0.9)
            ),
            [(), (), (), ()],
        ),
        unweighted_mime_lite_nan=(
            lambda: algorithms.build_unweighted_mime_lite(model_fn, sgdm(0.05, 0.9)),
            [(), (1,)],
        ),
        fed_eval=(lambda: algorithms.build_fed_eval(model_fn), [(), ()]),
    )


def optimizer_processes(learning, keras):
    """As `processes`: Federated Averaging with each optimizer on clients and server."""
    build = learning.algorithms.build_weighted_fed_avg
    own, theirs = learning.optimizers, keras.optimizers
    model_fn = model_fn_of(learning, keras)
    makers = collections.OrderedDict(
        sgd=own.build_sgdm(0.03),
        sgdm=own.build_sgdm(0.03, 0.9),
        adagrad=own.build_adagrad(0.05),
        adam=own.build_adam(0.02),
        rmsprop=own.build_rmsprop(0.02),
        yogi=own.build_yogi(0.02),
        keras_sgd=lambda: theirs.SGD(0.03, momentum=0.9, nesterov=True),
        keras_adagrad=lambda: theirs.Adagrad(0.05),
        keras_adam=lambda: theirs.Adam(0.02),
    )
    good = [(), (), ()]
    found = collections.OrderedDict()
    for name, optimizer in makers.items():
        found[f"client_{name}"] = (functools.partial(build, model_fn, optimizer), good)
        found[f"server_{name}"] = (
            functools.partial(build, model_fn, own.build_sgdm(0.03), optimizer),
            good,
        )
    found["client_scheduled"] = (
        lambda: build(
            model_fn,
            own.schedule_learning_rate(
                own.build_adam(0.02), lambda step: tf.where(step < 2, 0.05, 0.01)
            ),
            own.schedule_learning_rate(
                own.build_sgdm(1.0, 0.5), lambda step: tf.where(step < 1, 1.0, 0.2)
            ),
        ),
        good,
    )
    return found


def saturated_model_fn(learning, keras, kind):
    """A classifier with a softmax, and data that drive probabilities to 0 and 1.

    Where Keras finds the logits behind the softmax, loss and gradients are others.
    """
    softmax = {"tf_nn": tf.nn.softmax, "layer": None}.get(kind, "softmax")

    def keras_model():
        layers = [
            keras.layers.InputLayer((FEATURES,)),
            keras.layers.Dense(3, softmax, kernel_initializer="ones"),
        ]
        if kind == "layer":
            layers.append(keras.layers.Softmax())
        return keras.Sequential(layers)

    loss = keras.losses.SparseCategoricalCrossentropy()

    if kind == "functional":
        return learning.models.functional_model_from_keras(
            keras_model(),
            loss,
            SATURATED_SPEC,
            lambda: collections.OrderedDict(
                loss=keras.metrics.SparseCategoricalCrossentropy()
            ),
        )
    return lambda: learning.from_keras_model(
        keras_model(), loss=loss, input_spec=SATURATED_SPEC
    )


def saturated_data():
    draw = np.random.RandomState(3)
    clients = []
    for size in (9, 6):
        x = (40 * draw.normal(size=(size, FEATURES))).astype(np.float32)
        y = draw.randint(0, 3, size=(size, 1)).astype(np.int32)
        pairs = collections.OrderedDict(x=x, y=y)
        clients.append(tf.data.Dataset.from_tensor_slices(pairs).batch(4))
    return clients


def saturated_processes(learning, keras):
    """By name, the function that builds a process on `saturated_data`."""
    algorithms, sgdm = learning.algorithms, learning.optimizers.build_sgdm
    found = collections.OrderedDict()
    for kind in ("layer", "activation", "tf_nn", "functional"):
        model_fn = functools.partial(saturated_model_fn, learning, keras, kind)
        found[f"fed_avg_{kind}"] = functools.partial(
            _build, algorithms.build_weighted_fed_avg, model_fn, sgdm(1.0), sgdm(1.0)
        )
        found[f"fed_eval_{kind}"] = functools.partial(
            _build, algorithms.build_fed_eval, model_fn
        )
    model_fn = functools.partial(saturated_model_fn, learning, keras, "layer")
    found["fed_sgd"] = functools.partial(
        _build, algorithms.build_fed_sgd, model_fn, lambda: keras.optimizers.SGD(1.0)
    )
    found["mime_lite"] = functools.partial(
        _build, algorithms.build_weighted_mime_lite, model_fn, sgdm(1.0, 0.9)
    )
    return found


def _build(build, model_of, *args):
    return build(model_of(), *args)


def flat(value, path=""):
    """The leaves of a structure of numbers by their path, NaN as the word."""
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, collections.abc.Mapping):
        items = value.items()
    elif isinstance(value, (list, tuple)):
        items = enumerate(value)
    else:
        numbers = np.asarray(value, np.float64).reshape(-1)
        return {path: [float(v) if np.isfinite(v) else str(v) for v in numbers]}
    leaves = {}
    for name, part in items:
        leaves.update(flat(part, f"{path}/{name}" if path else str(name)))
    return leaves


def run(build, spoilt_rounds):
    """What a process says of itself and does: types, metrics and weights by round."""
    return run_on(build, [client_data(spoilt) for spoilt in spoilt_rounds])


def run_on(build, rounds_of_data):
    """As `run`, on any clients' data by round."""
    process = build()
    state = process.initialize()
    rounds = []
    for data in rounds_of_data:
        output = process.next(state, data)
        state = output.state
        weights = process.get_model_weights(state)
        rounds.append(
            {
                "metrics": flat(output.metrics),
                "trainable": flat(list(weights.trainable)),
                "non_trainable": flat(list(weights.non_trainable)),
            }
        )
    return {
        "initialize_type": str(process.initialize.type_signature),
        "next_type": str(process.next.type_signature),
        "hparams": hparams(process, state),
        "rounds": rounds,
    }


def hparams(process, state):
    try:
        return flat(process.get_hparams(state))
    except Exception:
        return None


def evaluations(learning, keras, to_type):
    """Computations that are not processes: their types and values."""
    model_fn = model_fn_of(learning, keras)
    weights_type = learning.models.weights_type_from_model(model_fn)
    weights = learning.ModelWeights(
        [
            np.full([FEATURES, 2], 0.2, np.float32),
            np.zeros([2], np.float32),
            np.full([2, 1], 0.4, np.float32),
            np.ones([1], np.float32),
        ],
        [],
    )
    federated = learning.build_federated_evaluation(model_fn)
    local = learning.build_local_evaluation(model_fn, weights_type, INPUT_SPEC)
    return collections.OrderedDict(
        federated={
            "type": str(federated.type_signature),
            "result": flat(federated(weights, client_data())),
        },
        local={
            "type": str(local.type_signature),
            "result": flat(local(weights, client_data()[0])),
        },
        personalization=_personalization(learning, to_type, model_fn, weights),
    )


def _personalization(learning, to_type, model_fn, weights):
    @tf.function
    def evaluate_fn(model, dataset):
        total, count = tf.constant(0.0), tf.constant(0.0)
        for batch in dataset.batch(3):
            output = model.forward_pass(batch, training=False)
            examples = tf.cast(tf.shape(batch["y"])[0], tf.float32)
            total += output.loss * examples
            count += examples
        return collections.OrderedDict(loss=total / count, num_examples=count)

    def personalize_by(rate):
        @tf.function
        def personalize(model, train_data, test_data, context=None):
            steps = tf.constant(0)
            for batch in train_data.batch(3):
                with tf.GradientTape() as tape:
                    loss = model.forward_pass(batch, training=True).loss
                variables = list(model.trainable_variables)
                gradients = tape.gradient(loss, variables)
                for variable, gradient in zip(variables, gradients):
                    factor = rate if context is None else rate * context
                    variable.assign_sub(factor * gradient)
                steps += 1
            return collections.OrderedDict(
                steps=steps, test=evaluate_fn(model, test_data)
            )

        return personalize

    found = {}
    for name, context_type in [("plain", None), ("with_context", to_type(tf.float32))]:
        evaluation = learning.build_personalization_eval(
            model_fn,
            collections.OrderedDict(
                slow=lambda: personalize_by(0.01), fast=lambda: personalize_by(0.1)
            ),
            evaluate_fn,
            max_num_clients=2,
            context_tff_type=context_type,
        )
        data = []
        for number, dataset in enumerate(client_data()):
            if number in (0, 1):
                dataset = dataset.unbatch()
                client = collections.OrderedDict(train_data=dataset, test_data=dataset)
                if context_type is not None:
                    client["context"] = np.float32(0.5 + number)
                data.append(client)
        result = evaluation(weights, data)
        by_client = {}
        for path, values in flat(result).items():
            by_client[path] = sorted(values)  # the order of sampled clients is free
        found[name] = {"type": str(evaluation.type_signature), "result": by_client}
    return found
