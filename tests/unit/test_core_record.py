"""Records to and from JSON: decoding is strict, and each refusal names the field."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paglets.core.errors import Invalid
from paglets.core.record import INT_BOUND, from_json, to_json


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    name: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    text: str
    count: int = 0
    share: float = 0.0
    flag: bool = False
    anything: Any = None
    maybe: str | None = None
    part: Part | None = None
    parts: tuple[Part, ...] = ()
    table: dict[str, int] = field(default_factory=dict)
    kind: Literal["one", "two"] = "one"


names = st.text(max_size=10)
numbers = st.floats(allow_nan=False, allow_infinity=False)
parts = st.builds(Part, name=names, weight=numbers)
wholes = st.builds(
    Whole,
    text=names,
    count=st.integers(-INT_BOUND, INT_BOUND - 1),
    share=numbers,
    flag=st.booleans(),
    anything=st.none() | st.integers() | st.lists(names, max_size=2) | st.dictionaries(names, numbers, max_size=2),
    maybe=st.none() | names,
    part=st.none() | parts,
    parts=st.lists(parts, max_size=3).map(tuple),
    table=st.dictionaries(names, st.integers(0, 9), max_size=3),
    kind=st.sampled_from(["one", "two"]),
)


@given(wholes)
def test_a_record_comes_back_as_it_was(whole: Whole) -> None:
    assert from_json(Whole, to_json(whole)) == whole


def test_missing_fields_take_their_defaults_and_an_int_is_taken_for_a_float() -> None:
    whole = from_json(Whole, {"text": "a", "share": 2})

    assert whole == Whole(text="a", share=2.0)
    assert type(whole.share) is float


ABC: dict[str, Any] = {"text": "a"}

WRONG: list[tuple[Any, str]] = [
    (None, "Whole: expected an object, got null"),
    ([], "Whole: expected an object, got a list"),
    ("x", "Whole: expected an object, got a string"),
    (1.5, "Whole: expected an object, got a number"),
    ({}, "Whole: field 'text' is missing"),
    (ABC | {"more": 1}, "Whole: unknown field 'more'"),
    (ABC | {"x\x1b[31m" * 99: 1}, "Whole: unknown field 'x\\x1b[31m"),
    ({"text": None}, "Whole.text: expected a string, got null"),
    ({"text": 1}, "Whole.text: expected a string, got a number"),
    ({"text": ["a"]}, "Whole.text: expected a string, got a list"),
    (ABC | {"count": "1"}, "Whole.count: expected an integer, got a string"),
    (ABC | {"count": 1.0}, "Whole.count: expected an integer, got a number"),
    (ABC | {"count": True}, "Whole.count: expected an integer, got a boolean"),
    (ABC | {"count": None}, "Whole.count: expected an integer, got null"),
    (ABC | {"count": INT_BOUND}, "Whole.count: expected an integer of 64 bits"),
    (ABC | {"count": -INT_BOUND - 1}, "Whole.count: expected an integer of 64 bits"),
    (ABC | {"count": 10**4000}, "Whole.count: expected an integer of 64 bits"),
    (ABC | {"share": "1"}, "Whole.share: expected a finite number, got a string"),
    (ABC | {"share": False}, "Whole.share: expected a finite number, got a boolean"),
    (ABC | {"share": float("nan")}, "Whole.share: expected a finite number"),
    (ABC | {"share": float("inf")}, "Whole.share: expected a finite number"),
    (ABC | {"share": 10**400}, "Whole.share: expected a finite number"),
    (ABC | {"flag": 0}, "Whole.flag: expected a boolean, got a number"),
    (ABC | {"flag": "true"}, "Whole.flag: expected a boolean, got a string"),
    (ABC | {"maybe": 0}, "Whole.maybe: expected a string, got a number"),
    (ABC | {"part": []}, "Whole.part: expected an object, got a list"),
    (ABC | {"part": {"weight": 1}}, "Whole.part: field 'name' is missing"),
    (ABC | {"parts": {}}, "Whole.parts: expected a list, got an object"),
    (ABC | {"parts": [{"name": "a"}, {"name": "b", "weight": {}}]}, "Whole.parts[1].weight: expected a finite number"),
    (ABC | {"parts": [None]}, "Whole.parts[0]: expected an object, got null"),
    (ABC | {"table": []}, "Whole.table: expected an object, got a list"),
    (ABC | {"table": {"a": 1, "b\n": "2"}}, "Whole.table['b\\n']: expected an integer, got a string"),
    (ABC | {"kind": "three"}, "Whole.kind: expected one of one, two"),
    (ABC | {"kind": ["one"]}, "Whole.kind: expected one of one, two"),
    (ABC | {"kind": None}, "Whole.kind: expected one of one, two"),
]


@pytest.mark.parametrize(("tree", "message"), WRONG, ids=[message for _, message in WRONG])
def test_a_wrong_tree_is_refused_and_the_field_named(tree: Any, message: str) -> None:
    with pytest.raises(Invalid) as failure:
        from_json(Whole, tree)
    assert failure.value.message.startswith(message)
    assert failure.value.message.isprintable()
    assert len(failure.value.message) < 300


json_trees = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "weight"]), inner, max_size=2),
    max_leaves=6,
)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(Whole.__dataclass_fields__, json_trees)))
def test_any_tree_is_read_or_refused_in_our_words(tree: dict[str, Any]) -> None:
    try:
        whole = from_json(Whole, tree)
    except Invalid:
        return
    assert from_json(Whole, to_json(whole)) == whole or "nan" in repr(whole)


def test_where_a_record_stands_can_be_named() -> None:
    with pytest.raises(Invalid, match="request: field 'text' is missing"):
        from_json(Whole, {}, "request")


@pytest.mark.parametrize(
    "value", [b"x", {1}, object(), [object()], {"a": 1j}, Whole, {1: 2}, {None: 1}, {"a": {(): 1}}]
)
def test_what_has_no_json_is_not_written(value: Any) -> None:
    with pytest.raises(Invalid, match="JSON"):
        to_json(value)


def test_a_field_that_is_a_json_tree_already_is_not_copied() -> None:
    state = {"a": [1, 2.0, None, {"b": "c"}], "d": {}}
    assert to_json(Whole(text="a", anything=state))["anything"] is state


@pytest.mark.parametrize(
    ("value", "tree"),
    [
        ({"a": [(1, 2)]}, {"a": [[1, 2]]}),
        ({"a": {"b": Part(name="c")}}, {"a": {"b": {"name": "c", "weight": 1.0}}}),
    ],
)
def test_a_field_with_a_tuple_or_record_inside_is_converted(value: Any, tree: Any) -> None:
    assert to_json(Whole(text="a", anything=value))["anything"] == tree


@pytest.mark.parametrize("value", [{1: 2}, {"a": [{"b": {None: 1}}]}, {"a": [b"c"]}])
def test_a_field_with_something_else_than_json_inside_is_refused(value: Any) -> None:
    with pytest.raises(Invalid):
        to_json(Whole(text="a", anything=value))


def test_a_field_of_a_type_that_records_do_not_have_is_a_programmers_fault() -> None:
    @dataclass
    class Odd:
        when: complex

    Odd.__annotations__["when"] = complex

    with pytest.raises(TypeError, match="record fields cannot be of type"):
        from_json(Odd, {"when": 1})
