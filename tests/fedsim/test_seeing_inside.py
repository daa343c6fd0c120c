"""`explain`, `debug` and `record`: what people look with."""

import collections
import json
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import fedcore
import fedlearn
import fedsim

DATA = fedcore.type_at_clients(fedcore.SequenceType(tf.float32))
seen = []


@fedcore.tf_computation(fedcore.SequenceType(tf.float32), tf.float32)
def scaled_sum(xs, scale):
    total = xs.reduce(0.0, lambda a, b: a + b)
    seen.append(total)
    tf.debugging.assert_less(total, 100.0)
    return total * scale


@fedcore.tf_computation(tf.float32)
def noise(x):
    return x + keras.layers.Dropout(0.5)(tf.ones([20]), training=True)


@fedcore.federated_computation(DATA, fedcore.type_at_server(tf.float32))
def a_round(data, scale):
    sent = fedcore.federated_broadcast(scale)
    sums = fedcore.federated_map(scaled_sum, (data, sent))
    noisy = fedcore.federated_map(noise, sums)
    return fedcore.federated_sum(sums), fedcore.federated_mean(noisy)


CLIENTS = [[1.0, 2.0], [3.0], [4.0, 5.0, 6.0]]


@pytest.fixture(scope="module")
def averaging():
    train, _ = fedsim.datasets.emnist.load_synthetic(num_writers=3)

    def preprocess(dataset):
        def flatten(batch):
            return collections.OrderedDict(
                x=tf.reshape(batch["pixels"], [-1, 784]),
                y=tf.reshape(batch["label"], [-1, 1]),
            )

        return dataset.batch(20).map(flatten)

    train = train.preprocess(preprocess)
    cohort = train.clients(train.client_ids)

    def model_fn():
        layers = [keras.layers.Input((784,)), keras.layers.Dense(10, "softmax")]
        return fedlearn.models.from_keras_model(
            keras.Sequential(layers),
            input_spec=cohort[0].element_spec,
            loss=keras.losses.SparseCategoricalCrossentropy(),
        )

    process = fedlearn.algorithms.build_weighted_fed_avg(
        model_fn, client_optimizer_fn=lambda: keras.optimizers.SGD(0.02)
    )
    with fedcore.context.use(fedsim.local_context(seed=1)):
        return process, process.initialize(), cohort


def test_explain_counts_bytes_for_each_client():
    found = fedsim.explain(a_round, CLIENTS, 2.0)
    step = next(s for s in found.steps if s.place == "clients")
    assert found.clients == 3
    assert step.functions[:2] == ("scaled_sum", "noise")
    assert step.down.bytes == 4
    assert step.up.bytes == 4 + 4 * 20
    assert step.road.startswith("general: ")
    assert step.memory.exact
    assert found.traced == 2


def test_explain_fits_a_terminal_and_can_be_written(averaging):
    process, state, cohort = averaging
    for found in (
        fedsim.explain(process.next, clients=100),
        fedsim.explain(process.next, state, cohort),
        fedsim.explain(a_round),
    ):
        assert max(map(len, repr(found).splitlines())) <= 80
        assert json.loads(json.dumps(found.to_dict()))["name"] == found.name


def test_explain_says_the_road_and_what_was_made_of_it(averaging):
    process, state, cohort = averaging
    before = fedsim.explain(process.next, state, cohort)
    step = next(s for s in before.steps if s.place == "clients")
    assert step.road.startswith("columnar, XLA")
    assert step.compiled
    assert "road   columnar, XLA" in repr(before)
    context = fedsim.local_context(seed=1, xla=False)
    with fedcore.context.use(context):
        process.next(state, cohort)
        after = fedsim.explain(process.next, state, cohort)
    step = next(s for s in after.steps if s.place == "clients")
    assert step.road == "columnar, graph: XLA is switched off"
    assert not step.compiled
    assert step.programs >= 1
    assert after.planned_before


def test_explain_without_arguments_says_what_it_needs():
    text = repr(fedsim.explain(a_round, clients=10))
    assert "pass arguments" in text
    assert "10 clients" in text
    assert "40 B in all" in text  # the scale, down


@fedcore.tf_computation(tf.float32, tf.float32)
def square_of_difference(x, mean):
    return (x - mean) ** 2


