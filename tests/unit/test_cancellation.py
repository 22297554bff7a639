"""Cancellation: hosts without copies, and hosts that do not answer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from test_client import running

from paglets.api.calls import CallReply
from paglets.api.groups import EndedCopies, GroupView, ReportCounts, UnfinishedCount, WaitingReports
from paglets.api.hosts import Hosts, MeshHostView
from paglets.api.undelivered import FailedHook
from paglets.cli.commands.jobs.cancel import HooksEnded, by_group, cancel_each, end_hooks, exit_code, job_named
from paglets.client.cancellation import CancelOutcome, EndOutcome, cancel_jobs, end_copies
from paglets.client.host_client import HostClient
from paglets.client.mesh_client import MeshClient
from paglets.client.orphaned_groups import OrphanedGroup
from paglets.client.undelivered import MeshUndelivered
from paglets.core.errors import (
    EXIT_DONE,
    EXIT_UNREACHABLE,
    Conflict,
    Overloaded,
    PagletsError,
    PeerReplaced,
    Unknown,
    Unreachable,
)
from paglets.core.messages import Message
from paglets.core.record import to_json
from paglets.core.refs import ProxyRef
from paglets.wire.request import Request, Response
from tests.fakes.clock import FakeClock, SeededEntropy
from tests.fakes.exchange import TableExchange, TableHost
from tests.fakes.mesh import member

CENSUS = "POST /v1/groups/words/unfinished"


class TimedExchange(TableExchange):
    """Hosts: `away` are offline, `forgotten` are not listed, `mute` use the whole timeout."""

    def __init__(self, clock: FakeClock, *hosts: TableHost) -> None:
        self.clock = clock
        self.away: set[str] = set()
        self.mute: set[str] = set()
        self.forgotten: set[str] = set()
        super().__init__(*hosts)

    def members(self) -> Hosts:
        rows = [member(host.name, url=url) for url, host in self.hosts.items() if host.name not in self.forgotten]
        return Hosts(
            hosts=tuple(
                MeshHostView(host=row, online=row.name not in self.away, seconds_since_seen=0.1) for row in rows
            )
        )

    def request(self, url: str, expected_store_id: str | None, request: Request, *, timeout_seconds: float) -> Response:
        if self.hosts[url].name in self.mute | self.away:
            self.clock.advance(timeout_seconds)
            raise Unreachable(f"{url} does not answer")
        return super().request(url, expected_store_id, request, timeout_seconds=timeout_seconds)


class Given:
    """A group that is cancelled from `home`; a copy of its one job was last seen on `w1`."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.home, self.w1 = TableHost(name="home"), TableHost(name="w1")
        self.exchange = TimedExchange(self.clock, self.home, self.w1)
        self.counts = {"home": 0, "w1": 0}
        for host in (self.home, self.w1):
            host.routes[CENSUS] = lambda body, name=host.name: UnfinishedCount(count=self.counts[name])
        self.told: list[str] = []

    def call(self, message: Message) -> Any:
        self.told.append(message.kind)
        return {"keys": {"a": "already_cancelled"}, "copies": [{"job_key": "a", "host": to_json(self.w1.ref)}]}

    def link(self) -> MeshClient:
        return MeshClient(
            self.home.ref, self.exchange, clock=self.clock, entropy=SeededEntropy(1), pause=self.clock.advance
        )

    def end(self) -> EndOutcome:
        return end_copies(self.link(), "words", None, reason="", timeout=5.0)

    def cancel(self, timeout: float = 5.0) -> CancelOutcome:
        return cancel_jobs(self.link(), self.call, "words", None, reason="", answer_seconds=30.0, timeout=timeout)


def test_when_all_hosts_have_said_that_no_copy_is_left_the_collector_is_told() -> None:
    given = Given()
    assert given.cancel().ended
    assert given.told == ["cancel", "copies_gone"]


def test_an_offline_host_that_had_a_copy_counts_as_unreachable() -> None:
    given = Given()
    given.exchange.away = {"w1"}
    outcome = given.cancel()
    assert (outcome.unreachable, outcome.ended) == (("w1",), False)
    assert given.told == ["cancel"]


