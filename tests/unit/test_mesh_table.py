from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paglets.api.hosts import Gossip, MeshHost
from paglets.core.errors import Invalid, Unknown
from paglets.mesh import table as tables
from paglets.mesh import view
from paglets.mesh.table import Mark, Table, check_gossip, check_host, merge
from paglets.program import PROTOCOL
from paglets.slots.model import Resources
from tests.fakes.mesh import member

OWN = member("own", joined=1)


def rows_of(table: Table) -> dict[str, MeshHost]:
    return {key: row.host for key, row in table.rows.items()}


def take(table: Table, *members: MeshHost, now: float = 0.0, direct: str = "", offline: tuple[str, ...] = ()) -> Table:
    return merge(table, members, now=now, direct=direct, offline=offline).table


@st.composite
def some_members(draw: st.DrawFn) -> list[MeshHost]:
    def one() -> MeshHost:
        return member(
            draw(st.sampled_from(["a", "b", "c"])),
            boot_count=draw(st.integers(1, 2)),
            heartbeat=draw(st.integers(1, 3)),
            tags=draw(st.sampled_from([(), ("x",), ("y", "z")])),
            queued_jobs=draw(st.integers(0, 1)),
        )

    return [one() for _ in range(draw(st.integers(0, 6)))]


@given(some_members(), some_members())
def test_merging_gives_the_same_rows_in_either_order(one: list[MeshHost], other: list[MeshHost]) -> None:
    assert rows_of(take(take(Table(), *one), *other)) == rows_of(take(take(Table(), *other), *one))


@given(some_members(), some_members(), some_members())
def test_merging_gives_the_same_rows_however_grouped(a: list[MeshHost], b: list[MeshHost], c: list[MeshHost]) -> None:
    right = take(Table(), *rows_of(take(take(Table(), *b), *c)).values())
    assert rows_of(take(take(take(Table(), *a), *b), *c)) == rows_of(take(take(Table(), *a), *rows_of(right).values()))


@given(some_members())
def test_merging_twice_changes_nothing_more(members: list[MeshHost]) -> None:
    once = merge(Table(), members, now=1.0)
    twice = merge(once.table, members, now=2.0)
    assert twice.table.rows == once.table.rows
    assert (twice.stored, twice.news, twice.dropped) == ((), (), ())


def test_a_higher_boot_count_wins_over_any_heartbeat() -> None:
    table = take(Table(), member("a", boot_count=2, heartbeat=1))
    assert rows_of(take(table, member("a", boot_count=1, heartbeat=99)))["store-a"].boot_count == 2


def test_a_heartbeat_is_a_sign_of_life_and_no_change_to_store() -> None:
    table = take(Table(), member("a"))
    change = merge(table, [member("a", heartbeat=2, queued_jobs=5)], now=3.0)
    assert change.stored == ()
    assert change.table.rows["store-a"].last_seen_at == 3.0
    assert change.table.rows["store-a"].host.queued_jobs == 5


@pytest.mark.parametrize("changes", [{"tags": ("gpu",)}, {"url": "http://b:1"}, {"boot_count": 2}, {"joined": 4}])
def test_what_outlives_a_restart_is_a_change_to_store(changes: dict[str, object]) -> None:
    table = take(Table(), member("a"))
    assert merge(table, [member("a", **{"heartbeat": 2, **changes})], now=3.0).stored == ("store-a",)


def test_a_row_that_the_sender_holds_for_offline_is_no_sign_of_life() -> None:
    table = take(Table(), member("a"), offline=("store-a",))
    assert not table.rows["store-a"].up
    assert not take(table, member("a", heartbeat=9), offline=("store-a",)).rows["store-a"].up


def test_a_host_that_speaks_is_online_however_old_its_row() -> None:
    table = take(Table(), member("a", heartbeat=9), offline=("store-a",))
    change = merge(table, [member("a", heartbeat=3)], now=1.0, direct="store-a")
    assert change.news == ("store-a",)
    assert change.table.rows["store-a"].host.heartbeat == 9


