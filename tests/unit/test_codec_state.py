"""States as objects of tagged fields."""

from __future__ import annotations

from dataclasses import InitVar, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Optional, Union

import pytest

from paglets.codec.tagged_json import decode, decode_state, dumps, encode, encode_state, loads
from paglets.core.agent import PagletState
from paglets.core.errors import Invalid
from paglets.core.refs import HostRef

if TYPE_CHECKING:
    from nowhere import Unknowable

Tags = tuple[str, ...]


@dataclass
class JobState(PagletState):
    dataset: str = ""
    required_host_tags: tuple[str, ...] = ()
    aliased: Tags = ()
    maybe: tuple[int, int] | None = None
    older: Optional[tuple[int, ...]] = None  # noqa: UP045
    oldest: Union[None, tuple[int, ...]] = None  # noqa: RUF036, UP007
    either: list[int] | tuple[int, ...] = ()
    anything: Any = None
    rows: list[Any] = field(default_factory=list)
    unknowable: Unknowable | None = None
    TABLE: ClassVar[dict[str, int]] = {}


@dataclass
class SubState(JobState):
    more_tags: tuple[str, ...] = ()
    home: HostRef | None = None
    derived: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.derived = len(self.dataset)


@dataclass(kw_only=True)
class Strict:
    needed: int


@dataclass
class WithInitVar:
    secret: InitVar[int]
    kept: int = 0


@dataclass
class WithDefaultInitVar:
    factor: InitVar[int] = 2
    kept: int = 0

    def __post_init__(self, factor: int) -> None:
        self.kept += 0 * factor


class Undecorated(PagletState):
    dataset: str = "lost"


class Renamed(PagletState):
    pass


def there_and_back(state: Any) -> Any:
    return decode_state(type(state), loads(dumps(encode_state(state))))


def test_a_state_comes_back_equal_and_of_its_class() -> None:
    state = SubState(
        home_host_name="laptop",
        dataset="alpha",
        required_host_tags=("linux",),
        maybe=(1, 2),
        anything=[(1,), {"a": b"x"}, {3}],
        rows=[(1, "a")],
        home=HostRef(store_id="s", name="w1"),
    )

    assert there_and_back(state) == state


def test_a_state_is_an_object_of_its_fields_without_its_class() -> None:
    tree = encode_state(JobState(dataset="alpha", required_host_tags=("linux",)))

    assert tree["dataset"] == "alpha"
    assert tree["required_host_tags"] == {"$tuple": ["linux"]}
    assert "TABLE" not in tree


def test_tuples_come_back_as_tuples_and_lists_as_lists_whatever_the_annotation() -> None:
    state = JobState(anything=(1, 2), rows=[(1,), [2]], either=[1])
    state.rows = (3,)  # type: ignore[assignment]

    back = there_and_back(state)

    assert (back.anything, back.rows, back.either) == ((1, 2), (3,), [1])


@pytest.mark.parametrize("name", ["required_host_tags", "aliased", "maybe", "older", "oldest", "more_tags"])
def test_a_plain_list_is_taken_for_a_field_of_a_tuple_type(name: str) -> None:
    assert getattr(decode_state(SubState, {name: [1, 2]}), name) == (1, 2)


@pytest.mark.parametrize("name", ["either", "anything", "rows", "unknowable"])
def test_a_plain_list_stays_a_list_elsewhere(name: str) -> None:
    assert getattr(decode_state(SubState, {name: [1, 2]}), name) == [1, 2]


def test_missing_fields_take_their_defaults() -> None:
    state = decode_state(JobState, {})

    assert state == JobState()
    assert state.rows is not decode_state(JobState, {}).rows


def test_a_field_that_post_init_computed_arrives_and_is_not_computed_again() -> None:
    assert there_and_back(SubState(dataset="abc")).derived == 3
    changed = SubState(dataset="abc")
    changed.derived = 9
    assert there_and_back(changed).derived == 9
    assert decode_state(SubState, {"dataset": "abc"}).derived == 0


@pytest.mark.parametrize("state", [WithDefaultInitVar(factor=3, kept=4), WithInitVar(1, kept=5)])
def test_an_init_var_is_no_hindrance(state: Any) -> None:
    assert there_and_back(state) == state


@dataclass
class Halved:
    amount: int = 64

    def __post_init__(self) -> None:
        self.amount //= 2


@dataclass(frozen=True, slots=True)
class FrozenSlots:
    amount: int
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "amount", self.amount // 2)