def test_nobody_waits_for_a_host_that_was_forgotten() -> None:
    given = Given()
    given.exchange.away = given.exchange.forgotten = {"w1"}
    assert given.cancel().ended
    assert given.told == ["cancel", "copies_gone"]


@pytest.mark.parametrize("said", [Overloaded("ask again"), UnfinishedCount(count=1)])
def test_a_host_that_went_offline_before_it_said_that_it_has_none_is_silent(said: Any) -> None:
    given = Given()
    counts = [1, 0, 0]
    w2 = TableHost(name="w2")
    given.exchange.hosts[w2.ref.url] = w2

    def goes_offline(body: Any) -> UnfinishedCount:
        given.exchange.away = {"w2"}
        if isinstance(said, PagletsError):
            raise said
        return said  # type: ignore[no-any-return]

    w2.routes[CENSUS] = goes_offline
    given.home.routes[CENSUS] = lambda body: UnfinishedCount(count=counts.pop(0))
    outcome = given.cancel()
    assert counts == []
    assert (outcome.unreachable, outcome.running, outcome.ended) == (("w2",), {}, False)


def test_while_one_host_does_not_answer_the_others_are_counted_again() -> None:
    given = Given()
    w2 = TableHost(name="w2")
    given.exchange.hosts[w2.ref.url] = w2
    given.exchange.mute = {"w1"}
    counts = [2, 0, 0, 0]
    w2.routes[CENSUS] = lambda body: UnfinishedCount(count=counts.pop(0))
    before = given.clock.monotonic()
    outcome = given.cancel(timeout=30.0)
    assert (outcome.unreachable, outcome.running) == (("w1",), {})
    assert given.clock.monotonic() - before < 10.0


def test_a_host_that_does_not_answer_cannot_hold_up_a_cancel_beyond_its_time() -> None:
    given = Given()
    given.exchange.mute = {"w1"}
    before = given.clock.monotonic()
    assert given.cancel(timeout=5.0).unreachable == ("w1",)
    assert given.clock.monotonic() - before == pytest.approx(5.0)


# Several groups.


def test_all_groups_are_cancelled_before_waiting_and_errors_stay_with_their_group(tmp_path: Path) -> None:
    home = TableHost(name="home")
    told: set[str] = set()

    def group(group_id: str) -> None:
        collector = ProxyRef(agent_id=f"collector-{group_id}", host=home.ref)
        view = GroupView(
            group_id=group_id,
            class_name="m:C",
            created_at=0.0,
            home=home.ref,
            collector=collector,
            detached=False,
            detached_reason="",
        )

        def call(body: Any) -> CallReply:
            told.add(group_id)
            return CallReply(value={"keys": {"a": "cancelled"}, "copies": []})

        # As if a job of each group lasted until all groups are cancelled.
        home.routes[f"GET /v1/groups/{group_id}"] = lambda body: view
        home.routes[f"POST /v1/paglets/{collector.agent_id}/call"] = call
        home.routes[f"POST /v1/groups/{group_id}/unfinished"] = lambda body: UnfinishedCount(count=2 - len(told))

    def unknown(body: Any) -> None:
        raise Unknown("no host knows a group typo")

    home.routes["GET /v1/groups/typo"] = unknown
    group("words")
    group("texts")
    client = HostClient(exchange=TableExchange(home), environ=running(tmp_path, "home"))
    answers = cancel_each(client, by_group(["words", "typo", "texts/a"]), reason="", timeout=10.0)
    assert [isinstance(answer, PagletsError) for answer in answers] == [False, True, False]
    assert str(answers[1]) == "no host knows a group typo"
    assert all(answer.ended for answer in answers if isinstance(answer, CancelOutcome))


# Groups whose collector cannot be asked.


