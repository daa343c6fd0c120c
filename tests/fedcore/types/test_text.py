import collections

import pytest
import strategies
import tensorflow as tf
from hypothesis import given

from fedcore import structure
from fedcore.types import (
    AbstractType,
    FunctionType,
    PlacementType,
    SequenceType,
    StructType,
    TensorType,
    at_clients,
    at_server,
    parse,
    to_type,
)

TEXTS = [
    (TensorType(tf.float32), "float32"),
    (TensorType(tf.string, [None, 3]), "string[?,3]"),
    (TensorType(tf.float32, tf.TensorShape(None)), "'float32'(shape=None)"),
    (TensorType(tf.bfloat16, [0]), "bfloat16[0]"),
    (SequenceType(tf.float32), "float32*"),
    (StructType([]), "<>"),
    (StructType([("a", tf.int32), tf.bool]), "<a=int32,bool>"),
    (at_clients(tf.int32), "{int32}@CLIENTS"),
    (at_clients(tf.int32, all_equal=True), "int32@CLIENTS"),
    (at_server(tf.int32), "int32@SERVER"),
    (at_clients(SequenceType(tf.int32)), "{int32*}@CLIENTS"),
    (at_server(SequenceType(tf.int32)), "int32*@SERVER"),
    (FunctionType(None, tf.int32), "( -> int32)"),
    (
        FunctionType(FunctionType(tf.int32, tf.bool), FunctionType(None, tf.bool)),
        "((int32 -> bool) -> ( -> bool))",
    ),
    (
        FunctionType(
            [SequenceType(tf.float32), at_server([("a", tf.int32), tf.bool])], tf.string
        ),
        "(<float32*,<a=int32,bool>@SERVER> -> string)",
    ),
    (AbstractType("T"), "T"),
    (PlacementType(), "placement"),
]


@pytest.mark.parametrize(("type_spec", "text"), TEXTS, ids=[t for _, t in TEXTS])
def test_text_is_that_of_tff(type_spec, text):
    assert str(type_spec) == text
    assert type_spec.compact_representation() == text
    assert str(parse(text)) == text


@pytest.mark.parametrize(
    "dtype", [*strategies.DTYPES, tf.qint8, tf.variant, tf.resource]
)
def test_every_dtype_is_read_back(dtype):
    assert parse(str(TensorType(dtype, [2]))) is TensorType(dtype, [2])


def test_formatted_text_has_a_line_for_each_element():
    batch = collections.OrderedDict(x=(tf.float32, [None, 784]), y=tf.int32)
    type_spec = FunctionType(
        collections.OrderedDict(
            a=at_clients(batch),
            b=at_server([tf.int32, []]),
            c=at_clients([tf.int32], True),
        ),
        SequenceType(batch),
    )
    assert type_spec.formatted_representation() == "\n".join(
        [
            "(<",
            "  a={<",
            "    x=float32[?,784],",
            "    y=int32",
            "  >}@CLIENTS,",
            "  b=<",
            "    int32,",
            "    <>",
            "  >@SERVER,",
            "  c=<",
            "    int32",
            "  >@CLIENTS",
            "> -> <",
            "  x=float32[?,784],",
            "  y=int32",
            ">*)",
        ]
    )


@given(strategies.types(containers=False, abstract=True))
def test_parse_reads_compact_and_formatted_text_back(type_spec):
    assert parse(str(type_spec)) is type_spec
    assert parse(type_spec.formatted_representation()) is parse(str(type_spec))


@given(strategies.types(abstract=True))
def test_text_does_not_say_the_containers(type_spec):
    assert str(parse(str(type_spec))) == str(type_spec)


def test_parse_takes_white_space_and_unquoted_unknown_rank():
    assert parse(
        " ( < a = int32 [ ? , 3 ] , bool > -> { float32 } @ CLIENTS ) "
    ) is parse("(<a=int32[?,3],bool> -> {float32}@CLIENTS)")
    assert parse("float32(shape=None)") is TensorType(tf.float32, tf.TensorShape(None))


def test_parse_keeps_unusual_names():
    for name in ("a b", "x/y", "1", "", "int32"):
        type_spec = StructType([(name, tf.int32)])
        assert parse(str(type_spec)) is type_spec
        assert structure.name_list(parse(str(type_spec))) == [name]


def test_a_word_that_is_no_dtype_is_an_abstract_type():
    assert parse("float") is AbstractType("float")
    assert parse("(T -> <T,U>)") is FunctionType(
        AbstractType("T"), StructType([AbstractType("T"), AbstractType("U")])
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "`parse` needs a type at character 0, found `the end`"),
        ("<int32", "needs `,` at character 6, found `the end`"),
        ("int32 bool", "needs the end of the text at character 6, found `bool`"),
        ("{int32}", "needs `@` at character 7"),
        (
            "{int32}@MOON",
            r"one of \['CLIENTS', 'SERVER'\] at character 8, found `MOON`",
        ),
        ("(int32)", "needs `->` at character 6"),
        ("'what'", "needs a dtype at character 0"),
        ("int32[x]", r"the end of the text at character 5, found `\[x\]`"),
    ],
)
def test_parse_points_at_what_it_cannot_read(text, sentence):
    with pytest.raises(ValueError, match=sentence):
        parse(text)


def test_parse_refuses_types_that_cannot_be():
    with pytest.raises(TypeError, match="without functions"):
        parse("{(int32 -> int32)}@CLIENTS")
    with pytest.raises(ValueError, match="names that differ"):
        parse("<a=int32,a=int32>")


def test_containers_do_not_show():
    assert str(to_type([tf.int32])) == str(to_type((tf.int32,))) == "<int32>"
