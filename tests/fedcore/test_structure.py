import collections
import copy
import dataclasses
import pickle
import typing

import attrs
import numpy as np
import pytest
import strategies
from hypothesis import given

from fedcore import structure
from fedcore.structure import Struct


class Point(typing.NamedTuple):
    x: object
    y: object


@attrs.frozen
class Attrs:
    x: object
    _y: object


@dataclasses.dataclass
class Data:
    x: object
    y: object


MIXED = Struct([("a", 1), (None, 2), ("b", Struct([("c", 3)]))])
NAMED = Struct([("a", 1), ("b", Struct([("c", 2)]))])


def test_elements_are_reached_by_position_slice_and_name():
    assert (MIXED.a, MIXED["a"], MIXED[0], MIXED[np.int64(1)]) == (1, 1, 1, 2)
    assert MIXED.b.c == 3
    assert MIXED[0:2] == (1, 2)
    assert list(MIXED) == [1, 2, MIXED.b]
    assert len(MIXED) == 3
    assert dir(MIXED) == ["a", "b"]


def test_text_shows_names_and_nesting():
    assert str(MIXED) == "<a=1,2,b=<c=3>>"
    assert repr(MIXED) == "Struct([('a', 1), (None, 2), ('b', Struct([('c', 3)]))])"
    assert str(Struct([])) == "<>"


def test_named_and_unnamed_constructors():
    assert Struct.named(a=1, b=2) == Struct([("a", 1), ("b", 2)])
    assert Struct.unnamed(1, 2) == Struct([(None, 1), (None, 2)])


@pytest.mark.parametrize(
    "other",
    [
        Struct([("a", 1)]),
        Struct([("x", 1), (None, 2), ("b", Struct([("c", 3)]))]),
        Struct([("a", 1), (None, 2), ("b", Struct([("c", 4)]))]),
        (1, 2, 3),
        {"a": 1},
    ],
)
def test_equal_means_same_names_and_same_values(other):
    assert other != MIXED
    assert Struct(structure.to_elements(MIXED)) == MIXED
    assert hash(Struct(structure.to_elements(MIXED))) == hash(MIXED)


def test_a_struct_never_equals_a_tuple():
    assert Struct([(None, 1)]) != (1,)


@given(strategies.structs())
def test_copies_and_pickles_are_equal(struct):
    for again in (
        copy.copy(struct),
        copy.deepcopy(struct),
        pickle.loads(pickle.dumps(struct)),
    ):
        assert again == struct


@pytest.mark.parametrize(
    ("elements", "error", "sentence"),
    [
        (None, TypeError, "`Struct` needs an iterable of .* found `NoneType`"),
        ([1, 2], TypeError, "needs .* pairs .*, found 1"),
        ([("a", 1, 2)], TypeError, r"needs .* pairs .*, found \('a', 1, 2\)"),
        ([(3, 1)], TypeError, r"needs .* pairs .*, found \(3, 1\)"),
        ([("a", 1), ("a", 2)], ValueError, r"names that differ, found \['a', 'a'\]"),
        ([("_asdict", 1)], ValueError, "names other than the reserved"),
    ],
)
def test_construction_says_what_it_needs(elements, error, sentence):
    with pytest.raises(error, match=sentence):
        Struct(elements)


@pytest.mark.parametrize(
    ("key", "error", "sentence"),
    [
        ("zz", AttributeError, r"no element named `zz`; its names are \['a', 'b'\]"),
        (5, IndexError, "an index from 0 to 2, found 5"),
        (-1, IndexError, "an index from 0 to 2, found -1"),
        (1.5, TypeError, "an int, a str or a slice, found `float`"),
    ],
)
def test_index_says_what_it_needs(key, error, sentence):
    with pytest.raises(error, match=sentence):
        MIXED[key]


def test_empty_struct_has_no_element():
    with pytest.raises(IndexError, match="An empty `Struct` has no element 0"):
        Struct([])[0]


