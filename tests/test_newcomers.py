"""Mistakes that newcomers make: what they are told, and what to do about it.

Each is the code of a tutorial with one thing changed. The expected texts are the parts
that a reader needs: what was wanted, what came, where, and the remedy.
"""

import collections

import keras
import numpy as np
import pytest
import tensorflow as tf

import fedcore
import fedlearn
import fedsim

FLOATS = fedcore.type_at_clients(tf.float32)
FLOAT = fedcore.type_at_server(tf.float32)
BATCH = (
    tf.TensorSpec([None, 784], tf.float32),
    tf.TensorSpec([None, 1], tf.int32),
)


@fedcore.tf_computation(tf.float32)
def add_half(x):
    return x + 0.5


def keras_model():
    layers = [keras.layers.Input((784,)), keras.layers.Dense(10, "softmax")]
    return keras.Sequential(layers)


def model_fn(model=None):
    return fedlearn.models.from_keras_model(
        model or keras_model(),
        input_spec=BATCH,
        loss=keras.losses.SparseCategoricalCrossentropy(),
    )


def sgd():
    return keras.optimizers.SGD(0.02)


def build(model=model_fn, optimizer=sgd):
    return fedlearn.algorithms.build_weighted_fed_avg(
        model, client_optimizer_fn=optimizer
    )


@pytest.fixture(scope="module")
def process():
    return build()


def examples(labels=tf.int32):
    features = tf.ones([4, 784])
    return tf.data.Dataset.from_tensor_slices((features, tf.ones([4, 1], labels)))


def told(mistake, *parts, error=TypeError):
    """The message of what `mistake` raises, which has to hold every part."""
    with pytest.raises(error) as caught:
        mistake()
    message = str(caught.value)
    for part in parts:
        assert part in message, f"{part!r} is missing in:\n{message}"
    return message


def test_1_a_mean_of_integers():
    told(
        lambda: fedcore.federated_computation(
            fedcore.federated_mean, fedcore.type_at_clients(tf.int32)
        ),
        "`federated_mean` needs floats at CLIENTS, found `{int32}@CLIENTS`",
        "Cast on the clients first",
    )


def test_2_tensorflow_in_a_federated_computation():
    told(
        lambda: fedcore.federated_computation(lambda x: tf.add(x, 0.5), FLOATS),
        "TensorFlow needs tensors, found a value of a federated computation",
        "Put the operation in a `tf_computation`",
    )


def test_3_a_map_over_what_has_no_placement():
    told(
        lambda: fedcore.federated_computation(
            lambda x: fedcore.federated_map(add_half, x), tf.float32
        ),
        "`federated_map` needs `arg` to be a federated value",
        "Place it with `federated_value(value, fedcore.SERVER)`",
        "if it is a parameter, declare it as `fedcore.type_at_clients(...)`",
    )


def test_4_a_map_of_a_function_of_another_type():
    told(
        lambda: fedcore.federated_computation(
            lambda x: fedcore.federated_map(add_half, x),
            fedcore.type_at_clients(tf.int32),
        ),
        "Type `int32` is not assignable to expected type `float32`",
        "Cast it with `tf.cast(value, tf.float32)`",
    )


def test_5_a_map_over_values_at_two_places():
    add = fedcore.tf_computation(lambda x, y: x + y)
    told(
        lambda: fedcore.federated_computation(
            lambda x, y: fedcore.federated_map(add, (x, y)), FLOATS, FLOAT
        ),
        "`federated_map` needs all parts of `arg` at one placement, found "
        "`<{float32}@CLIENTS,float32@SERVER>`",
        "`federated_broadcast` or an aggregation",
    )


def test_6_a_return_that_was_forgotten():
    def forgets(x):
        fedcore.federated_mean(x)

    told(
        lambda: fedcore.federated_computation(forgets, FLOATS),
        "found None returned by `forgets`",
        "test_newcomers.py:",
        "is a `return` missing?",
        error=ValueError,
    )