@fedcore.federated_computation(fedcore.type_at_clients(tf.float32))
def variance(xs):
    mean = fedcore.federated_broadcast(fedcore.federated_mean(xs))
    return fedcore.federated_mean(
        fedcore.federated_map(square_of_difference, (xs, mean))
    )


def test_explain_tells_two_round_trips_in_the_users_own_operators():
    found = fedsim.explain(variance, [1.0, 2.0, 6.0])
    assert [(step.place, step.operators) for step in found.steps] == [
        ("clients", ("federated_mean",)),
        ("server", ("federated_mean",)),
        ("clients", ("federated_map", "federated_mean")),
        ("server", ("federated_mean",)),
    ]
    assert [step.down.bytes for step in found.steps[::2]] == [0, 4]
    assert found.down.bytes == 3 * 4
    assert found.up.bytes == 3 * (4 + 4)
    assert found.to_dict()["up"] == {"bytes": 24, "exact": True}


def test_explain_counts_the_slices_that_a_client_asks_for():
    row = fedcore.TensorType(tf.float32, [4])
    table, keys = fedcore.TensorType(tf.float32, [10, 4]), (tf.int32, [3])
    pick = fedcore.tf_computation(lambda t, k: tf.gather(t, k), table, tf.int32)
    add = fedcore.tf_computation(
        lambda rows: rows.reduce(tf.zeros([4]), lambda a, b: a + b),
        fedcore.SequenceType(row),
    )

    @fedcore.federated_computation(
        fedcore.type_at_clients(keys), fedcore.type_at_server(table)
    )
    def selected(keys, table):
        most = fedcore.federated_value(10, fedcore.SERVER)
        rows = fedcore.federated_select(keys, most, table, pick)
        return fedcore.federated_sum(fedcore.federated_map(add, rows))

    step = fedsim.explain(selected, clients=2).steps[0]
    assert step.down.bytes == 3 * 16
    assert step.up.bytes == 3 * 4 + 16


@pytest.mark.parametrize("options", [{"clients": 0}, {}])
def test_explain_of_no_clients(options):
    found = fedsim.explain(variance, *([] if options else [[]]), **options)
    assert found.clients == 0
    assert found.steps[0].road == "none: there are no clients"
    assert json.dumps(found.to_dict())


@fedcore.federated_computation(
    fedcore.type_at_server((tf.float32, [None])), fedcore.type_at_clients(tf.float32)
)
def shifted(vector, x):
    add = fedcore.tf_computation(lambda v, x: tf.reduce_sum(v) + x)
    sent = fedcore.federated_broadcast(vector)
    return fedcore.federated_sum(fedcore.federated_map(add, (sent, x)))


def test_explain_takes_types_for_arguments():
    unknown = fedsim.explain(shifted, clients=3)
    assert not unknown.steps[0].down.known
    assert "down   of unknown size: pass arguments, or their types" in repr(unknown)
    sizes = tf.TensorSpec([5], tf.float32), tf.TensorSpec([], tf.float32)
    assert fedsim.explain(shifted, *sizes, clients=3).steps[0].down.bytes == 20
    by_name = fedsim.explain(shifted, vector=sizes[0], x=sizes[1], clients=3)
    assert by_name.steps[0].down.exact
    values = fedsim.explain(shifted, np.ones(5, np.float32), [1.0, 2.0])
    assert values.steps[0].down.bytes == 20
    with pytest.raises(TypeError, match=r"`float32\[5,2\]` is not assignable"):
        fedsim.explain(shifted, tf.TensorSpec([5, 2]), sizes[1], clients=3)
    with pytest.raises(TypeError, match="needs types of the shape of"):
        fedsim.explain(shifted, fedcore.to_type([tf.float32]))
    with pytest.raises(TypeError, match="needs values for all arguments, or types"):
        fedsim.explain(shifted, sizes[0], [1.0])


def test_explain_of_a_computation_without_types_takes_them():
    @fedcore.tf_computation
    def doubled(x):
        return 2 * x

    found = fedsim.explain(doubled, tf.TensorSpec([3], tf.float32))
    assert found.type_signature == "(float32[3] -> float32[3])"
    with pytest.raises(TypeError, match="found `doubled`, whose parameters have no"):
        fedsim.explain(doubled)