def test_a_struct_cannot_be_changed():
    with pytest.raises(AttributeError):
        MIXED.a = 2
    with pytest.raises(AttributeError):
        MIXED.other = 2


def test_names():
    assert structure.name_list(MIXED) == ["a", "b"]
    assert structure.name_list_with_nones(MIXED) == ["a", None, "b"]
    assert structure.name_to_index_map(MIXED) == {"a": 0, "b": 2}
    assert structure.has_field(MIXED, "a")
    assert not structure.has_field(MIXED, "z")


@pytest.mark.parametrize(
    "function",
    [
        structure.iter_elements,
        structure.to_elements,
        structure.name_list,
        structure.name_list_with_nones,
        structure.name_to_index_map,
        lambda value: structure.has_field(value, "a"),
        lambda value: structure.is_same_structure(value, MIXED),
        lambda value: structure.is_same_structure(MIXED, value),
        lambda value: structure.map_structure(str, value),
        lambda value: structure.to_container_recursive(value, list),
        structure.to_odict,
    ],
)
def test_functions_on_structs_refuse_anything_else(function):
    with pytest.raises(TypeError, match="needs a `Struct`, found `tuple`"):
        function((1,))


def test_to_odict():
    inner = collections.OrderedDict(c=2)
    assert structure.to_odict(NAMED) == collections.OrderedDict(a=1, b=NAMED.b)
    assert structure.to_odict(NAMED, recursive=True) == collections.OrderedDict(
        a=1, b=inner
    )
    with pytest.raises(ValueError, match="elements are all named, found `<a=1,2"):
        structure.to_odict(MIXED)


def test_to_odict_or_tuple():
    pair = Struct([(None, NAMED), (None, 2)])
    odict = structure.to_odict(NAMED, recursive=True)
    assert structure.to_odict_or_tuple(pair) == (odict, 2)
    assert structure.to_odict_or_tuple(pair, recursive=False) == (NAMED, 2)
    assert structure.to_odict_or_tuple(Struct([])) == ()
    with pytest.raises(ValueError, match="all named or all unnamed"):
        structure.to_odict_or_tuple(MIXED)


def test_to_container_recursive_enters_structs_only():
    value = Struct([("a", [Struct([("c", 1)])]), ("b", Struct([("c", 2)]))])

    def values(elements):
        return [value for _, value in elements]

    expected = [[Struct([("c", 1)])], [2]]
    assert structure.to_container_recursive(value, values) == expected


@pytest.mark.parametrize(
    ("container", "shallow", "deep"),
    [
        ([1, [2]], Struct.unnamed(1, [2]), Struct.unnamed(1, Struct.unnamed(2))),
        ((), Struct([]), Struct([])),
        ({"b": 1, "a": 2}, Struct.named(a=2, b=1), Struct.named(a=2, b=1)),
        (
            collections.OrderedDict(b=1, a=2),
            Struct.named(b=1, a=2),
            Struct.named(b=1, a=2),
        ),
        (
            Point(1, (2,)),
            Struct.named(x=1, y=(2,)),
            Struct.named(x=1, y=Struct.unnamed(2)),
        ),
        (Attrs(1, 2), Struct([("x", 1), ("_y", 2)]), Struct([("x", 1), ("_y", 2)])),
        (Data(1, 2), Struct.named(x=1, y=2), Struct.named(x=1, y=2)),
        (Struct.named(a=[1]), Struct.named(a=[1]), Struct.named(a=Struct.unnamed(1))),
        (["ab", None], Struct.unnamed("ab", None), Struct.unnamed("ab", None)),
    ],
    ids=str,
)
def test_from_container(container, shallow, deep):
    assert structure.from_container(container) == shallow
    assert structure.from_container(container, recursive=True) == deep