def test_a_host_silent_for_ten_seconds_is_offline_and_not_before() -> None:
    table = take(Table(), member("a"), now=0.0)
    assert tables.expire(table, 10.0, OWN).table.rows["store-a"].up
    assert not tables.expire(table, 10.1, OWN).table.rows["store-a"].up


def test_after_a_gap_of_ones_own_the_waits_begin_anew() -> None:
    table = tables.restart_timers(take(Table(), member("a"), now=0.0), 1_000.0)
    assert tables.expire(table, 1_009.0, OWN).table.rows["store-a"].up


def test_failed_connections_end_the_wait_only_for_a_silent_host() -> None:
    table = take(Table(), member("a"), now=0.0)
    for _ in range(5):
        table = tables.failed(table, "store-a", 1.0).table
    assert table.rows["store-a"].up
    assert not tables.failed(table, "store-a", 4.5).table.rows["store-a"].up


def test_a_host_not_seen_for_thirty_days_is_dropped_despite_old_rows() -> None:
    table = take(Table(), member("a"), now=0.0)
    change = tables.expire(table, 31 * 86_400.0, OWN)
    assert change.dropped == ("store-a",)
    assert rows_of(take(change.table, member("a"))) == {}
    assert rows_of(take(change.table, member("a", heartbeat=2))) != {}
    assert rows_of(take(change.table, member("a"), direct="store-a")) != {}


def test_a_host_that_is_forgotten_comes_back_by_its_own_word_alone() -> None:
    table = take(Table(), member("a"))
    change = tables.forget(table, "store-a")
    assert (change.dropped, change.table.forgotten) == (("store-a",), {"store-a": Mark(1, 21, for_good=True)})
    later = member("a", boot_count=9, heartbeat=9)
    assert rows_of(take(change.table, later)) == {}
    back = take(change.table, later, direct="store-a")
    assert (rows_of(back), back.forgotten) == ({"store-a": later}, {})
    assert not tables.expire(table, 31 * 86_400.0, OWN).table.forgotten["store-a"].for_good


def test_what_a_forgotten_host_said_before_does_not_bring_it_back() -> None:
    # The message may have waited in a socket until now.
    table = tables.forget(take(Table(), member("a", boot_count=2, heartbeat=7)), "store-a").table
    twice = tables.forget(table, "store-a").table
    for late in (member("a", boot_count=2, heartbeat=9), member("a", boot_count=1, heartbeat=99)):
        assert take(twice, late, direct="store-a") == table
    for new in (member("a", boot_count=2, heartbeat=7 + tables.LATE_BEATS + 1), member("a", boot_count=3, heartbeat=1)):
        assert rows_of(take(twice, new, direct="store-a")) == {"store-a": new}


def test_a_host_that_nobody_knew_is_forgotten_until_it_speaks() -> None:
    table = tables.forget(Table(), "store-a").table
    assert rows_of(take(table, member("a"))) == {}
    assert rows_of(take(table, member("a"), direct="store-a")) != {}


def test_the_table_keeps_those_online_when_it_is_full() -> None:
    gone = [member(f"g{n}") for n in range(tables.MAX_HOSTS)]
    table = take(Table(), *gone, offline=tuple(m.store_id for m in gone))
    change = merge(table, [member("new")], now=1.0)
    assert len(change.table.rows) == tables.MAX_HOSTS
    assert change.table.rows["store-new"].up
    assert len(change.dropped) == 1


def test_the_earlier_of_two_online_hosts_keeps_the_name_and_both_are_told() -> None:
    mine = member("x", store_id="one", joined=2)
    other = member("x", store_id="two", joined=3, url="http://other:8765")
    at_mine = view.problems(mine, take(Table(), other))
    at_other = view.problems(other, take(Table(), mine))
    assert at_mine == at_other
    assert "http://other:8765 with another --name" in at_mine["two"]
    assert "one" not in at_mine


def test_a_host_that_has_not_joined_yet_never_takes_a_name() -> None:
    newcomer = member("x", store_id="a-lower-id", joined=0)
    assert list(view.problems(newcomer, take(Table(), member("x", joined=9)))) == ["a-lower-id"]