def test_explain_tells_the_size_of_the_data(averaging):
    process, state, cohort = averaging
    stored = 4 * (28 * 28 + 1)
    counted = sum(client.num_examples for client in cohort)
    assert fedsim.explain(process.next, state, cohort).data.bytes == counted * stored
    guess = fedsim.explain(process.next, clients=10, examples=50)
    assert guess.data.bytes == 10 * 50 * 4 * (784 + 1)
    assert not fedsim.explain(process.next, clients=10).data.known
    lists = fedsim.explain(a_round, CLIENTS, 2.0)
    assert lists.data.bytes == 4 * 6
    assert "8 B a client on average, 24 B in all" in repr(lists)


def test_explain_says_what_to_pass_in_place_of_something_else(averaging):
    process, _, _ = averaging
    for wrong, advice in (
        (process, "`process.next` or `process.initialize`"),
        (
            test_explain_of_no_clients,
            "Decorate it with `fedcore.federated_computation`",
        ),
        (3, "Pass what `fedcore.federated_computation` or"),
    ):
        for look in (fedsim.explain, fedsim.record):
            with pytest.raises(TypeError, match="needs a traced computation") as caught:
                look(wrong)
            assert advice in str(caught.value)


def test_explain_checks_its_numbers():
    with pytest.raises(ValueError, match="`clients` to be 0 or more, found -1"):
        fedsim.explain(variance, clients=-1)
    with pytest.raises(ValueError, match="`examples` to be 0 or more, found -5"):
        fedsim.explain(variance, examples=-5)
    with pytest.raises(ValueError, match="which is 2, found 5"):
        fedsim.explain(variance, [1.0, 2.0], clients=5)
    with pytest.raises(TypeError, match=r"needs an int at `clients`, found 1\.5"):
        fedsim.explain(variance, clients=1.5)
    with pytest.raises(TypeError, match="by name: `clients=10`"):
        fedsim.explain(a_round, 10)


def test_explain_under_a_context_that_interprets(averaging):
    process, state, cohort = averaging
    with fedcore.context.use(fedsim.reference_context()):
        found = fedsim.explain(process.next, state, cohort)
    step = found.steps[0]
    assert step.road.startswith("none: a `ReferenceContext` interprets")
    assert step.memory is None
    assert " of memory" not in repr(found)


def test_explain_says_why_xla_compiles(averaging):
    process, state, cohort = averaging
    with fedcore.context.use(fedsim.local_context(seed=1)):
        process.next(state, cohort)
        found = fedsim.explain(process.next, state, cohort)
    step = found.steps[0]
    assert "every operation is fit for XLA" in step.why
    assert step.programs >= step.programs_by_xla >= 1
    assert "by XLA" in repr(found)


def test_explain_knows_that_sizes_may_be_open():
    ones = fedcore.tf_computation(lambda n: tf.ones([n]), tf.int32)

    @fedcore.federated_computation(fedcore.type_at_clients(tf.int32))
    def run(n):
        return fedcore.federated_map(ones, n), fedcore.federated_sum(n)

    step = fedsim.explain(run, clients=2).steps
    memory = next(s.memory for s in step if s.place == "clients")
    assert not memory.exact


def test_debug_runs_python_with_values():
    seen.clear()
    with fedsim.debug():
        total, _ = a_round(CLIENTS, 2.0)
    assert total == 2 * (3 + 3 + 15)
    assert [float(x.numpy()) for x in seen] == [3.0, 3.0, 15.0]
    assert not tf.config.functions_run_eagerly()


def test_debug_goes_into_functions_and_computations_inside():
    values = []

    @tf.function
    def inner(x):
        values.append(x)
        return x + 1

    @fedcore.tf_computation(tf.int32)
    def double(x):
        values.append(x)
        return x * 2

    outer = fedcore.tf_computation(lambda x: double(inner(x)), tf.int32)
    values.clear()
    with fedsim.debug():
        assert outer(3) == 8
    assert [int(value) for value in values] == [3, 4]


def test_debug_stops_at_breakpoints(monkeypatch):
    stopped = []

    def look():
        frame = sys._getframe(1)
        stopped.append((frame.f_code.co_name, frame.f_locals["doubled"]))

    monkeypatch.setattr(sys, "breakpointhook", look)

    @fedcore.tf_computation(tf.float32)
    def twice(x):
        doubled = 2 * x
        breakpoint()
        return doubled

    run = fedcore.federated_computation(
        lambda xs: fedcore.federated_map(twice, xs), fedcore.type_at_clients(tf.float32)
    )
    stopped.clear()  # it stops once when it is traced, too
    with fedsim.debug():
        assert run([1.0, 2.0]) == [2.0, 4.0]
    assert [(name, float(x.numpy())) for name, x in stopped] == [
        ("twice", 2.0),
        ("twice", 4.0),
    ]


