"""Values as tagged JSON and back."""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
import os
import sys
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum, Flag, IntEnum, IntFlag, StrEnum
from fractions import Fraction
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import MappingProxyType
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paglets.codec.strict_json import MAX_DEPTH
from paglets.codec.tagged_json import (
    MAX_VALUE_DEPTH,
    class_names_in,
    decode,
    decode_fields,
    dumps,
    encode,
    encode_fields,
    loads,
    tree_of,
)
from paglets.core.errors import Invalid


class Color(Enum):
    RED = "r"
    GREEN = (1, 2)


class Level(IntEnum):
    LOW = 1


class Mode(StrEnum):
    FAST = "fast"


class Rights(Flag):
    READ = 1
    WRITE = 2


class Bits(IntFlag):
    A = 1
    B = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    x: float
    y: float = 0.0
    label: Any = None


@dataclass
class Node:
    children: list[Node] = field(default_factory=list)
    data: Any = None


@dataclass
class Counted:
    start: int
    total: int = field(default=0, init=False)


class Text(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "something else"


class Number(int):
    def __int__(self) -> int:
        return 99


class Real(float):
    pass


class Raw(bytes):
    pass


Pair = namedtuple("Pair", "a b")


class Rows(list[Any]):
    def __init__(self, rows: Any) -> None:
        super().__init__(rows)
        self.reverse()
        self.reverse()


class Sorted(OrderedDict[str, int]):
    pass


class Bag(Counter[str]):
    pass


class Table(dict[Any, Any]):
    def items(self) -> Any:
        raise RuntimeError("never called")


class Triple(tuple[Any, ...]):
    def __new__(cls, a: Any, b: Any, c: Any) -> Triple:
        return super().__new__(cls, (a, b, c))


class Place(NamedTuple):
    x: float
    y: float = 0.5


class FarPlace(Place):
    """A subclass whose instances have a `__dict__`."""


class Members(set[int]):
    pass


def exact(value: Any) -> Any:
    """Return `value` with all its types, so that 1, 1.0 and True compare as different."""
    if dataclasses.is_dataclass(value):
        return type(value), {f.name: exact(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, (list, tuple)):
        return type(value), [exact(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return type(value), sorted(repr(exact(item)) for item in value)
    if isinstance(value, dict):
        return type(value), [(exact(key), exact(item)) for key, item in value.items()]
    return type(value), repr(value)


def through_text(value: Any) -> Any:
    return decode(loads(dumps(encode(value))))


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
# Use whole seconds: CPython reads an offset of only microseconds as none.
offsets = st.integers(-86_399, 86_399).map(lambda seconds: dt.timedelta(seconds=seconds))
zones = st.none() | offsets.map(dt.timezone)
keys = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    texts,
    texts.map("${}".format),
    st.binary(max_size=20),
    st.dates(),
    st.times(timezones=zones).map(lambda value: value.replace(fold=0)),
    st.datetimes(timezones=zones).map(lambda value: value.replace(fold=0)),
    st.timedeltas(),
    st.complex_numbers(allow_nan=False),
    st.decimals(allow_nan=False),
    st.fractions(),
    st.uuids(),
    st.sampled_from([*Color, *Level, *Mode, *Bits, Rights.READ | Rights.WRITE, Rights(0), Bits.A | Bits.B]),
    texts.map(Path),
)
hashables = keys | st.lists(keys, max_size=3).map(tuple) | st.frozensets(keys, max_size=3)
values = st.recursive(
    hashables | st.binary(max_size=20).map(bytearray) | st.floats(),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(texts, inner, max_size=4),
        st.dictionaries(hashables, inner, max_size=4),
        st.sets(hashables, max_size=4),
        st.builds(Point, x=st.just(1.5), label=inner),
        st.builds(Node, data=inner),
        st.builds(Pair, inner, inner),
        st.lists(inner, max_size=3).map(Rows),
        st.dictionaries(hashables, inner, max_size=3).map(OrderedDict),
        st.dictionaries(hashables, st.integers(), max_size=3).map(Counter),
    ),
    max_leaves=15,
)


@given(values)
def test_a_value_arrives_as_it_was_sent_with_all_its_types(value: Any) -> None:
    assert exact(through_text(value)) == exact(value)


@given(values)
def test_the_same_value_is_the_same_text(value: Any) -> None:
    assert dumps(encode(through_text(value))) == dumps(encode(value))


@pytest.mark.parametrize(
    "value", [None, True, 0, -3, 1.5, "", "ö", [], {}, [1, [2]], {"a": {"b": [None]}, "$a": 1, "b": 2}]
)
def test_a_plain_value_is_written_as_itself(value: Any) -> None:
    assert exact(encode(value)) == exact(value)


WIRE: list[tuple[Any, Any]] = [
    (b"\x00\xff", {"$bytes": "AP8="}),
    (bytearray(b""), {"$bytearray": ""}),
    ((1, (2,)), {"$tuple": [1, {"$tuple": [2]}]}),
    ({"b", "a", 3}, {"$set": ["a", "b", 3]}),
    (frozenset([2, 1]), {"$frozenset": [1, 2]}),
    (dt.date(2024, 2, 29), {"$date": "2024-02-29"}),
    (dt.time(1, 2, 3), {"$time": "01:02:03"}),
    (dt.datetime(2024, 1, 2, 3, 4, 5, 6, dt.UTC), {"$datetime": "2024-01-02T03:04:05.000006+00:00"}),
    (dt.timedelta(seconds=-1), {"$timedelta": [-1, 86399, 0]}),
    (Path("a/b c"), {"$path": "a/b c"}),
    (Color.GREEN, {"$enum": [f"{__name__}:Color", "GREEN"]}),
    (Level.LOW, {"$enum": [f"{__name__}:Level", "LOW"]}),
    (Mode.FAST, {"$enum": [f"{__name__}:Mode", "FAST"]}),
    (Rights.READ | Rights.WRITE, {"$enum": [f"{__name__}:Rights", 3]}),
    (Point(x=1.0), {"$object": {"class": f"{__name__}:Point", "fields": {"x": 1.0, "y": 0.0, "label": None}}}),
    ({1: "a", None: "b"}, {"$dict": [[1, "a"], [None, "b"]]}),
    ({"$bytes": "x"}, {"$dict": [["$bytes", "x"]]}),
    ({"$": 1}, {"$dict": [["$", 1]]}),
    ([math.inf, -math.inf], [{"$float": "inf"}, {"$float": "-inf"}]),
    (math.nan, {"$float": "nan"}),
    (complex(1.5, math.inf), {"$complex": [1.5, {"$float": "inf"}]}),
    (Decimal("1.50"), {"$decimal": "1.50"}),
    (Decimal("-Infinity"), {"$decimal": "-Infinity"}),
    (Fraction(-2, 6), {"$fraction": [-1, 3]}),
    (UUID(int=1), {"$uuid": "00000000-0000-0000-0000-000000000001"}),
    (Counter("aab"), {"$counter": [["a", 2], ["b", 1]]}),
    (OrderedDict(b=1, a=2), {"$ordered_dict": [["b", 1], ["a", 2]]}),
    (defaultdict(list, a=[1]), {"$defaultdict": ["list", [["a", [1]]]]}),
    (defaultdict(None, {1: 2}), {"$defaultdict": [None, [[1, 2]]]}),
    (Pair(1, (2,)), {"$object": {"class": f"{__name__}:Pair", "fields": {"a": 1, "b": {"$tuple": [2]}}}}),
    (Real(1.5), {"$subclass": [f"{__name__}:Real", 1.5]}),
]


@pytest.mark.parametrize(("value", "tree"), WIRE)
def test_the_tags_on_the_wire_are_these(value: Any, tree: Any) -> None:
    assert encode(value) == tree
    assert exact(decode(tree)) == exact(value)


@pytest.mark.parametrize(
    ("value", "arrives"),
    [
        ({Text("k"): 1}, {"k": 1}),
        ({Text("$bytes"): 1}, {"$bytes": 1}),
        (PurePosixPath("a/b"), Path("a/b")),
        (PureWindowsPath("a\\b"), Path("a/b")),
    ],
)
def test_a_key_arrives_as_plain_text_and_a_path_as_one_of_here(value: Any, arrives: Any) -> None:
    assert exact(through_text(value)) == exact(arrives)


@pytest.mark.parametrize(
    "value",
    [
        Text("abc"),
        Number(3),
        Real("nan"),
        Raw(b"x"),
        Rows([1, (2,)]),
        Sorted(b=1, a=2),
        Bag("aab"),
        Table({1: 2, "a": b"x"}),
        Triple(1, 2, 3),
        Place(1.0),
        FarPlace(1.0, 2.0),
        Members([1, 2]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_instance_of_a_subclass_keeps_its_class_without_its_constructor(value: Any) -> None:
    back = through_text({"x": [value]})["x"][0]

    assert type(back) is type(value)
    assert repr(back) == repr(value)


def test_an_ordered_dict_arrives_in_its_order_and_a_default_dict_with_what_it_makes() -> None:
    ordered = OrderedDict([("a", 1), ("b", 2)])
    ordered.move_to_end("a")

    assert list(through_text(ordered)) == ["b", "a"]
    assert through_text(defaultdict(set, a={1}))["missing"] == set()


def test_a_named_tuple_of_another_version_is_refused_or_takes_its_defaults() -> None:
    name = f"{__name__}:Place"

    assert decode({"$object": {"class": name, "fields": {"x": 1.0}}}) == Place(1.0, 0.5)
    with pytest.raises(Invalid, match="a Place has no field 'z'"):
        decode({"$object": {"class": name, "fields": {"x": 1.0, "z": 1.0}}})
    with pytest.raises(Invalid, match="field 'x' of Place is missing"):
        decode({"$object": {"class": name, "fields": {}}})


def test_a_subclass_is_made_only_of_what_it_is_a_subclass_of() -> None:
    with pytest.raises(Invalid, match="value: Rows is not a subclass of dict"):
        decode({"$subclass": [f"{__name__}:Rows", {"a": 1}]})
    with pytest.raises(Invalid, match="Color is neither a dataclass nor a named tuple"):
        decode({"$object": {"class": f"{__name__}:Color", "fields": {}}})


def test_a_field_that_the_constructor_does_not_take_travels_too() -> None:
    counted = Counted(3)
    counted.total = 7

    assert through_text(counted) == counted


def test_what_arrives_shares_nothing_with_the_tree() -> None:
    tree = {"a": [1]}

    value = decode(tree)
    value["a"].append(2)

    assert tree == {"a": [1]}


# Values that cannot be sent, and their paths.


class Timestamp(dt.datetime):
    pass


class BrokenRepr:
    def __repr__(self) -> str:
        raise RuntimeError("no")


def _local_record() -> Any:
    @dataclass
    class Local:
        pass

    return Local()


def _with_attribute() -> Rows:
    rows = Rows([1])
    rows.title = "x"  # type: ignore[attr-defined]
    return rows


def _local_classes() -> Any:
    class Local(list[int]):
        pass

    return namedtuple("_LocalPair", "a"), Local


class Exact(Decimal):
    pass


_LocalPair, _LocalList = _local_classes()
_LocalPair.__qualname__ = "_local_classes.<locals>._LocalPair"

CANNOT: list[tuple[Any, str]] = [
    ({3: object()}, "result[3]: an object cannot be sent; convert it to plain values, or make its class a dataclass"),
    ({(1, object): 1}, "[1]: a type cannot be sent"),
    ({"s": frozenset([len])}, "result.s{<built-in function len>}: a builtin_function_or_method cannot be sent"),
    (Node(children=[Node(data={"a b": object()})]), "result.children[0].data['a b']: an object cannot be sent"),
    (deque([1]), "result: a collections.deque cannot be sent; convert it to list"),
    (range(3), "result: a range cannot be sent; convert it to list"),
    ((n for n in ()), "result: a generator cannot be sent; convert it to list"),
    (memoryview(b"x"), "result: a memoryview cannot be sent; convert it to bytes"),
    (MappingProxyType({}), "result: a mappingproxy cannot be sent; convert it to dict"),
    (len, "result: a builtin_function_or_method cannot be sent; send what it returns"),
    (Point, "result: a type cannot be sent; send its name"),
    (Timestamp(2024, 1, 1), f"result: a {__name__}.Timestamp cannot be sent; convert it to datetime.datetime"),
    (BrokenRepr(), f"result: a {__name__}.BrokenRepr cannot be sent"),
    (sys.__stdout__, "cannot be sent; send its content; send files as inputs or artifacts"),
    ("a\ud800", "result: the string 'a\\ud800' has a lone surrogate"),
    ({"\udfff": 1}, "has a lone surrogate"),
    ([Path(os.fsdecode(b"\xff"))], "result[0]: the string '\\udcff' has a lone surrogate"),
    ([10**4300], "result[0]: an integer of more than 4300 digits cannot be sent"),
    ([Number(-(10**5000))], "result[0]: an integer of more than 4300 digits"),
    (_local_record(), "a class inside a function cannot be sent"),
    (
        _with_attribute(),
        "a Rows has attributes that cannot be sent: 'title'; convert it to list, or make its",
    ),
    (os.stat("."), "a stat_result cannot be sent; convert it to tuple"),
    (
        _LocalPair(1),
        "move it to the top level of its module; or convert it to tuple",
    ),
    (_LocalList([1]), "or convert it to list"),
    (defaultdict(lambda: 0), "a defaultdict that calls a function for missing keys cannot be sent; convert it to dict"),
    (Exact("1"), "Exact cannot be sent; convert it to Decimal"),
]


@pytest.mark.parametrize(("value", "message"), CANNOT)
def test_what_cannot_travel_is_named_with_its_place(value: Any, message: str) -> None:
    with pytest.raises(Invalid) as failure:
        encode(value, "result")
    assert message in failure.value.message
    dumps(failure.value.to_wire())


def _nested(depth: int, wrap: Any) -> Any:
    value: Any = "x"
    for _ in range(depth):
        value = wrap(value)
    return value


@pytest.mark.parametrize("wrap", [lambda v: [v], lambda v: {"a": v}, lambda v: (v,), lambda v: Node(data=v)])
def test_a_value_nested_too_deep_is_refused(wrap: Any) -> None:
    for depth in (MAX_VALUE_DEPTH + 1, 5_000):
        with pytest.raises(Invalid, match="nested more than 80 levels deep, or contains itself") as failure:
            encode(_nested(depth, wrap))
        assert len(failure.value.message) < 400


def test_a_value_at_the_bound_travels_inside_an_envelope() -> None:
    value = _nested(MAX_VALUE_DEPTH, lambda inner: [inner])
    envelope = _nested(MAX_DEPTH - MAX_VALUE_DEPTH, lambda inner: {"e": inner})

    assert through_text(value) == value
    assert loads(dumps(_nested(15, lambda inner: {"e": inner})))
    assert loads(dumps({"envelopes": [{"inbox": [{"message": {"args": {"x": encode(value)}}}]}]}))
    assert envelope


def test_a_value_that_holds_itself_is_refused() -> None:
    in_list: list[Any] = []
    in_list.append(in_list)
    in_dict: dict[str, Any] = {}
    in_dict["me"] = {"again": in_dict}
    node = Node()
    node.children.append(node)

    for value in (in_list, in_dict, node, (in_list,)):
        with pytest.raises(Invalid, match="contains itself"):
            encode(value)


# Named values.


def test_arguments_are_written_one_by_one_whatever_their_names() -> None:
    args = {"$bytes": b"x", "rows": (1,)}

    trees = encode_fields(args)

    assert trees == {"$bytes": {"$bytes": "eA=="}, "rows": {"$tuple": [1]}}
    assert decode_fields(trees) == args
    assert decode_fields(encode_fields({"$tuple": 1})) == {"$tuple": 1}


def test_a_bad_argument_is_named() -> None:
    with pytest.raises(Invalid, match=r"args\.x\[0\]: an object cannot be sent"):
        encode_fields({"x": [object()]})
    with pytest.raises(Invalid, match="args: names are strings, not int"):
        encode_fields({1: 2})  # type: ignore[dict-item]
    with pytest.raises(Invalid, match=r"args\['a b'\]: unknown tag"):
        decode_fields({"a b": {"$what": 1}})


def test_a_dict_of_trees_under_users_keys_is_never_taken_for_a_tag() -> None:
    for keys_ in (["$bytes"], ["$bytes", "b"], ["a"], []):
        trees = {key: encode((1,)) for key in keys_}
        assert decode(tree_of(trees)) == dict.fromkeys(keys_, (1,))


def test_the_classes_that_trees_name_are_found_and_nothing_that_only_looks_so() -> None:
    found = [
        encode([Point(x=1.0), Color.RED]),
        encode({"a": [(Node(children=[Node(data={1: Rights.READ})]),)]}),
        encode(1),
    ]
    looks_so = encode([{"$object": {"class": "a:B", "fields": {}}}, {"$enum": ["a:C", "X"]}, "$enum"])
    names = {f"{__name__}:{name}" for name in ("Point", "Color", "Node", "Rights")}
    assert class_names_in([*found, looks_so]) == names
