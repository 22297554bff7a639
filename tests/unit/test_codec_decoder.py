"""The decoder with trees that other programs wrote: the value, or an error with the path to the bad part."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from enum import Enum, Flag
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paglets.codec.tagged_json import decode
from paglets.core.errors import ImportFailed, Invalid


class Color(Enum):
    RED = "r"


class Rights(Flag):
    READ = 1
    WRITE = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    x: float
    y: float = 0.0


WRONG: list[tuple[Any, str]] = [
    ({"$nonsense": 1}, "unknown tag '$nonsense'"),
    ({"$": 1}, "unknown tag"),
    ({"$bytes": 1}, "$bytes has a wrong value: expected a string"),
    ({"$bytes": "a"}, "$bytes has a wrong value"),
    ({"$bytes": "AA==\n"}, "$bytes has a wrong value"),
    ({"$bytes": "ü"}, "$bytes has a wrong value"),
    ({"$bytearray": None}, "$bytearray has a wrong value"),
    ({"$tuple": {"a": 1}}, "$tuple has a wrong value: expected a list"),
    ({"$tuple": "abc"}, "$tuple has a wrong value"),
    ({"$set": [1, 1]}, "$set has a wrong value: an item occurs twice"),
    ({"$set": [[1]]}, "$set has a wrong value: unhashable"),
    ({"$frozenset": [{"$set": [1]}]}, "$frozenset has a wrong value: unhashable"),
    ({"$date": "yesterday"}, "$date has a wrong value"),
    ({"$date": "2023-02-29"}, "$date has a wrong value"),
    ({"$datetime": 0}, "$datetime has a wrong value"),
    ({"$time": "25:00"}, "$time has a wrong value"),
    ({"$timedelta": [1, 2]}, "$timedelta has a wrong value"),
    ({"$timedelta": [1, 2, 3.0]}, "$timedelta has a wrong value"),
    ({"$timedelta": [True, 2, 3]}, "$timedelta has a wrong value"),
    ({"$timedelta": [10**30, 0, 0]}, "$timedelta has a wrong value"),
    ({"$path": ["a"]}, "$path has a wrong value"),
    ({"$dict": {"a": 1}}, "$dict has a wrong value"),
    ({"$dict": [["a", 1, 2]]}, "$dict has a wrong value: expected a list of [key, value]"),
    ({"$dict": [[[], 1]]}, "$dict has a wrong value: unhashable"),
    ({"$dict": [["a", 1], ["a", 2]]}, "$dict has a wrong value: an item occurs twice"),
    ({"$enum": "RED"}, "$enum has a wrong value"),
    ({"$enum": [f"{__name__}:Color", "BLUE"]}, "has no member 'BLUE'"),
    ({"$enum": [f"{__name__}:Color", ["RED"]]}, "has no member"),
    ({"$enum": [f"{__name__}:Color", 1]}, "has no member"),
    ({"$enum": [f"{__name__}:Rights", 99]}, "$enum has a wrong value"),
    ({"$enum": ["builtins:dict", "x"]}, "builtins:dict is not an Enum"),
    ({"$object": {"class": "builtins:dict", "fields": {}}}, "builtins:dict is neither a dataclass nor a named tuple"),
    (
        {"$object": {"class": "subprocess:Popen", "fields": {"args": "x"}}},
        "subprocess:Popen is neither a dataclass nor a named tuple",
    ),
    ({"$object": {"class": "os.system", "fields": {}}}, "does not name a class"),
    ({"$object": {"class": 3, "fields": {}}}, "$object has a wrong value"),
    ({"$object": {"class": f"{__name__}:Point"}}, "$object has a wrong value"),
    ({"$object": {"class": f"{__name__}:Point", "fields": []}}, "$object has a wrong value"),
    ({"$object": {"class": f"{__name__}:Point", "fields": {}}}, "field 'x' of Point is missing"),
    ({"$object": {"class": f"{__name__}:Point", "fields": {"x": 1, "z": 2}}}, "a Point has no field 'z'"),
]


@pytest.mark.parametrize(("tree", "reason"), WRONG)
def test_a_wrong_tag_is_refused_with_its_place(tree: Any, reason: str) -> None:
    with pytest.raises(Invalid) as failure:
        decode({"rows": [0, tree]}, "args")
    assert failure.value.message.startswith("args.rows[1]")
    assert reason in failure.value.message


def test_a_class_that_is_not_here_is_said_so() -> None:
    with pytest.raises(ImportFailed, match="no_such_module"):
        decode([{"$object": {"class": "no_such_module:X", "fields": {}}}])


def test_no_class_is_imported_where_that_is_not_allowed() -> None:
    for tree in ({"$object": {"class": "antigravity:X", "fields": {}}}, {"$enum": ["antigravity:X", "A"]}):
        with pytest.raises(Invalid, match=r"value\.a: a value of class 'antigravity:X' cannot be read in this process"):
            decode({"a": tree}, import_classes=False)
    assert "antigravity" not in sys.modules
    assert decode({"a": {"$tuple": [1]}}, import_classes=False) == {"a": (1,)}


@pytest.mark.parametrize("tree", [(1, 2), b"x", {1}, object(), [{"a": (1,)}]])
def test_what_is_not_a_tree_is_not_read(tree: Any) -> None:
    with pytest.raises(Invalid, match="is not a JSON value"):
        decode(tree)


def test_a_tree_nested_too_deep_is_not_read() -> None:
    tree: Any = 1
    for _ in range(50_000):
        tree = [tree]

    with pytest.raises(Invalid, match="nested more than 100 levels"):
        decode(tree)


json_trees = st.recursive(
    st.none() | st.integers() | st.text(max_size=20) | st.sampled_from([f"{__name__}:Point", "RED"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["class", "fields", *[next(iter(t)) for t, _ in WRONG]]), inner, max_size=2)
    ),
    max_leaves=10,
)


@given(json_trees)
def test_any_tree_is_read_or_refused_in_our_words(tree: Any) -> None:
    try:
        decode(tree)
    except (Invalid, ImportFailed):
        return