def test_debug_nests_and_restores_what_was_before(monkeypatch):
    eager = tf.config.functions_run_eagerly
    with fedsim.debug():
        with pytest.raises(KeyError), fedsim.debug():
            raise KeyError("x")
        assert eager()
        assert a_round(CLIENTS, 1.0)[0] == 21.0
    assert not eager()
    tf.config.run_functions_eagerly(True)
    try:
        with fedsim.debug():
            pass
        assert eager()
    finally:
        tf.config.run_functions_eagerly(False)


def test_debug_runs_models_with_optimizers_and_metrics():
    seen_losses = []

    @fedcore.tf_computation(fedcore.TensorType(tf.float32, [None, 2]))
    def one_step(x):
        model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
        optimizer, mean = keras.optimizers.SGD(0.1), keras.metrics.Mean()
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(model(x, training=True) ** 2)
        mean.update_state(loss)
        variables = model.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))
        if tf.executing_eagerly():
            seen_losses.append(loss.numpy())
        return mean.result(), [v.value for v in variables]

    with fedsim.debug(seed=1):
        mean, weights = one_step(np.ones([3, 2], np.float32))
    assert seen_losses == [pytest.approx(mean)]
    assert [w.shape for w in weights] == [(2, 1), (1,)]


class HandWritten(fedlearn.Model):
    """A line through the origin; it keeps what its loss was, to be looked at."""

    losses: list = []

    def __init__(self):
        self.slope = tf.Variable(tf.zeros([1, 1]))
        self.batches = tf.Variable(0.0, trainable=False)

    trainable_variables = property(lambda self: [self.slope])
    non_trainable_variables = property(lambda self: [])
    local_variables = property(lambda self: [self.batches])
    input_spec = property(
        lambda self: collections.OrderedDict(
            x=tf.TensorSpec([None, 1]), y=tf.TensorSpec([None, 1])
        )
    )

    @tf.function
    def predict_on_batch(self, batch_input, training=True):
        return batch_input @ self.slope

    @tf.function
    def forward_pass(self, batch_input, training=True):
        predictions = self.predict_on_batch(batch_input["x"])
        loss = tf.reduce_mean((predictions - batch_input["y"]) ** 2)
        self.batches.assign_add(1.0)
        if tf.executing_eagerly():
            self.losses.append(float(loss.numpy()))
        return fedlearn.BatchOutput(loss, predictions, tf.shape(batch_input["x"])[0])

    @tf.function
    def report_local_unfinalized_metrics(self):
        return collections.OrderedDict(batches=[self.batches.read_value()])

    def metric_finalizers(self):
        return collections.OrderedDict(batches=lambda values: values[0])

    def reset_metrics(self):
        self.batches.assign(0.0)


def test_debug_goes_into_a_model_of_the_users_own():
    process = fedlearn.algorithms.build_weighted_fed_avg(
        HandWritten, client_optimizer_fn=lambda: keras.optimizers.SGD(0.1)
    )
    batch = collections.OrderedDict(
        x=np.ones([2, 1], np.float32), y=np.ones([2, 1], np.float32)
    )
    data = [[batch, batch], [batch]]
    fast = process.next(process.initialize(), data)
    HandWritten.losses.clear()
    with fedsim.debug():
        slow = process.next(process.initialize(), data)
    assert HandWritten.losses == pytest.approx([1.0, 0.64, 1.0])
    for a, b in zip(
        fast.state.global_model_weights.trainable,
        slow.state.global_model_weights.trainable,
    ):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_debug_shows_the_users_own_line():
    with fedsim.debug(), pytest.raises(fedsim.runtime.ClientError) as caught:
        a_round([[1.0], [99.0, 2.0]], 1.0)
    assert "Client 1 of 2 failed in `federated_map`" in str(caught.value)
    assert "in scaled_sum" in str(caught.value)
    assert "tf.debugging.assert_less(total, 100.0)" in str(caught.value)
    assert caught.value.client == 1


