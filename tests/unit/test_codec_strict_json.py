"""Strict JSON: values that survive unchanged, and input that is refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paglets.codec.strict_json import MAX_DEPTH, MAX_INT_DIGITS, dump_bytes, dumps, dumps_with, loads
from paglets.core.errors import BadRequest, Invalid, TooLarge

texts = st.text(st.characters(exclude_categories=["Cs"]))
floats = st.floats(allow_nan=False, allow_infinity=False)
trees = st.recursive(
    st.none() | st.booleans() | st.integers() | floats | texts,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=5),
    max_leaves=30,
)


@given(trees)
def test_a_tree_comes_back_as_it_was_written(tree: object) -> None:
    assert loads(dumps(tree)) == tree
    assert loads(dump_bytes(tree)) == tree


@given(trees)
def test_what_python_writes_with_escapes_is_read_too(tree: object) -> None:
    assert loads(json.dumps(tree)) == tree


@given(st.binary(max_size=60) | st.text('[]{}",:\\u0d8fE+-19.ntrue \n', max_size=60))
def test_anything_is_read_as_python_reads_it_or_refused_in_our_words(data: bytes | str) -> None:
    try:
        tree = loads(data)
    except BadRequest:
        return
    assert tree == json.loads(data)


def test_text_is_short_and_keeps_letters_as_they_are() -> None:
    assert dumps({"städte": ["Köln", 1.5, None, True]}) == '{"städte":["Köln",1.5,null,true]}'
    assert dump_bytes("ö") == b'"\xc3\xb6"'


# Bad input.

REFUSED: list[tuple[str, bytes | str, str]] = [
    ("nothing", b"", "not JSON"),
    ("a word", b"hello", "not JSON"),
    ("two values", b"1 2", "not JSON: Extra data at line 1, column 3"),
    ("an open list", b"[1", "not JSON"),
    ("only opening brackets", b"[" * 101 + b"1", "nested more than"),
    ("a hundred opening brackets", b"[1," * 100, "not JSON"),
    ("many brackets that do not match", b"[]]" * 200, "not JSON"),
    ("NaN", b'{"x":NaN}', "has NaN"),
    ("Infinity", b"[Infinity]", "has Infinity"),
    ("-Infinity", b"[-Infinity]", "has -Infinity"),
    ("an overflow by exponent", b"[1e400]", "out of range"),
    ("a negative overflow", b"[-1E+9999]", "out of range"),
    ("an overflow by digits", b"[" + b"9" * 400 + b".0]", "out of range"),
    ("a key twice", b'{"a":1,"b":{"c":1,"c":1}}', "the key 'c' twice"),
    ("a key twice by escape", rb'{"a":1,"\u0061":2}', "the key 'a' twice"),
    ("a high surrogate", rb'["\ud800"]', "lone surrogate"),
    ("a low surrogate", rb'["\uDC00 x"]', "lone surrogate"),
    ("a pair the wrong way round", rb'["\udc00\ud800"]', "lone surrogate"),
    ("two high and one low", rb'["\ud83d\ud83d\ude00"]', "lone surrogate"),
    ("a pair with a backslash between", rb'["\ud83d\\\ude00"]', "lone surrogate"),
    ("a surrogate in a key", rb'{"\udfff":1}', "lone surrogate"),
    ("a raw surrogate in bytes", b'["\xed\xa0\x80"]', "not UTF-8"),
    ("a raw surrogate in a string", '["\ud800"]', "lone surrogate"),
    ("invalid UTF-8", b'["\xff"]', "not UTF-8"),
    ("overlong UTF-8", b'["\xc0\x80"]', "not UTF-8"),
    ("UTF-16 with mark", "[1]".encode("utf-16"), "not UTF-8"),
    ("UTF-16 without mark", "[1]".encode("utf-16-le"), "not JSON"),
    ("UTF-32", "[1]".encode("utf-32-be"), "not JSON"),
    ("a byte order mark", b"\xef\xbb\xbf[1]", "byte order mark"),
    ("a byte order mark in a string", "\ufeff[1]", "byte order mark"),
    ("a raw newline in a string", b'["a\nb"]', "not JSON"),
    ("a NUL", b"[1]\x00", "not JSON"),
    ("a comment", b"[1] // x", "not JSON"),
    ("a comma too many", b"[1,]", "not JSON"),
    ("a number with a leading zero", b"[01]", "not JSON"),
    ("single quotes", b"['a']", "not JSON"),
]


@pytest.mark.parametrize(("data", "reason"), [pytest.param(*case, id=name) for name, *case in REFUSED])
def test_bad_json_is_refused_with_the_reason(data: bytes | str, reason: str) -> None:
    with pytest.raises(BadRequest, match=reason):
        loads(data)


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 1_000, 100_000])
@pytest.mark.parametrize(
    ("opening", "closing"), [("[", "]"), ('{"a":', "}"), ('[{"a":', "}]"), ('[1,"]","\\"",', ',"["]')]
)
def test_deep_json_is_refused_before_it_is_parsed(opening: str, closing: str, depth: int) -> None:
    with pytest.raises(TooLarge, match="nested more than 100 levels"):
        loads(opening * depth + "1" + closing * depth)


@given(
    st.integers(MAX_DEPTH - 3, MAX_DEPTH + 3),
    st.text('[]{}"\\x', max_size=20),
    st.text('[]{}"\\x', max_size=20),
    st.integers(0, 3),
)
def test_depth_is_counted_exactly_whatever_stands_in_strings(depth: int, one: str, other: str, beside: int) -> None:
    tree: object = one
    for level in range(depth):
        tree = {other + "a": tree, "b": one} if level % 3 == 1 else [other, *[[one]] * (beside if level else 0), tree]
    text = json.dumps(tree)
    if depth <= MAX_DEPTH:
        assert loads(text) == tree
        assert loads(dumps(tree)) == tree
        return
    with pytest.raises(TooLarge):
        loads(text)
    with pytest.raises(Invalid, match="nested"):
        dumps(tree)


def test_many_brackets_side_by_side_are_not_deep() -> None:
    tree = [[[{}], {"[": "{{{"}] for _ in range(500)]

    assert loads(dumps(tree)) == tree


def test_the_largest_integer_goes_through_and_a_larger_one_is_refused() -> None:
    largest = "9" * MAX_INT_DIGITS

    assert loads(f"[{largest},-{largest}]") == [int(largest), -int(largest)]
    assert loads(dumps(int(largest))) == int(largest)
    for digits in (MAX_INT_DIGITS + 1, 1_000_000):
        with pytest.raises(TooLarge, match="more than 4300 digits"):
            loads("1" * digits)
    with pytest.raises(Invalid, match="4300 digits"):
        dumps(10**MAX_INT_DIGITS)


@pytest.fixture
def no_interpreter_limit() -> Iterator[None]:
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    yield
    sys.set_int_max_str_digits(limit)


@pytest.mark.usefixtures("no_interpreter_limit")
def test_integers_are_bounded_where_the_interpreter_has_no_bound() -> None:
    assert loads("-" + "1" * MAX_INT_DIGITS) < 0
    with pytest.raises(TooLarge, match="more than 4300 digits"):
        loads("-" + "1" * (MAX_INT_DIGITS + 1))


def test_pairs_of_surrogates_are_letters() -> None:
    assert loads(rb'["\ud83d\ude00", "\\ud800", "\uD83D\uDE00"]') == ["😀", "\\ud800", "😀"]


def _cyclic() -> list[object]:
    cycle: list[object] = []
    cycle.append(cycle)
    return cycle


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), b"x", {1, 2}, object(), "\ud800", {"\udfff": 1}, _cyclic(), {(1,): 2}]
)
def test_what_is_not_json_is_not_written(value: object) -> None:
    with pytest.raises(Invalid):
        dumps([value])
    with pytest.raises(Invalid):
        dump_bytes([value])


def test_a_value_nested_past_the_interpreters_limit_is_not_written() -> None:
    tree: object = 1
    for _ in range(50_000):
        tree = [tree]

    with pytest.raises(Invalid, match="nested"):
        dumps(tree)


@pytest.mark.parametrize("tree", [{}, {"a": 1}, {"b": 0, "a": "ä"}])
def test_json_text_becomes_a_field_as_it_is(tree: dict[str, Any]) -> None:
    assert loads(dumps_with(tree, "b", '[{"c":null}]')) == tree | {"b": [{"c": None}]}
