import collections
import pickle

import pytest
import strategies
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from fedcore.types import (
    AbstractType,
    FunctionType,
    PlacementType,
    SequenceType,
    StructType,
    TensorType,
    TypeNotAssignableError,
    TypeRelation,
    TypesNotEquivalentError,
    TypesNotIdenticalError,
    at_clients,
    at_server,
    parse,
    to_type,
    type_mismatch_error_message,
)

INT, FLOAT = TensorType(tf.int32), TensorType(tf.float32)
UNKNOWN_RANK, ANY, THREE = (
    TensorType(tf.int32, shape) for shape in (tf.TensorShape(None), [None], [3])
)
ODICT = to_type(collections.OrderedDict(a=tf.int32))
NAMED, UNNAMED = StructType([("a", tf.int32)]), StructType([tf.int32])
LIST = to_type([tf.int32])
BIG = to_type(
    collections.OrderedDict((f"name_{k}", (tf.float32, [k])) for k in range(8))
)
OTHER = to_type(
    collections.OrderedDict(
        (f"name_{k}", (tf.float32, [k + (k == 5)])) for k in range(8)
    )
)

ASSIGNABLE = [
    # target, source, and whether the one takes the other.
    (INT, INT, True),
    (INT, FLOAT, False),
    (INT, ANY, False),
    (ANY, THREE, True),
    (THREE, ANY, False),
    (UNKNOWN_RANK, THREE, True),
    (UNKNOWN_RANK, INT, True),
    (ANY, UNKNOWN_RANK, False),
    (TensorType(tf.int32, [None, None]), THREE, False),
    (NAMED, UNNAMED, True),
    (UNNAMED, NAMED, False),
    (ODICT, NAMED, True),
    (NAMED, ODICT, True),
    (ODICT, LIST, True),
    (LIST, ODICT, False),
    (LIST, UNNAMED, True),
    (NAMED, StructType([("b", tf.int32)]), False),
    (NAMED, StructType([]), False),
    (NAMED, INT, False),
    (StructType([ANY]), StructType([THREE]), True),
    (SequenceType(ANY), SequenceType(THREE), True),
    (SequenceType(THREE), SequenceType(ANY), False),
    (SequenceType(INT), INT, False),
    (at_clients(INT), at_clients(INT, all_equal=True), True),
    (at_clients(INT, all_equal=True), at_clients(INT), False),
    (at_clients(INT), at_server(INT), False),
    (at_clients(ANY), at_clients(THREE), True),
    (at_clients(INT), INT, False),
    (FunctionType(THREE, INT), FunctionType(ANY, INT), True),
    (FunctionType(ANY, INT), FunctionType(THREE, INT), False),
    (FunctionType(INT, ANY), FunctionType(INT, THREE), True),
    (FunctionType(INT, THREE), FunctionType(INT, ANY), False),
    (FunctionType(None, INT), FunctionType(INT, INT), False),
    (FunctionType(INT, INT), FunctionType(None, INT), False),
    (PlacementType(), PlacementType(), True),
    (INT, AbstractType("T"), False),
]


@pytest.mark.parametrize(
    ("target", "source", "expected"),
    ASSIGNABLE,
    ids=[f"{t}={s}" for t, s, _ in ASSIGNABLE],
)
def test_assignable(target, source, expected):
    assert target.is_assignable_from(source) is expected
    if expected:
        assert target.check_assignable_from(source) is None
        return
    with pytest.raises(TypeNotAssignableError) as raised:
        target.check_assignable_from(source)
    assert (raised.value.source_type, raised.value.target_type) == (source, target)


def test_structs_with_and_without_container_are_equivalent_but_not_identical():
    assert ODICT.is_equivalent_to(NAMED)
    assert NAMED.is_equivalent_to(ODICT)
    assert LIST.is_equivalent_to(UNNAMED)
    assert not ODICT.is_identical_to(NAMED)
    assert ODICT.is_identical_to(to_type(collections.OrderedDict(a=tf.int32)))
    assert not ODICT.is_equivalent_to(LIST)


@given(strategies.types())
def test_every_relation_is_reflexive(type_spec):
    assert type_spec.is_assignable_from(type_spec)
    assert type_spec.is_equivalent_to(type_spec)
    assert type_spec.is_identical_to(type_spec)


@given(st.data(), strategies.types())
def test_a_more_general_type_takes_the_type_and_so_on(data, type_spec):
    wider = _more_general(type_spec, data.draw)
    widest = _more_general(wider, data.draw)
    assert wider.is_assignable_from(type_spec)
    assert widest.is_assignable_from(wider)
    assert widest.is_assignable_from(type_spec)


def test_assignable_is_transitive():
    table = {t for row in ASSIGNABLE for t in row[:2] if not t.is_abstract()}
    takes = {t: {s for s in table if t.is_assignable_from(s)} for t in table}
    for sources in takes.values():
        for source in sources:
            assert takes[source] <= sources


