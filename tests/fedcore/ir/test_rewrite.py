"""Walking, rewriting, renaming and substituting."""

import tensorflow as tf

from fedcore import ir
from fedcore.types import TensorType

INT = TensorType(tf.int32)
ONE, TWO = ir.literal(1, INT), ir.literal(2, INT)


def reference(name):
    return ir.Reference(name, INT)


def deep(levels):
    tree = ONE
    for _ in range(levels):
        tree = ir.Struct(((None, tree),))
    return tree


def test_rewrite_applies_the_rule_below_first():
    seen = []
    tree = ir.Block((("x", ONE), ("y", TWO)), reference("y"))
    ir.rewrite(tree, lambda node: (seen.append(str(node)), node)[1])
    assert seen == ["1", "2", "y", "(let x=1,y=2 in y)"]


def test_rewrite_shows_a_rule_the_changed_children():
    tree = ir.Struct((("a", ir.Struct(((None, ONE),))),))

    def rule(node):
        match node:
            case ir.Literal():
                return TWO
            case ir.Struct(((None, item),), None):
                return item
        return node

    assert ir.rewrite(tree, rule) == ir.Struct((("a", TWO),))


def test_rewrite_keeps_untouched_parts():
    kept = ir.Struct(((None, TWO),))
    tree = ir.Struct(((None, ONE), (None, kept)))
    changed = ir.rewrite(tree, lambda node: TWO if node is ONE else node)
    assert changed.elements[1][1] is kept


def test_rewrite_visits_shared_nodes_once():
    visits = []
    tree = ONE
    for _ in range(60):  # 2^60 nodes if shared ones were visited again
        tree = ir.Struct(((None, tree), (None, tree)))
    ir.rewrite(tree, lambda node: (visits.append(1), node)[1])
    assert len(visits) == 61
    assert ir.free_names(tree) == frozenset()


def test_walk_gives_parents_first_and_children_in_order():
    tree = ir.Block((("x", ONE),), ir.Struct(((None, reference("x")), (None, TWO))))
    assert [str(node) for node in ir.walk(tree)] == [
        "(let x=1 in <x,2>)",
        "1",
        "<x,2>",
        "x",
        "2",
    ]


def test_with_children_changes_each_child():
    tree = ir.Call(reference("f"), reference("x"))
    assert ir.with_children(tree, lambda node: node) is tree
    assert ir.with_children(tree, lambda _: ONE) == ir.Call(ONE, ONE)


def test_free_names_are_those_that_nothing_binds():
    inner = ir.Struct(((None, reference("x")), (None, reference("y"))))
    assert ir.free_names(inner) == {"x", "y"}
    assert ir.free_names(ir.Lambda("x", INT, inner)) == {"y"}
    assert ir.free_names(ir.Block((("x", reference("z")),), inner)) == {"y", "z"}
    # A local does not see itself, nor those after it.
    assert ir.free_names(ir.Block((("x", reference("x")),), inner)) == {"x", "y"}
    assert ir.free_names(ir.Block((("a", reference("b")), ("b", ONE)), ONE)) == {"b"}


def test_substitute_replaces_free_references():
    tree = ir.Struct(((None, reference("x")), (None, reference("y"))))
    changed = ir.substitute(tree, {"x": reference("y")})
    assert str(changed) == "<y,y>"
    assert ir.substitute(tree, {}) is tree
    assert ir.substitute(tree, {"z": ONE}) is tree


def test_renamed_keeps_free_names():
    tree = ir.Lambda(
        "x", INT, ir.Struct(((None, reference("x")), (None, reference("y"))))
    )
    assert str(ir.renamed(tree, ir.fresh_names("n"))) == "(n0 -> <n0,y>)"


def test_renamed_takes_apart_names_that_are_bound_twice():
    tree = ir.Lambda(
        "x",
        INT,
        ir.Struct(
            (
                (None, ir.Block((("x", reference("x")),), reference("x"))),
                (None, reference("x")),
            )
        ),
    )
    assert str(ir.renamed(tree, ir.fresh_names())) == "(v0 -> <(let v1=v0 in v1),v0>)"
    shared = ir.Lambda("x", INT, reference("x"))
    tree = ir.renamed(ir.Struct(((None, shared), (None, shared))), ir.fresh_names())
    assert str(ir.check(tree)) == "<(v0 -> v0),(v1 -> v1)>"


def test_canonical_names_do_not_capture_free_names():
    tree = ir.Lambda(
        "x", INT, ir.Struct(((None, reference("x")), (None, reference("v0"))))
    )
    assert str(ir.canonical_names(tree)) == "(v1 -> <v1,v0>)"


def test_canonical_names_follow_the_order_of_binding():
    tree = ir.Block(
        (("b", ir.Lambda("z", INT, reference("z"))), ("a", ONE)), reference("b")
    )
    assert str(ir.canonical_names(tree)) == "(let v1=(v0 -> v0),v2=1 in v1)"


def test_fresh_names_count():
    fresh = ir.fresh_names("p")
    assert [fresh(), fresh()] == ["p0", "p1"]


def test_deep_trees_need_no_recursion():
    tree = deep(5000)
    assert sum(1 for _ in ir.walk(tree)) == 5001
    changed = ir.rewrite(tree, lambda node: TWO if node == ONE else node)
    assert ir.free_names(changed) == frozenset()
    assert ir.renamed(tree, ir.fresh_names()) is tree
    assert ir.compact(tree) == "<" * 5000 + "1" + ">" * 5000