def test_hosts_that_joined_at_once_are_told_apart_by_store_id() -> None:
    two = [member("x", store_id="b", joined=1), member("x", store_id="a", joined=1)]
    assert list(view.problems(OWN, take(Table(), *two))) == ["b"]


def test_an_offline_host_loses_its_name_to_one_online_and_says_so() -> None:
    old = member("x", store_id="old", joined=1)
    table = take(take(Table(), old, offline=("old",)), member("x", store_id="new", joined=5))
    assert list(view.problems(OWN, table)) == ["old"]
    assert view.find(OWN, table, view.problems(OWN, table), "x").store_id == "new"


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"mesh_version": "other"}, "--mesh-version"), ({"protocol": 99}, "same paglets.pyz")],
)
def test_another_version_is_not_joined_and_the_problem_says_what_to_do(changes: dict[str, object], said: str) -> None:
    table = take(Table(), member("a", **changes))
    wrong = view.problems(OWN, table)
    assert said in wrong["store-a"]
    assert view.online(OWN, table, wrong) == ()
    with pytest.raises(Unknown):
        view.find(OWN, table, wrong, "a")


def test_a_host_is_found_by_name_and_by_any_of_its_urls() -> None:
    table = take(Table(), member("gpu-a", addresses=("http://10.0.0.7:8765",)))
    for text in ("gpu-a", "http://gpu-a:8765", "HTTP://GPU-A:8765/", "http://10.0.0.7"):
        assert view.find(OWN, table, {}, text).store_id == "store-gpu-a"
    assert view.find(OWN, table, {}, "own").store_id == "store-own"


def test_an_unknown_name_gets_the_nearest_and_all_there_are() -> None:
    table = take(Table(), member("linux-a"), member("gpu-a"))
    with pytest.raises(Unknown, match=r"did you mean linux-a\? there are: gpu-a, linux-a, own"):
        view.find(OWN, table, {}, "linux")


def test_candidates_are_this_host_first_and_all_others_with_what_placement_asks() -> None:
    busy = member("b", free=Resources(), queued_jobs=3, tags=("gpu",), addresses=("http://10.0.0.7:8765",))
    table = take(Table(), busy, member("a"), offline=("store-a",))
    own, a, b = view.candidates(OWN, table, view.problems(OWN, table), ("http://c:8765",))
    assert (own.host.name, own.online) == ("own", True)
    assert (own.is_only, own.awaited_peers) == (False, ())
    assert (a.host.name, a.online) == ("a", False)
    assert (b.online, b.queued_jobs, b.tags, b.free) == (True, 3, ("gpu",), Resources())
    assert b.addresses == ("http://b:8765", "http://10.0.0.7:8765")


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "Not A Name"},
        {"store_id": "../../etc"},
        {"store_id": ""},
        {"url": "http://a:8765/path"},
        {"url": "ftp://a:1"},
        {"url": "http://A:8765"},
        {"addresses": ("http://a:1",) * 17},
        {"tags": ("t",) * 65},
        {"tags": ("t" * 101,)},
        {"properties": {"k": "v" * 500}},
        {"heartbeat": -1},
        {"heartbeat": 2**60},
        {"boot_count": 2**60},
        {"mesh_version": "v" * 501},
    ],
)
def test_a_row_out_of_bounds_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(Invalid):
        check_host(replace(member("a"), **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("members", [(), (member("b"), member("a"))])
def test_gossip_must_begin_with_the_senders_own_row(members: tuple[MeshHost, ...]) -> None:
    with pytest.raises(Invalid, match="sender"):
        check_gossip(Gossip(mesh_version="test", protocol=PROTOCOL, hosts=members), "store-a")


def test_gossip_of_too_many_rows_is_refused() -> None:
    rows = (member("a"),) * (tables.MAX_HOSTS + 2)
    with pytest.raises(Invalid, match="rows"):
        check_gossip(Gossip(mesh_version="test", protocol=PROTOCOL, hosts=rows), "store-a")
