"""Variables, AutoGraph, inner functions and constants, as in eager execution."""

import collections

import numpy as np
import tensorflow as tf

F32 = tf.TensorSpec([], tf.float32)
I32 = tf.TensorSpec([], tf.int32)
STRINGS = tf.TensorSpec([3], tf.string)


def test_a_tiny_function(agrees):
    agrees(lambda x: x + 1.0, [F32], [1.0])


def test_assigns_run_in_order_without_a_tf_function(agrees):
    def fn(x):
        v = tf.Variable(lambda: tf.zeros([]), name="a")
        w = tf.Variable(x * 2, name="a")
        v.assign_add(x)
        w.assign_add(v)
        return collections.OrderedDict(v=v, w=w)

    agrees(fn, [F32], [3.0])


def test_if_for_and_while_over_tensors(agrees):
    def fn(x):
        v = tf.Variable(0.0)
        if x > 1.0:
            v.assign(5.0)
        for _ in tf.range(3):
            v.assign_add(x)
        while v < 20.0:
            v.assign_add(4.0)
        return v

    agrees(fn, [F32], [2.0])


def test_a_variable_of_a_tensor_made_in_a_loop_is_new_each_time(agrees):
    def fn(n):
        total = tf.Variable(0.0)
        for i in tf.range(n):
            t = tf.Variable(tf.cast(i, tf.float32))
            t.assign_add(1.0)
            total.assign_add(t)
        return total

    agrees(fn, [I32], [4], expected=np.float32(10.0))


def test_an_inner_function_that_makes_its_variable_once(agrees):
    class Counter:
        def __init__(self):
            self.v = None

        @tf.function
        def __call__(self, x):
            if self.v is None:
                self.v = tf.Variable(lambda: tf.ones([]))
            return self.v.assign_add(x)

    def fn(x):
        counter = Counter()
        counter(x)
        counter(x)
        return counter(x)

    agrees(fn, [F32], [2.0])


def test_an_inner_function_whose_variable_starts_from_its_argument(agrees):
    def fn(x):
        class Holder:
            v = None

        @tf.function
        def count(y):
            if Holder.v is None:
                Holder.v = tf.Variable(y * 1.0)
            return Holder.v.assign_add(1.0)

        count(x)
        count(x)
        return count(x)

    agrees(fn, [F32], [2.0], expected=np.float32(5.0))


_BIG = tf.constant(np.ones((100, 100), np.float32))
_SMALL = tf.constant(2.0)


def test_eager_tensors_that_are_closed_over_become_constants(agrees):
    agrees(lambda x: x + _BIG[0, 0] + _SMALL, [F32], [1.0])


def test_a_tensor_compares_by_value_in_python_code(agrees):
    def fn(x):
        if x == 2.0:
            r = 10.0
        else:
            r = 20.0
        return r, tf.cast(x == 2.0, tf.int32)

    agrees(fn, [F32], [2.0])


@tf.function
def _times_three(x):
    return x * 3.0


def test_a_tf_function_of_the_module_is_used_by_two_computations(agrees):
    agrees(lambda x: _times_three(x) + 1.0, [F32], [2.0])
    agrees(lambda x: _times_three(x) + 2.0, [F32], [2.0])


def test_a_tf_function_is_traced_itself(agrees):
    agrees(_times_three, [F32], [2.0])


def test_lookup_tables(agrees):
    def fn(s):
        ints = tf.constant([1, 2], tf.int64)
        initializer = tf.lookup.KeyValueTensorInitializer(["a", "b"], ints)
        static = tf.lookup.StaticHashTable(initializer, -1)
        initializer = tf.lookup.KeyValueTensorInitializer(["a", "b"], ints - 1)
        vocabulary = tf.lookup.StaticVocabularyTable(initializer, 2)
        mutable = tf.lookup.experimental.MutableHashTable(tf.string, tf.int64, -5)
        mutable.insert(s, tf.constant([7, 8, 9], tf.int64))
        return (
            static.lookup(s),
            vocabulary.lookup(s),
            mutable.lookup(s),
            static.size(),
        )

    agrees(fn, [STRINGS], [tf.constant(["a", "b", "zz"])])


def test_a_keras_string_lookup(agrees):
    def fn(s):
        return tf.keras.layers.StringLookup(vocabulary=["a", "b"])(s)

    agrees(fn, [STRINGS], [tf.constant(["a", "b", "zz"])])


def test_a_random_generator_made_inside(agrees):
    def fn(x):
        generator = tf.random.Generator.from_seed(3)
        return generator.normal([2]) + x, generator.normal([2])

    agrees(fn, [F32], [0.0])


def test_state_does_not_survive_a_run(traced):
    def count():
        return tf.Variable(0).assign_add(1)

    computation = traced(count)
    assert [int(computation()) for _ in range(3)] == [1, 1, 1]


def test_a_numpy_function_of_constants_stays_python(agrees):
    agrees(lambda x: x * np.float32(np.sqrt(4.0)), [F32], [1.5])