def test_each_host_is_asked_until_none_has_a_copy_and_it_is_said_who_ended_what() -> None:
    given = Given()
    answers = [EndedCopies(job_keys=("a", "b"), count=1), EndedCopies(job_keys=(), count=0)]
    route = "POST /v1/groups/words/end"
    given.home.routes[route] = lambda body: EndedCopies(job_keys=(), count=0)
    given.w1.routes[route] = lambda body: answers.pop(0) if answers else EndedCopies(job_keys=(), count=0)
    outcome = given.end()
    assert (outcome.ended, outcome.running, outcome.unreachable) == ({"w1": ("a", "b")}, {}, {})


def test_hosts_that_are_offline_or_refuse_are_named_with_the_reason() -> None:
    given = Given()
    w2 = TableHost(name="w2")
    given.exchange.hosts[w2.ref.url] = w2
    given.exchange.away = {"w2"}

    def refuse(body: Any) -> EndedCopies:
        raise Conflict("w1 is in touch with gpu-a")

    given.w1.routes["POST /v1/groups/words/end"] = refuse
    given.home.routes["POST /v1/groups/words/end"] = lambda body: EndedCopies(job_keys=("a",), count=1)
    outcome = given.end()
    assert outcome.unreachable == {"w1": "w1 is in touch with gpu-a", "w2": "the host is offline"}
    assert (outcome.ended, outcome.running) == ({"home": ("a",)}, {"home": 1})


def test_a_host_that_is_long_away_does_not_make_the_end_of_copies_fail() -> None:
    outcome = EndOutcome(group_id="words", unreachable={"try1": "the host is offline"})
    try1 = MeshHostView(host=member("try1"), online=False, seconds_since_seen=20.0)
    assert exit_code(outcome, [try1]) == EXIT_UNREACHABLE
    assert exit_code(outcome, [replace(try1, offline_seconds=86_400.0)]) == EXIT_DONE
    at_collector = CancelOutcome(group_id="words", keys={}, unreachable=("try1",))
    assert exit_code(at_collector, [replace(try1, offline_seconds=86_400.0)]) == EXIT_UNREACHABLE


class Ends:
    """A client of a mesh where the collector's host is as `state` says; `ended` and `cleared` get what was
    wished; `left`: what hosts have of the group."""

    timeout = 30.0

    def __init__(self, *views: MeshHostView) -> None:
        self.views = views
        self.ended: list[tuple[str, list[str] | None]] = []
        self.left: tuple[WaitingReports, ...] = ()
        self.cleared: list[tuple[str, list[str] | None, bool]] = []

    def group(self, group_id: str) -> Any:
        return type("View", (), {"collector": ProxyRef(agent_id="c", host=member("gpu").ref), "job_keys": ()})

    def hosts(self) -> tuple[MeshHostView, ...]:
        return self.views

    def collected(self, group_id: str, *, timeout: float | None = None) -> GroupView | None:
        return None

    def end_copies(self, group_id: str, keys: list[str] | None, *, reason: str, timeout: float) -> EndOutcome:
        self.ended.append((group_id, keys))
        return EndOutcome(group_id=group_id, ended={"w1": ("a",)})

    def orphaned_group(self, group_id: str) -> OrphanedGroup:
        return OrphanedGroup(group_id=group_id, hosts=self.left)

    def clear_group(
        self, group_id: str, keys: list[str] | None, *, reason: str, timeout: float, drop_results: bool
    ) -> EndOutcome:
        self.cleared.append((group_id, keys, drop_results))
        return EndOutcome(group_id=group_id, ended={"w1": ("a",)}, freed=True)


class HeldJob(Ends):
    """A job of the group has ended, and its hook failed on w1."""

    def __init__(self, *views: MeshHostView) -> None:
        super().__init__(*views)
        self.disposed: list[str] = []

    def undelivered(self, group_id: str, job_key: str = "", *, timeout: float | None = None) -> MeshUndelivered:
        return MeshUndelivered(hooks=() if self.disposed or job_key not in ("", HELD.job_key) else (HELD,))

    def dispose(self, target: ProxyRef) -> None:
        self.disposed.append(target.agent_id)