def test_debug_trains_as_the_fast_runtime_does(averaging):
    process, state, cohort = averaging
    fast = process.next(state, cohort)
    with fedsim.debug():
        slow = process.next(state, cohort)
    weights = zip(
        fast.state.global_model_weights.trainable,
        slow.state.global_model_weights.trainable,
    )
    for a, b in weights:
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_debug_ends_when_the_block_raises():
    with pytest.raises(KeyError), fedsim.debug():
        raise KeyError("x")
    assert not tf.config.functions_run_eagerly()
    assert not isinstance(
        fedcore.context.get_context_stack().current, fedsim.runtime.ReferenceContext
    )


def test_debug_with_a_seed_draws_the_same_again():
    results = []
    for _ in range(2):
        with fedsim.debug(seed=3):
            results.append(a_round(CLIENTS, 2.0)[1])
    np.testing.assert_array_equal(*results)


def test_record_keeps_what_chosen_clients_had_and_made():
    recording = fedsim.record(a_round, clients=[2], seed=5)
    total, mean = recording(CLIENTS, 2.0)
    assert total == 42.0
    assert mean.shape == (20,)
    assert {step.client for step in recording.steps} == {2}
    first = recording.client(2)[0]
    assert (first.operator, first.function) == ("federated_map", "scaled_sum")
    assert list(first.input[0].as_numpy_iterator()) == [4.0, 5.0, 6.0]
    assert (first.input[1], first.output) == (2.0, 30.0)
    sends = [s.operator for s in recording.steps if s.output_type is None]
    assert sends == ["federated_sum", "federated_mean"]
    assert "client 2: federated_map of scaled_sum" in repr(recording)


def test_replay_of_a_client_gives_the_same_bits():
    recording = fedsim.record(a_round, clients=[0, 1], seed=5)
    recording(CLIENTS, 2.0)
    before, after = recording.client(1), recording.replay(1)
    drawn = [step.output for step in before if step.function == "noise"]
    assert len(drawn) == 1
    assert len(np.unique(drawn[0])) == 2  # dropped, or not
    for old, new in zip(before, after):
        np.testing.assert_array_equal(old.output, new.output)


@pytest.fixture(scope="module")
def drawing():
    """A process with dropout, over datasets that are shuffled without a seed."""
    train, _ = fedsim.datasets.emnist.load_synthetic(num_writers=3)

    def preprocess(dataset):
        def flatten(batch):
            return collections.OrderedDict(
                x=tf.reshape(batch["pixels"], [-1, 784]),
                y=tf.reshape(batch["label"], [-1, 1]),
            )

        return dataset.shuffle(100).repeat(2).batch(20).map(flatten)

    cohort = train.preprocess(preprocess).clients(train.client_ids)

    def model_fn():
        layers = [
            keras.layers.Input((784,)),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(10, "softmax"),
        ]
        return fedlearn.models.from_keras_model(
            keras.Sequential(layers),
            input_spec=cohort[0].element_spec,
            loss=keras.losses.SparseCategoricalCrossentropy(),
        )

    process = fedlearn.algorithms.build_weighted_fed_avg(
        model_fn, client_optimizer_fn=lambda: keras.optimizers.SGD(0.002)
    )
    with fedcore.context.use(fedsim.local_context(seed=1)):
        return process, process.initialize(), cohort


def assert_same_bits(some, others):
    for a, b in zip(tf.nest.flatten(some), tf.nest.flatten(others), strict=True):
        np.testing.assert_array_equal(a, b)


def test_replay_repeats_shuffles_and_dropout(drawing):
    process, state, cohort = drawing
    recording = fedsim.record(process.next, clients=[0, 2], seed=7)
    recording(state, cohort)
    before = recording.client(2)[0].output
    assert_same_bits(before, recording.replay(2)[0].output)
    alone = fedsim.record(process.next, clients=[2], seed=7)
    alone(state, cohort)
    assert_same_bits(before, alone.client(2)[0].output)
    other = fedsim.record(process.next, clients=[2], seed=8)
    other(state, cohort)
    with pytest.raises(AssertionError):
        assert_same_bits(before, other.client(2)[0].output)