@given(strategies.types(), strategies.types())
def test_equivalent_is_symmetric_and_means_assignable_both_ways(a, b):
    both = a.is_assignable_from(b) and b.is_assignable_from(a)
    assert a.is_equivalent_to(b) is b.is_equivalent_to(a) is both


@given(strategies.types())
def test_types_of_one_text_are_equivalent(type_spec):
    assert parse(str(type_spec)).is_equivalent_to(type_spec)


def _more_general(type_spec, draw):
    """A type that takes `type_spec`: some dimensions unknown, some values not all-equal."""
    if type_spec.is_tensor():
        if type_spec.shape.rank is None or draw(st.booleans()):
            return TensorType(type_spec.dtype, tf.TensorShape(None))
        dims = [None if draw(st.booleans()) else d for d in type_spec.shape.as_list()]
        return TensorType(type_spec.dtype, dims)
    if type_spec.is_struct():
        names = (name or "abcdefghi"[i] * 9 for i, name in enumerate(_names(type_spec)))
        return StructType(
            [
                (name, _more_general(element, draw))
                for name, element in zip(names, type_spec, strict=True)
            ]
        )
    if type_spec.is_federated():
        all_equal = type_spec.all_equal and draw(st.booleans())
        member = _more_general(type_spec.member, draw)
        return type(type_spec)(member, type_spec.placement, all_equal)
    if type_spec.is_function():
        return FunctionType(type_spec.parameter, _more_general(type_spec.result, draw))
    return type_spec


def _names(struct_type):
    return [name for name, _ in zip(struct_type._names, struct_type, strict=True)]


def test_abstract_types_cannot_be_compared():
    abstract = AbstractType("T")
    for other in (abstract, INT):
        with pytest.raises(TypeError, match="needs concrete types, found the abstract"):
            abstract.is_assignable_from(other)
        with pytest.raises(TypeError, match="needs concrete types"):
            abstract.is_equivalent_to(other)
    assert abstract.is_identical_to(AbstractType("T"))


def test_what_is_no_type_is_neither_assignable_nor_equivalent():
    assert not INT.is_assignable_from(tf.int32)
    assert not INT.is_equivalent_to(tf.int32)
    assert not INT.is_identical_to(tf.int32)
    for check in (
        INT.check_assignable_from,
        INT.check_equivalent_to,
        INT.check_identical_to,
    ):
        with pytest.raises(TypeError, match="needs a type, found 3"):
            check(3)


def test_short_types_stand_in_one_sentence():
    with pytest.raises(TypeNotAssignableError) as raised:
        INT.check_assignable_from(FLOAT)
    assert str(raised.value) == (
        "Type `float32` is not assignable to type `int32`\n"
        "Cast it with `tf.cast(value, tf.int32)`."
    )
    with pytest.raises(TypesNotEquivalentError) as raised:
        INT.check_equivalent_to(FLOAT)
    assert str(raised.value) == "Type `int32` is not equivalent to type `float32`"
    with pytest.raises(TypesNotIdenticalError) as raised:
        INT.check_identical_to(FLOAT)
    assert str(raised.value) == "Type `int32` is not identical to type `float32`"
    expected = type_mismatch_error_message(INT, FLOAT, TypeRelation.EQUIVALENT, True)
    assert expected == "Type `int32` is not equivalent to expected type `float32`"


DIFFERENCES = [
    # target, source, and the line that says where they part.
    (
        "<a=<int32,b=float32>>",
        "<a=<int32,b=bool>>",
        "`a.b`: wanted `float32`, found `bool`",
    ),
    ("<int32,<int32>>", "<int32,<bool>>", "`[1][0]`: wanted `int32`, found `bool`"),
    (
        "<a=<int32>>",
        "<a=<int32,int32>>",
        "`a`: wanted 1 element `<int32>`, found 2 elements `<int32,int32>`",
    ),
    (
        "<int32>",
        "<int32,int32>",
        "the top: wanted 1 element `<int32>`, found 2 elements `<int32,int32>`",
    ),
    ("<a=int32>", "<b=int32>", "`[0]`: wanted a name `a`, found the name `b`"),
    ("<int32>", "<b=int32>", "`[0]`: wanted no name, found the name `b`"),
    (
        "(<x=int32> -> bool)",
        "(<x=float32> -> bool)",
        "`parameter.x`: wanted `int32`, found `float32`",
    ),
    (
        "(int32 -> <x=bool>)",
        "(int32 -> <x=int32>)",
        "`result.x`: wanted `bool`, found `int32`",
    ),
    (
        "(int32 -> bool)",
        "( -> bool)",
        "`parameter`: wanted `int32`, found no parameter",
    ),
    ("<a=int32*>", "<a=bool*>", "`a.element`: wanted `int32`, found `bool`"),
    (
        "<s={<w=int32>}@CLIENTS>",
        "<s={<w=bool>}@CLIENTS>",
        "`s.w`: wanted `int32`, found `bool`",
    ),
    (
        "<s=int32@SERVER>",
        "<s={int32}@CLIENTS>",
        "`s`: wanted `int32@SERVER`, found `{int32}@CLIENTS`",
    ),
]