HELD = FailedHook(
    agent_id="p1",
    group_id="words",
    job_key="a",
    entry="arrival",
    host=member("w1").ref,
    error="ValueError",
    traceback="",
    failed_at=0.0,
    kept_until=0.0,
)


AWAY = MeshHostView(host=member("gpu"), online=False, seconds_since_seen=24.0)


def test_nothing_is_cancelled_without_the_collector_unless_forced() -> None:
    client: Any = Ends(AWAY)
    (told,) = cancel_each(client, by_group(["words"]), reason="", timeout=5.0)
    assert str(told).startswith("nothing was cancelled: the collector of words is on gpu, last seen 24 s ago")
    assert isinstance(told, Unreachable)
    assert told.next_steps[0] == "run the same command when that host is back"
    assert told.next_steps[1].startswith("`paglets jobs cancel --force words` ends the jobs")
    assert client.ended == []

    (forced,) = cancel_each(client, by_group(["words/a"]), reason="", timeout=5.0, force=True)
    assert isinstance(forced, EndOutcome)
    assert client.ended == [("words", ["a"])]


def test_where_the_collectors_host_was_forgotten_each_host_ends_what_it_has(capsys: pytest.CaptureFixture[str]) -> None:
    client: Any = Ends(MeshHostView(host=member("w1"), online=True, seconds_since_seen=0.0))
    (outcome,) = cancel_each(client, by_group(["words"]), reason="", timeout=5.0)
    assert isinstance(outcome, EndOutcome)
    assert client.cleared == [("words", None, False)]
    assert "was on gpu, which is no longer a host" in capsys.readouterr().err


def test_finished_results_of_a_lost_group_are_dropped_by_force_only() -> None:
    view = MeshHostView(host=member("w1"), online=True, seconds_since_seen=0.0)
    client: Any = Ends(view)
    counts = ReportCounts(results=2, failures=1, files=2, file_bytes=2048)
    client.left = (WaitingReports(host=view.host.ref, counts=counts, running=0, queued=0, submissions=1),)
    (told,) = cancel_each(client, by_group(["words"]), reason="", timeout=5.0)
    assert isinstance(told, Conflict)
    assert told.message == "nothing was cancelled: 2 results with 2 files (2 KiB) of words would be dropped"
    assert told.details["next"] == [
        "fetch the files first: `paglets artifacts get --group words DIR`; "
        "`paglets jobs show --json words/JOBKEY` prints the result of a job",
        "`paglets jobs cancel --force words` drops them",
    ]
    assert client.cleared == []
    cancel_each(client, by_group(["words"]), reason="", timeout=5.0, force=True)
    assert client.cleared == [("words", None, True)]


def test_where_a_cancel_is_refused_a_job_whose_hook_failed_stays() -> None:
    client: Any = HeldJob(AWAY)
    groups = by_group(["words"])
    answers = cancel_each(client, groups, reason="", timeout=5.0)
    assert end_hooks(client, groups, answers) == (answers, [HooksEnded()])
    assert client.disposed == []


def test_jobs_whose_hook_failed_may_be_all_that_is_left_of_a_group() -> None:
    client: Any = HeldJob(AWAY)
    for selector, disposed in (("words/b", []), ("words/a", ["p1"])):
        groups = by_group([selector])
        unknown = Unknown("no host knows it")
        rest, (ended,) = end_hooks(client, groups, [unknown])
        assert client.disposed == disposed
        assert rest == ([] if disposed else [unknown])
        assert (ended.code, len(ended.lines)) == (0, len(disposed))


def test_a_host_tells_of_some_failed_hooks_at_once_and_all_are_ended() -> None:
    class Many(HeldJob):
        def undelivered(self, group_id: str, job_key: str = "", *, timeout: float | None = None) -> MeshUndelivered:
            hooks = tuple(replace(HELD, agent_id=f"p{n}") for n in range(5) if f"p{n}" not in self.disposed)
            return MeshUndelivered(hooks=hooks[:2])

    client: Any = Many(AWAY)
    end_hooks(client, by_group(["words"]), [CancelOutcome(group_id="words", keys={})])
    assert client.disposed == ["p0", "p1", "p2", "p3", "p4"]