def test_a_recorded_call_is_the_fast_runtimes_of_that_seed(drawing):
    process, state, cohort = drawing
    recorded = fedsim.record(process.next, clients=[], seed=7)(state, cohort)
    with fedcore.context.use(fedsim.local_context(seed=7)):
        fast = process.next(state, cohort)
    for a, b in zip(
        recorded.state.global_model_weights.trainable,
        fast.state.global_model_weights.trainable,
    ):
        np.testing.assert_allclose(a, b, atol=1e-5)
    for name, value in recorded.metrics["client_work"]["train"].items():
        np.testing.assert_allclose(
            value, fast.metrics["client_work"]["train"][name], rtol=1e-5
        )


@fedcore.tf_computation(fedcore.SequenceType(tf.float32))
def in_what_order(xs):
    total, weight = 0.0, 1.0
    for x in xs:
        total, weight = total + weight * x, weight + 1.0
    return total


@fedcore.federated_computation(DATA)
def two_passes(data):
    return (
        fedcore.federated_map(in_what_order, data),
        fedcore.federated_map(in_what_order, data),
    )


@pytest.mark.parametrize(
    "form",
    [
        lambda d: d.shuffle(50).map(lambda e: tf.cast(e["label"], tf.float32)),
        lambda d: d.map(lambda e: tf.cast(e["label"], tf.float32)).shuffle(50),
        lambda d: (
            d.map(lambda e: tf.cast(e["label"], tf.float32))
            .shuffle(50)
            .batch(3, drop_remainder=True)
            .map(tf.reduce_sum)
        ),
    ],
    ids=["rows", "mapped rows", "batches"],
)
def test_each_map_sees_a_clients_dataset_from_its_first_pass(form):
    train, _ = fedsim.datasets.emnist.load_synthetic(num_writers=2)
    data = [form(client) for client in train.clients(train.client_ids)]
    recording = fedsim.record(two_passes, seed=3)
    first, second = recording(data)
    assert first == second
    with fedsim.debug(seed=3):
        assert two_passes(data)[0] == pytest.approx(first)
    for client in (0, 1):
        seen = recording.client(client)[0].input
        weighted = sum(i * x for i, x in enumerate(seen.as_numpy_iterator(), 1))
        assert float(weighted) == pytest.approx(float(first[client]))
        assert recording.replay(client)[0].output == first[client]


def test_replay_in_debug_mode_runs_python():
    recording = fedsim.record(a_round, clients=[1])
    recording(CLIENTS, 2.0)
    seen.clear()
    with fedsim.debug():
        recording.replay(1)
    assert [float(x.numpy()) for x in seen] == [3.0]


def test_recording_of_a_call_that_failed_has_the_failure():
    recording = fedsim.record(a_round)
    with pytest.raises(fedsim.runtime.ClientError):
        recording([[1.0], [99.0, 2.0]], 1.0)
    last = recording.steps[-1]
    assert last.client == 1
    assert isinstance(last.error, tf.errors.InvalidArgumentError)
    assert "InvalidArgumentError" in repr(last)
    with fedsim.debug(), pytest.raises(tf.errors.InvalidArgumentError):
        recording.replay(1)


def test_recording_finds_what_is_not_finite():
    recording = fedsim.record(a_round)
    recording([[1.0], [float("-inf")], [2.0]], 1.0)
    where = recording.not_finite()
    assert where[0] == (1, "federated_map", "output")
    assert {client for client, _, _ in where} == {1}


def test_record_says_how_it_is_used():
    recording = fedsim.record(a_round, clients=[7])
    assert "not called yet" in repr(recording)
    with pytest.raises(ValueError, match="Nothing is recorded yet"):
        recording.steps
    with pytest.raises(
        ValueError, match="needs clients of the call, which has 3, found 7"
    ):
        recording(CLIENTS, 1.0)
    recording = fedsim.record(a_round, clients=[0])
    recording(CLIENTS, 1.0)
    with pytest.raises(ValueError, match="Client 2 was not recorded"):
        recording.replay(2)
    with pytest.raises(TypeError, match=r"For one client pass `clients=\[3\]`"):
        fedsim.record(a_round, clients=3)
    with pytest.raises(TypeError, match="needs indices at `clients`, found 'writer'"):
        fedsim.record(a_round, clients=["writer"])
    alone = fedsim.record(noise)
    alone(1.0)
    assert repr(alone) == "<recording of noise: no client took part>"
    with pytest.raises(TypeError, match="`record` needs a traced computation"):
        fedsim.record(3)