def test_7_a_value_where_a_list_of_clients_values_is_wanted():
    mean = fedcore.federated_computation(fedcore.federated_mean, FLOATS)
    told(
        lambda: mean(68.5),
        "A list with one value for each client is needed, found `float`: 68.5",
        "For one client, pass a list with one element.",
    )


def test_8_a_float_for_an_integer():
    told(
        lambda: fedcore.tf_computation(lambda x: x, tf.int32)(1.5),
        "An argument of type `int32` is needed, found `float64`: 1.5",
        "Cast or reshape it, or change the declared type.",
    )


def test_9_a_plain_dict_as_a_type():
    told(
        lambda: fedcore.tf_computation(lambda d: d["x"], {"x": tf.int32}),
        "found a `dict`, whose order of elements is ambiguous",
        "Use collections.OrderedDict.",
    )


def test_10_an_operator_outside_of_a_federated_computation():
    told(
        lambda: fedcore.federated_sum([1.0, 2.0]),
        "`federated_sum` has a meaning only inside a federated computation",
        "decorated with `fedcore.federated_computation`",
        error=fedcore.context.ContextError,
    )


def test_11_a_model_made_outside():
    model = keras_model()
    told(
        lambda: fedcore.tf_computation(
            lambda x: model(x), fedcore.TensorType(tf.float32, [None, 784])
        ),
        "captures the tf.Variable",
        "which was created outside of it",
        "Build models, optimizers, metrics, variables and lookup tables inside",
        "such as a `model_fn`",
        error=fedcore.tensorflow.TracingError,
    )


def test_12_numpy_in_a_tf_computation():
    def sine(x):
        return np.sin(x)

    told(
        lambda: fedcore.tf_computation(sine, tf.float32),
        "`sine` needs TensorFlow operations alone, found NumPy or Python code",
        "Use the TensorFlow function of that name",
        "return np.sin(x)",
        error=fedcore.tensorflow.TracingError,
    )


def test_13_looking_at_a_value_while_it_is_traced():
    def look(x):
        return x + float(x.numpy())

    told(
        lambda: fedcore.tf_computation(look, tf.float32),
        "wants the value of a tensor while there is none",
        "with fedsim.debug():",
        "x.numpy()",
        error=fedcore.tensorflow.TracingError,
    )


def test_14_lists_of_different_lengths():
    mean = fedcore.federated_computation(fedcore.federated_mean, FLOATS, FLOATS)
    told(
        lambda: mean([1.0, 2.0], [1.0]),
        "need the same length, found 2 in `argument.value`, 1 in `argument.weight`",
        error=fedsim.runtime.CardinalityError,
    )


def test_15_a_sum_of_what_is_at_the_server():
    told(
        lambda: fedcore.federated_computation(fedcore.federated_sum, FLOAT),
        "`federated_sum` needs `value` to be a federated value at CLIENTS",
        "To have it at each client, send it with `federated_broadcast(value)`",
    )


def test_16_an_if_on_a_federated_value():
    def choose(x):
        return x if fedcore.federated_sum(x) > 3.0 else -x

    told(
        lambda: fedcore.federated_computation(choose, FLOATS),
        "cannot be compared while it is traced, found `>`",
        "Compare in a `tf_computation`.",
    )


def test_17_a_first_state_without_a_placement():
    init = fedcore.tf_computation(lambda: 0.0)
    step = fedcore.federated_computation(lambda state, data: state, FLOAT, FLOATS)
    told(
        lambda: fedcore.templates.IterativeProcess(init, step),
        "Type `float32` is not assignable to expected type `float32@SERVER`",
        "Place it with `federated_value(value, fedcore.SERVER)`",
    )


def test_18_a_model_where_a_function_is_wanted():
    told(
        lambda: build(model_fn()),
        "`model_fn` needs to be a function",
        "Pass the function itself, `model_fn`, not what it returns.",
    )


def test_19_a_keras_model_as_it_is():
    told(
        lambda: build(keras_model),
        "`model_fn` needs to make a `Model`, found `Sequential`",
        "from_keras_model",
    )