@dataclass(kw_only=True)
class HalvedBelow(Halved):
    more: list[int] = field(default_factory=list)
    least: int = field(init=False)
    SEEN: ClassVar[list[int]] = []

    def __post_init__(self) -> None:
        super().__post_init__()
        self.least = min(self.more, default=0)


@dataclass(init=False)
class OwnInit:
    total: int = 0

    def __init__(self, *parts: int) -> None:
        self.total = sum(parts)


@pytest.mark.parametrize(
    "state", [Halved(64), FrozenSlots(64, ("a",)), HalvedBelow(amount=64, more=[3, 1]), OwnInit(1, 2)]
)
def test_a_state_arrives_as_it_was_however_it_was_made(state: Any) -> None:
    again = there_and_back(there_and_back(state))

    assert again == state
    assert decode(encode([state])) == [state]


@dataclass
class Remembering(PagletState):
    numbers: list[int] = field(default_factory=list)

    @cached_property
    def total(self) -> int:
        return sum(self.numbers)


def test_the_value_of_a_cached_property_is_computed_again() -> None:
    state = Remembering(numbers=[1, 2])
    assert state.total == 3

    back = there_and_back(state)

    assert "total" not in vars(back)
    assert back.total == 3


def test_a_state_with_an_attribute_that_is_no_field_is_refused_with_its_name() -> None:
    state = Remembering(numbers=[1])
    state.answer = 42  # type: ignore[attr-defined]

    with pytest.raises(Invalid, match="a Remembering has attributes that cannot be sent: 'answer'; declare them as fi"):
        encode_state(state)
    with pytest.raises(Invalid, match=r"value\[0\]: a Remembering has attributes that cannot be sent: 'answer'"):
        encode([state])


@dataclass
class WithSlot:
    __slots__ = ("amount", "other")
    amount: int


def test_a_slot_that_is_no_field_is_refused_where_it_has_a_value() -> None:
    state = WithSlot(3)
    assert there_and_back(state).amount == 3

    state.other = 1

    with pytest.raises(Invalid, match="a WithSlot has attributes that cannot be sent: 'other'"):
        encode_state(state)


@dataclass
class RecordAndDict(dict[str, int]):
    amount: int = 0


class Picky(PagletState):
    def __new__(cls, needed: int) -> Picky:
        return super().__new__(cls)


@pytest.mark.parametrize(
    ("cls", "tree", "message"),
    [
        (JobState, {"datasets": "x"}, "state: a JobState has no field 'datasets'"),
        (JobState, {"TABLE": {}}, "state: a JobState has no field 'TABLE'"),
        (JobState, {"\x1b[31m": 1}, r"no field '\\x1b\[31m'"),
        (JobState, {"rows": [0, {"$what": 1}]}, r"state\.rows\[1\]: unknown tag '\$what'"),
        (JobState, [], "state: expected an object with the fields of JobState"),
        (JobState, None, "state: expected an object"),
        (Strict, {}, "state: field 'needed' of Strict is missing"),
        (HalvedBelow, {}, "state: field 'least' of HalvedBelow is missing"),
        (Picky, {}, "state: Picky cannot be made from its fields: TypeError"),
        (Undecorated, {}, "Undecorated has its own fields but lacks @dataclass"),
    ],
)
def test_a_bad_state_is_refused_with_the_reason(cls: type, tree: Any, message: str) -> None:
    with pytest.raises(Invalid, match=message):
        decode_state(cls, tree)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (RecordAndDict(), "RecordAndDict cannot be sent: it is a dataclass and a dict as well"),
        (Undecorated(), "lacks @dataclass: write it above the class"),
        ({"a": 1}, "a state must be a dataclass, not dict"),
        (JobState, "a state must be a dataclass, not type"),
        (JobState(rows=[object()]), r"state\.rows\[0\]: an object cannot be sent"),
    ],
)
def test_a_state_that_cannot_travel_is_refused_before_it_leaves(state: Any, message: str) -> None:
    with pytest.raises(Invalid, match=message):
        encode_state(state)


def test_a_subclass_without_fields_of_its_own_needs_no_decorator() -> None:
    assert there_and_back(Renamed(home_host_name="a")) == Renamed(home_host_name="a")


def test_a_field_that_was_deleted_is_said_so() -> None:
    state = Strict(needed=1)
    del state.needed

    with pytest.raises(Invalid, match="a Strict without 'needed' cannot be sent"):
        encode_state(state)


def test_a_state_for_the_host_holds_no_classes() -> None:
    tree = {"anything": {"$enum": ["antigravity:X", "A"]}}

    with pytest.raises(Invalid, match=r"state\.anything: a value of class .* cannot be read in this process"):
        decode_state(JobState, tree, import_classes=False)
