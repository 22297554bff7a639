"""States as objects of tagged fields."""

from __future__ import annotations

from dataclasses import InitVar, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Optional, Union

import pytest

from paglets.codec.wire import decode_state, dumps, encode_state, loads
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
        if self.dataset == "bad":
            raise ValueError("a bad data set")


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


def test_post_init_runs_and_later_changes_of_what_it_computed_are_kept() -> None:
    assert decode_state(SubState, {"dataset": "abc"}).derived == 3
    changed = SubState(dataset="abc")
    changed.derived = 9
    assert there_and_back(changed).derived == 9


def test_an_init_var_with_a_default_is_no_hindrance() -> None:
    assert there_and_back(WithDefaultInitVar(factor=3, kept=4)) == WithDefaultInitVar(kept=4)


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
        (SubState, {"dataset": "bad"}, "state: SubState refused its fields: ValueError: a bad data set"),
        (SubState, {"dataset": 3}, "state: SubState refused its fields: TypeError"),
        (WithInitVar, {}, "its constructor needs 'secret', which is not a field"),
        (Undecorated, {}, "Undecorated has fields of its own but lacks @dataclass"),
    ],
)
def test_a_bad_state_is_refused_with_the_reason(cls: type, tree: Any, message: str) -> None:
    with pytest.raises(Invalid, match=message):
        decode_state(cls, tree)


def test_the_fault_of_a_users_class_is_the_cause_of_the_refusal() -> None:
    with pytest.raises(Invalid) as failure:
        decode_state(SubState, {"dataset": "bad"})
    assert isinstance(failure.value.__cause__, ValueError)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (WithInitVar(1), "its constructor needs 'secret'"),
        (Undecorated(), "lacks @dataclass: they would be lost"),
        ({"a": 1}, "a state must be a dataclass, not dict"),
        (JobState, "a state must be a dataclass, not type"),
        (JobState(rows=[object()]), r"state\.rows\[0\]: a object cannot travel"),
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

    with pytest.raises(Invalid, match="a Strict without 'needed' cannot travel"):
        encode_state(state)


def test_a_state_for_the_host_holds_no_classes() -> None:
    tree = {"anything": {"$enum": ["antigravity:X", "A"]}}

    with pytest.raises(Invalid, match=r"state\.anything: a value of class .* is not read here"):
        decode_state(JobState, tree, import_classes=False)