def test_force_ends_copies_of_an_unknown_group_and_a_mistyped_one_stays_unknown() -> None:
    class Nobody(Ends):
        found = EndOutcome(group_id="words", ended={"w1": ("a",)})

        def group(self, group_id: str) -> Any:
            raise Unknown("no host knows it")

        def mesh_groups(self, timeout: float) -> tuple[tuple[Any, ...], dict[Any, Any]]:
            return (), {}

        def clear_group(
            self, group_id: str, keys: list[str] | None, *, reason: str, timeout: float, drop_results: bool
        ) -> EndOutcome:
            if not self.found.ended:
                raise Unknown("no host knows it")
            return self.found

    client: Any = Nobody()
    assert cancel_each(client, by_group(["words"]), reason="", timeout=5.0, force=True) == [Nobody.found]
    client.found = EndOutcome(group_id="words")
    for force in (True, False):
        (told,) = cancel_each(client, by_group(["words"]), reason="", timeout=5.0, force=force)
        assert isinstance(told, Unknown)


@pytest.mark.parametrize(
    ("selector", "named"),
    [
        ("words", "words"),
        ("words/a", "words/a"),
        ("store.1", "words/a"),
        ("store.2", "store.2"),
        ("collector", "collector"),
        ("nobody", "nobody"),
    ],
)
def test_a_job_may_be_named_by_its_id(selector: str, named: str) -> None:
    class Client(Ends):
        def group(self, group_id: str) -> Any:
            if group_id != "words":
                raise Unknown("no host knows it")

        def paglet(self, agent_id: str) -> Any:
            jobs = {"store.1": job_view("words"), "store.2": job_view(None), "collector": None}
            if agent_id not in jobs:
                raise Unknown("no host knows it")
            return SimpleNamespace(job=jobs[agent_id])

    client: Any = Client()
    assert job_named(client, selector) == named


def job_view(group_id: str | None) -> Any:
    return SimpleNamespace(group_id=group_id, job_key="a", agent_id="store.2")


def test_a_summary_of_a_collector_whose_host_began_anew_says_so(tmp_path: Path) -> None:
    class Client(HostClient):
        def group(self, group_id: str) -> Any:
            return type("View", (), {"collector": ProxyRef(agent_id="c", host=member("gpu").ref)})

        def proxy(self, target: Any) -> Any:
            return self

        def call(self, message: Message) -> Any:
            raise PeerReplaced("at http://gpu:1 another host answers than the one meant")

    exchange = TableExchange(TableHost(name="home"), TableHost(name="gpu"))
    told = r"of words was on gpu, and at http://gpu:1 another host .*\nhint: that host restarted"
    with pytest.raises(PeerReplaced, match=told):
        Client(exchange=exchange, environ=running(tmp_path, "home")).summary("words")


def test_a_summary_of_a_collector_whose_host_was_forgotten_says_what_to_do(tmp_path: Path) -> None:
    class Client(HostClient):
        def group(self, group_id: str) -> Any:
            return type("View", (), {"collector": ProxyRef(agent_id="c", host=member("gpu").ref)})

        def collected(self, group_id: str, *, timeout: float | None = None) -> GroupView | None:
            return None

    exchange = TableExchange(TableHost(name="home"))
    with pytest.raises(Unreachable, match="the collector of words was on gpu, which is no longer a host") as told:
        Client(exchange=exchange, environ=running(tmp_path, "home")).summary("words")
    assert told.value.next_steps[1] == "`paglets jobs cancel words` clears the group; then submit it again"


def test_a_collector_that_cannot_be_asked_has_cancelled_nothing_and_it_is_said() -> None:
    def call(message: Message) -> Any:
        raise Unreachable("http://w1:8765 does not answer")

    link = Given().link()
    with pytest.raises(Unreachable, match="does not answer") as told:
        cancel_jobs(link, call, "words", None, reason="", answer_seconds=1.0, timeout=5.0)
    assert told.value.details["collector"] == "away"