@pytest.mark.parametrize(("target", "source", "line"), DIFFERENCES)
def test_the_first_difference_is_named(target, source, line):
    with pytest.raises(TypeNotAssignableError) as raised:
        parse(target).check_assignable_from(parse(source))
    assert f"\nThey first differ at {line}." in str(raised.value)


@pytest.mark.parametrize(
    ("target", "source", "advice"),
    [
        ("<a=int32>", "<a=int64>", "Cast it with `tf.cast(value, tf.int32)`."),
        ("float32[?,784]*", "float32[784]*", "Is a `batch` missing?"),
        ("float32[784]*", "float32[?,784]*", "Is it batched once too often?"),
        ("float32[?,784]*", "float32[?,28]*", "Reshape it with `tf.reshape`."),
        ("<x=int32,y=int32>", "<y=int32,x=int32>", "The names are the same"),
        ("<x=int32>", "<z=int32>", "Give the elements the names of the type."),
        ("int32@SERVER", "int32", "`federated_value(value, fedcore.SERVER)`"),
        ("{<int32>}@CLIENTS", "<{int32}@CLIENTS>", "with `federated_zip`"),
        ("{int32}@CLIENTS", "int32@SERVER", "with `federated_broadcast`"),
        ("int32@SERVER", "{int32}@CLIENTS", "with an aggregation"),
        ("int32", "{int32}@CLIENTS", "with `federated_map(fn, value)`"),
        ("int32*", "int32", "Pass a dataset, or a list of elements."),
    ],
)
def test_the_likely_remedy_is_named(target, source, advice):
    with pytest.raises(TypeNotAssignableError) as raised:
        parse(target).check_assignable_from(parse(source))
    assert advice in str(raised.value).splitlines()[-1]


@pytest.mark.parametrize(
    ("first", "second"),
    [("<a=int32[?]>", "<a=int32[3]>"), ("<a=int32[3]>", "<a=int32[?]>")],
)
def test_the_first_difference_of_types_that_are_not_equivalent(first, second):
    with pytest.raises(TypesNotEquivalentError) as raised:
        parse(first).check_equivalent_to(parse(second))
    assert str(raised.value).endswith(
        f"\nThey first differ at `a`: `{first[3:-1]}` in the first, `{second[3:-1]}` in "
        "the second."
    )


def test_of_long_types_the_difference_alone_is_shown():
    with pytest.raises(TypeNotAssignableError) as raised:
        BIG.check_assignable_from(OTHER)
    message = str(raised.value)
    assert message.startswith(
        "A type is not assignable to another type.\n"
        "They first differ at `name_5`: wanted `float32[5]`, found `float32[6]`.\n"
        "Reshape it with `tf.reshape`.\n"
    )
    assert "\nDiff (- what came, + what was wanted):\n@@ " in message
    assert "\n-  name_5=float32[6],\n+  name_5=float32[5],\n" in message
    assert "name_0" not in message


def test_a_long_difference_is_counted():
    few, many = StructType([INT]), StructType([INT] * 30)
    with pytest.raises(TypeNotAssignableError) as raised:
        StructType([("a", few)]).check_assignable_from(StructType([("a", many)]))
    assert "wanted 1 element `<int32>`, found 30 elements." in str(raised.value)


def test_types_that_differ_in_their_containers_only_show_them():
    with pytest.raises(TypesNotIdenticalError) as raised:
        ODICT.check_identical_to(NAMED)
    assert str(raised.value) == (
        "Type `StructType([('a', TensorType(tf.int32))]) as OrderedDict` is not identical "
        "to type `StructType([('a', TensorType(tf.int32))])`"
    )
    nested = [to_type([("b", c), ("c", INT)]) for c in ([tf.int32], (tf.int32,))]
    with pytest.raises(TypesNotIdenticalError) as raised:
        nested[0].check_identical_to(nested[1])
    assert (
        "at `b`: `<int32>` as list in the first, `<int32>` as tuple in the second"
        in str(raised.value)
    )


@given(strategies.types(), strategies.types())
def test_messages_can_be_made_for_any_two_types(a, b):
    for relation in TypeRelation:
        message = type_mismatch_error_message(a, b, relation)
        assert f"ype is not {relation.value}" in message or message.startswith("Type")


@pytest.mark.parametrize(
    "error", [TypeNotAssignableError, TypesNotEquivalentError, TypesNotIdenticalError]
)
def test_errors_can_be_pickled(error):
    assert str(pickle.loads(pickle.dumps(error(INT, FLOAT)))) == str(error(INT, FLOAT))