@pytest.mark.parametrize("value", [3, "ab", {1}, np.zeros(2)], ids=str)
def test_from_container_refuses_what_is_no_container(value):
    with pytest.raises(TypeError, match="`from_container` needs a list, tuple"):
        structure.from_container(value)


def test_from_container_needs_keys_that_are_strings():
    with pytest.raises(TypeError, match="keys that are strings, found 1"):
        structure.from_container({1: 2})


def test_flatten_enters_structs_and_python_containers():
    assert structure.flatten(MIXED) == [1, 2, 3]
    assert structure.flatten(3) == [3]
    assert structure.flatten(Struct.named(a=[1, 2], b=(3,))) == [1, 2, 3]


@given(strategies.structs())
def test_packing_undoes_flattening(struct):
    leaves = structure.flatten(struct)
    assert structure.pack_sequence_as(struct, leaves) == struct


@given(strategies.structs())
def test_mapping_keeps_the_structure(struct):
    doubled = structure.map_structure(lambda x: 2 * x, struct)
    assert structure.is_same_structure(struct, doubled)
    assert structure.flatten(doubled) == [2 * x for x in structure.flatten(struct)]
    assert structure.map_structure(lambda a, b: b - a, struct, doubled) == struct


def test_packing_says_what_it_needs():
    with pytest.raises(IndexError, match="needs 3 leaves, found 2"):
        structure.pack_sequence_as(MIXED, [1, 2])
    with pytest.raises(TypeError, match="a list of leaves, found `tuple`"):
        structure.pack_sequence_as(MIXED, (1, 2, 3))
    with pytest.raises(TypeError, match="needs nested `Struct`s, found `list`"):
        structure.pack_sequence_as([1, 2], [1, 2])


def test_mapping_says_what_it_needs():
    with pytest.raises(TypeError, match="needs structures that are nested alike"):
        structure.map_structure(max, MIXED, NAMED)
    with pytest.raises(ValueError, match="one structure or more, found none"):
        structure.map_structure(max)
    with pytest.raises(TypeError, match="needs a function, found `int`"):
        structure.map_structure(3, MIXED)


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        (Struct.named(a=1), Struct.named(a=2), True),
        (Struct.named(a=1), Struct.named(x=1), False),
        (Struct.named(a=1), Struct.named(a=Struct([])), False),
        (Struct.named(a=[1]), Struct.named(a=[2]), True),
        (Struct.named(a=[1]), Struct.named(a=[2, 3]), False),
        (Struct.named(a=[1]), Struct.named(a=(2,)), False),
        (Struct.unnamed(1), Struct.unnamed(1, 2), False),
    ],
)
def test_is_same_structure(a, b, same):
    assert structure.is_same_structure(a, b) is same
    assert structure.is_same_structure(b, a) is same


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Struct.named(x=1, y=2), Struct.named(x=5, y=2)),
        ({"x": 1, "y": 2}, {"x": 5, "y": 2}),
        (collections.OrderedDict(y=2, x=1), collections.OrderedDict(y=2, x=5)),
        (collections.defaultdict(int, x=1), collections.defaultdict(int, x=5)),
        (Point(1, 2), Point(5, 2)),
        (Attrs(1, 2), Attrs(5, 2)),
        (Data(1, 2), Data(5, 2)),
    ],
    ids=str,
)
def test_update_struct_replaces_fields_and_keeps_the_container(value, expected):
    updated = structure.update_struct(value, x=5)
    assert updated == expected
    assert type(updated) is type(expected)


def test_update_struct_reaches_private_attrs_fields():
    assert structure.update_struct(Attrs(1, 2), _y=7) == Attrs(1, 7)


def test_update_struct_says_what_it_needs():
    with pytest.raises(KeyError, match=r"one of the fields \['x', 'y'\], found `z`"):
        structure.update_struct(Point(1, 2), z=5)
    with pytest.raises(TypeError, match=r"named fields .* found `list`"):
        structure.update_struct([1], x=5)
