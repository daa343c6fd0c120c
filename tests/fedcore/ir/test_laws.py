"""Laws that hold for every sound tree."""

import re

import strategies_ir
from hypothesis import given

from fedcore import ir
from fedcore.ir import _serialize


@given(strategies_ir.trees())
def test_random_trees_are_sound(tree):
    assert ir.check(tree) is tree
    assert not ir.free_names(tree)


@given(strategies_ir.trees())
def test_rewriting_by_the_identity_gives_the_same_object(tree):
    assert ir.rewrite(tree, lambda node: node) is tree


@given(strategies_ir.trees())
def test_renaming_keeps_type_and_canonical_text(tree):
    other = ir.renamed(tree, ir.fresh_names("other"))
    assert ir.check(other).type is tree.type
    assert ir.compact(ir.canonical_names(other)) == ir.compact(ir.canonical_names(tree))


@given(strategies_ir.trees())
def test_canonical_names_are_canonical(tree):
    canonical = ir.canonical_names(tree)
    assert ir.canonical_names(canonical) == canonical
    assert ir.canonical_names(ir.renamed(tree, ir.fresh_names("z"))) == canonical


@given(strategies_ir.trees(), strategies_ir.trees())
def test_substituting_a_free_name_keeps_the_type(value, tree):
    value = ir.renamed(value, ir.fresh_names("other"))
    hole = ir.Reference("hole", value.type)
    open_tree = ir.Struct((("first", tree), ("second", hole)))
    assert ir.free_names(open_tree) == {"hole"}
    closed = ir.check(ir.substitute(open_tree, {"hole": value}))
    assert closed == ir.Struct((("first", tree), ("second", value)))
    assert closed.type is open_tree.type


@given(strategies_ir.trees())
def test_formatted_text_is_compact_text_with_more_space(tree):
    def dense(text):
        return re.sub(r"\s", "", text)

    assert dense(ir.formatted(tree)) == dense(ir.compact(tree))
    assert "\n" not in ir.compact(ir.rewrite(tree, _without_strings))


def _without_strings(node):
    return ir.Data("d", node.type) if isinstance(node, ir.Literal) else node


@given(strategies_ir.trees())
def test_serialised_trees_come_back_with_canonical_names(tree):
    data = _serialize.serialize_node(tree)
    loaded = _serialize.deserialize_node(data)
    assert loaded == ir.canonical_names(tree)
    assert loaded.type is tree.type
    assert _serialize.serialize_node(loaded) == data


@given(strategies_ir.trees())
def test_the_bytes_do_not_depend_on_bound_names(tree):
    other = ir.renamed(tree, ir.fresh_names("other"))
    assert _serialize.serialize_node(other) == _serialize.serialize_node(tree)


@given(strategies_ir.types())
def test_serialised_types_come_back(type_):
    data = _serialize.serialize_type(type_)
    assert _serialize.deserialize_type(data) is type_
