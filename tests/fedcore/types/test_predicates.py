import pytest
import strategies
from hypothesis import given

from fedcore.types import (
    contains,
    contains_only,
    count,
    is_structure_of_floats,
    is_structure_of_integers,
    is_structure_of_tensors,
    is_tensorflow_compatible_type,
    parse,
)
from fedcore.types._predicates import (
    average_breach,
    is_average_compatible,
    is_min_max_compatible,
    is_sum_compatible,
    min_max_breach,
    sum_breach,
)

#  type, only floats, only integers, only tensors, fit for TensorFlow
ANSWERS = [
    ("int32", False, True, True, True),
    ("float32", True, False, True, True),
    ("bfloat16[2]", True, False, True, True),
    ("bool", False, False, True, True),
    ("complex64", False, False, True, True),
    ("qint8", False, False, True, True),
    ("string", False, False, True, True),
    ("<a=int32,b=<int64>>", False, True, True, True),
    ("<a=int32,b=float32>", False, False, True, True),
    ("<>", True, True, True, True),
    ("float32*", False, False, False, True),
    ("<float32*>", False, False, False, True),
    ("{float32}@CLIENTS", True, False, False, False),
    ("{<int32>}@CLIENTS", False, True, False, False),
    ("( -> float32)", False, False, False, False),
    ("T", False, False, False, False),
    ("placement", False, False, False, False),
]


@pytest.mark.parametrize(
    ("text", "floats", "integers", "tensors", "tensorflow"), ANSWERS
)
def test_predicates(text, floats, integers, tensors, tensorflow):
    type_spec = parse(text)
    assert is_structure_of_floats(type_spec) is floats
    assert is_structure_of_integers(type_spec) is integers
    assert is_structure_of_tensors(type_spec) is tensors
    assert is_tensorflow_compatible_type(type_spec) is tensorflow


def test_no_parameter_is_fit_for_tensorflow():
    assert is_tensorflow_compatible_type(None)


@pytest.mark.parametrize(
    "predicate", [is_structure_of_floats, is_structure_of_integers]
)
def test_predicates_need_a_type(predicate):
    with pytest.raises(
        TypeError, match=f"`{predicate.__name__}` needs a type, found None"
    ):
        predicate(None)


def test_contains_and_count_look_everywhere():
    type_spec = parse("(<a=int32,b={bool*}@CLIENTS> -> int32)")
    assert contains(type_spec, lambda t: t.is_sequence())
    assert contains(type_spec, lambda t: t.is_function())
    assert not contains(type_spec, lambda t: t.is_abstract())
    assert count(type_spec, lambda t: t.is_tensor()) == 3
    assert not contains_only(type_spec, lambda t: t.is_tensor())
    assert contains_only(parse("<int32>"), lambda t: t.is_tensor() or t.is_struct())


@given(strategies.types(abstract=True))
def test_contains_and_contains_only_agree_with_count(type_spec):
    def is_tensor(part):
        return part.is_tensor()

    total = count(type_spec, lambda _: True)
    assert contains(type_spec, is_tensor) is (count(type_spec, is_tensor) > 0)
    assert contains_only(type_spec, is_tensor) is (count(type_spec, is_tensor) == total)


#  type, path, and why it cannot be summed, averaged, compared (empty: it can)
NOT_FLOAT = "is neither floating nor complex"
NOT_ORDERED = "is neither an integer nor floating"
UNKNOWN_SHAPE = "has a shape that is not wholly known"
BREACHES = [
    ("float32", "", "", "", ""),
    ("{<float32[2]>}@CLIENTS", "", "", "", ""),
    ("<>", "", "", "", ""),
    ("int32", "", "", NOT_FLOAT, ""),
    ("complex64", "", "", "", NOT_ORDERED),
    ("bool", "", "is not numeric", NOT_FLOAT, NOT_ORDERED),
    ("<a=<float32,b=string>>", "a.b", "is not numeric", NOT_FLOAT, NOT_ORDERED),
    ("<float32,<bool>>", "[1][0]", "is not numeric", NOT_FLOAT, NOT_ORDERED),
    ("<a=float32[?]>", "a", UNKNOWN_SHAPE, "", UNKNOWN_SHAPE),
    ("{<x=float32*>}@CLIENTS", "x", *["is not a tensor"] * 3),
]


@pytest.mark.parametrize(("text", "path", "no_sum", "no_average", "no_order"), BREACHES)
def test_operators_name_the_leaf_they_cannot_take(
    text, path, no_sum, no_average, no_order
):
    type_spec = parse(text)
    for breach_of, fits, reason in (
        (sum_breach, is_sum_compatible, no_sum),
        (average_breach, is_average_compatible, no_average),
        (min_max_breach, is_min_max_compatible, no_order),
    ):
        breach = breach_of(type_spec)
        assert fits(type_spec) is (reason == "")
        assert ("" if breach is None else breach.reason) == reason
        if breach is not None:
            assert breach.path == path
            assert contains(type_spec, lambda t, leaf=breach.leaf: t is leaf)