def test_20_a_keras_model_that_is_made_once():
    model = keras_model()
    told(
        lambda: build(lambda: model_fn(model)),
        "which was created outside of it",
        error=fedcore.tensorflow.TracingError,
    )


def test_21_an_optimizer_where_a_function_is_wanted():
    told(
        lambda: build(optimizer=sgd()),
        "found the Keras optimizer SGD itself",
        "pass `lambda: keras.optimizers.SGD(...)`",
    )


def test_22_one_dataset_where_a_list_is_wanted(process):
    state = process.initialize()
    told(
        lambda: process.next(state, examples().batch(2)),
        "A list with one value for each client is needed at `client_data`",
        "For one client, pass a list with one element.",
    )


def test_23_data_without_batches(process):
    state = process.initialize()
    told(
        lambda: process.next(state, [examples()]),
        "at `client_data of client 0`",
        "They first differ at `element[0]`: wanted `float32[?,784]`, found `float32[784]`",
        "Is a `batch` missing?",
    )


def test_24_labels_of_another_dtype(process):
    state = process.initialize()
    told(
        lambda: process.next(state, [examples(tf.int64).batch(2)]),
        "They first differ at `element[1]`: wanted `int32[?,1]`, found `int64[?,1]`",
        "Cast it with `tf.cast(value, tf.int32)`",
    )


def test_25_features_by_other_names():
    spec = collections.OrderedDict(x=tf.float32, y=tf.int32)
    first = fedcore.tf_computation(
        lambda ds: ds.reduce(0.0, lambda a, e: a + e["x"]), fedcore.SequenceType(spec)
    )
    raw = collections.OrderedDict(pixels=[1.0], label=[1])
    told(
        lambda: first(tf.data.Dataset.from_tensor_slices(raw)),
        "wanted a name `x`, found the name `pixels`",
        "Give the elements the names of the type.",
    )


def test_26_a_state_that_was_forgotten(process):
    told(
        lambda: process.next([examples().batch(2)]),
        "A structure of 2 elements is needed, found 1",
        "Pass all arguments: state, client_data.",
    )


def test_27_an_output_where_a_state_is_wanted(process):
    data = [examples().batch(2)]
    output = process.next(process.initialize(), data)
    told(
        lambda: process.next(output, data),
        "A structure of 5 elements is needed at `state`, found 2",
        "This is what a process returns: pass its `state`.",
    )


def test_28_a_state_of_another_process():
    other = fedlearn.algorithms.build_weighted_fed_avg(
        model_fn,
        client_optimizer_fn=sgd,
        server_optimizer_fn=lambda: keras.optimizers.Adam(0.1),
    )

    def mixed(state, data):
        return build().next(state, data)

    parameter = other.next.type_signature.parameter
    message = told(
        lambda: fedcore.federated_computation(mixed, parameter.state, parameter[1]),
        "`next_fn` needs an argument of its parameter's type, found another.",
        "They first differ at `state.finalizer`: wanted 1 element `<int64>`, found 5",
        "Diff (- what came, + what was wanted):",
        "return build().next(state, data)",
    )
    assert len(message.splitlines()) < 35


def test_messages_name_the_users_line():
    def average(values):
        doubled = fedcore.federated_map(add_half, values)
        return fedcore.federated_mean(fedcore.federated_sum(doubled))

    message = told(lambda: fedcore.federated_computation(average, FLOATS))
    line = average.__code__.co_firstlineno + 2
    assert message.endswith(
        f'  File "{__file__}", line {line}, in average\n'
        "    return fedcore.federated_mean(fedcore.federated_sum(doubled))"
    )


def test_errors_of_the_users_own_are_left_alone():
    def raises(values):
        raise ValueError("mine")

    assert (
        told(
            lambda: fedcore.federated_computation(raises, FLOATS),
            "mine",
            error=ValueError,
        )
        == "mine"
    )


def test_traced_computations_say_their_type_and_where_they_are_from():
    text = repr(add_half)
    assert text.startswith("<computation add_half: (float32 -> float32), defined at ")
    assert "test_newcomers.py:" in text
