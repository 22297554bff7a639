"""Messages about groups and jobs whose host is offline, superseded or removed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from job_views import job_view
from test_cli import FakeHost

from paglets.api.groups import GroupLine, GroupView
from paglets.api.hosts import MeshHostView
from paglets.api.logs import UnfinishedJob
from paglets.api.paglets import PagletView
from paglets.api.slots import Slots
from paglets.cli.collectors import collector_of
from paglets.cli.commands.jobs.why import explain, lease_holders
from paglets.cli.output import shortened
from paglets.cli.views.groups import print_groups
from paglets.cli.views.hosts import host_row
from paglets.cli.views.job_records import failure_row, pending_row
from paglets.cli.views.offline_hosts import collector_problem, offline_text
from paglets.client.hosts import views_by_name
from paglets.client.job_logs import JobAttempts
from paglets.client.undelivered import MeshUndelivered
from paglets.core.errors import Moving, PagletsError, TimedOut, Unknown, Unreachable
from paglets.core.refs import HostRef, ProxyRef
from paglets.core.text import command_name
from paglets.slots.model import Resources
from tests.fakes.mesh import member

W1 = HostRef(store_id="store-w1", name="w1")
W2 = HostRef(store_id="store-w2", name="w2")
LAPTOP = MeshHostView(host=member("laptop"), online=True, seconds_since_seen=0.0)
AWAY = MeshHostView(host=member("w1"), online=False, seconds_since_seen=180.0)
HEIR = MeshHostView(host=member("w1", store_id="new", url="http://new:1"), online=True, seconds_since_seen=0.0)
INTRUDER = replace(HEIR, online=False, seconds_since_seen=38.0, problem="not joined: the name w1 belongs to another")

LOST = "its results are lost unless its old data directory is restored"


class Mesh(FakeHost):
    """A mesh with group `g`, whose collector was last known on w1; `views` are the listed hosts.

    `on`: the host where w1 says that the collector is, or the error if w1 does not answer.
    """

    def __init__(self, *views: MeshHostView, on: HostRef | PagletsError | None = None) -> None:
        super().__init__()
        self._views, self._on = views, on

    def hosts(self) -> tuple[MeshHostView, ...]:
        return self._views

    def collected(self, group_id: str, *, timeout: float | None = None) -> GroupView | None:
        assert timeout == 5.0
        if isinstance(self._on, PagletsError):
            raise self._on
        at = None if self._on is None else ProxyRef(agent_id="collector-1", host=self._on)
        return None if at is None else replace(self.group(group_id), collector=at)


@pytest.mark.parametrize(
    ("views", "text"),
    [
        ((LAPTOP, AWAY), "is on w1, last seen 3 min ago; only that host has all results"),
        ((LAPTOP, AWAY, INTRUDER), "is on w1, last seen 3 min ago"),
        ((LAPTOP, AWAY, HEIR), f"w1, which restarted with an empty data directory at http://new:1 .*: {LOST}"),
        ((LAPTOP, HEIR), f"was on w1, which is no longer a host of this mesh: {LOST}"),
    ],
)
def test_of_a_collector_that_cannot_be_asked_it_is_said_whether_waiting_helps(
    views: tuple[MeshHostView, ...], text: str
) -> None:
    with pytest.raises(Unreachable, match=text):
        collector_of(Mesh(*views), "g")  # type: ignore[arg-type]


@pytest.mark.parametrize("views", [(LAPTOP,), (LAPTOP, AWAY, HEIR)])
def test_a_collector_that_moved_on_before_its_host_was_lost_is_asked_where_it_is(
    views: tuple[MeshHostView, ...],
) -> None:
    assert collector_of(Mesh(*views, on=W2), "g").host == W2  # type: ignore[arg-type]


def test_a_collector_on_a_host_that_does_not_answer_is_not_reported_as_lost() -> None:
    mute = Unreachable("the collector of g is on no host that answered; w2: no reply", collector="away")
    with pytest.raises(Unreachable) as told:
        collector_of(Mesh(LAPTOP, on=mute), "g")  # type: ignore[arg-type]
    assert told.value is mute


def test_the_list_names_collectors_on_offline_hosts_with_the_age_of_counts(
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = GroupLine(
        group_id="g",
        status="DETACHED",
        created_at=0.0,
        home=LAPTOP.host.ref,
        collector=ProxyRef(agent_id="c", host=W1),
        expected_count=3,
        completed_count=2,
        failed_count=1,
        counted_at=1_000.0,
    )
    fresh = replace(line, group_id="f", completed_count=None, failed_count=None, counted_at=None)
    print_groups((line, replace(line, group_id="h", here=True), fresh), (LAPTOP, AWAY), 1_200.0)
    _, away, here, never, empty, below = capsys.readouterr().out.splitlines()
    assert away.split() == ["g", "DETACHED", "2", "1", "3", "w1", "laptop", "20", "min", "3", "min", "20", "s", "ago"]
    assert here.endswith("now")
    assert never.split()[:5] == ["f", "DETACHED", "?", "?", "3"]
    assert (empty, below) == (
        "",
        "g, f: collector on w1, not seen for 3 min. Counts are the last ones that the home hosts received "
        "(column COUNTED); "
        "? means none",
    )


def test_the_list_names_collectors_on_online_hosts_that_do_not_answer(
    capsys: pytest.CaptureFixture[str],
) -> None:
    ref = ProxyRef(agent_id="c", host=W1)
    line = GroupLine(group_id="g", status="DETACHED", created_at=0.0, home=LAPTOP.host.ref, collector=ref)
    print_groups((line,), (LAPTOP, replace(AWAY, online=True)), 1.0, [W1.store_id])
    assert "g: collector on w1, which does not answer. " in capsys.readouterr().out


def test_of_a_mistyped_group_the_nearest_is_named_and_who_was_not_asked() -> None:
    mesh = Mesh(LAPTOP, AWAY)
    ref = ProxyRef(agent_id="c", host=W1)
    line = GroupLine(group_id="count", status="ACTIVE", created_at=0.0, home=LAPTOP.host.ref, collector=ref)
    mesh.mesh_groups = lambda timeout: ((line,), {})  # type: ignore[method-assign]
    with pytest.raises(Unknown) as told:
        collector_of(mesh, "cuont")  # type: ignore[arg-type]
    assert str(told.value) == "no such group (offline and not asked: w1 for 3 min): did you mean 'count'?"
    assert told.value.advice() == [f"hint: {command_name()} jobs groups lists the groups"]


def test_a_collector_on_an_online_host_without_an_answer_is_not_awaited_long() -> None:
    class Mute(Mesh):
        def paglet(self, agent_id: Any, *, timeout: float | None = None) -> Any:
            waited.append(timeout)
            raise TimedOut("no reply")

    waited: list[float | None] = []
    silent = replace(AWAY, online=True, seconds_since_seen=5.0)
    with pytest.raises(Unreachable, match=r"is on w1, last seen 5\.0 s ago"):
        collector_of(Mute(LAPTOP, silent), "g")  # type: ignore[arg-type]
    assert waited == [5.0]


def test_a_collector_whose_host_was_heard_of_a_moment_ago_is_looked_for_once_more() -> None:
    class Mute(Mesh):
        def paglet(self, agent_id: Any, *, timeout: float | None = None) -> Any:
            self._views = (
                LAPTOP,
                replace(AWAY, online=True, seconds_since_seen=self._views[1].seconds_since_seen + 2.5),
            )
            raise TimedOut("no reply")

    heard = replace(AWAY, online=True, seconds_since_seen=0.0)
    with pytest.raises(Unreachable, match=r"is on w1, last seen 5\.0 s ago"):
        collector_of(Mute(LAPTOP, heard), "g")  # type: ignore[arg-type]


def test_a_collector_is_not_waited_for_longer_than_the_client_may_wait() -> None:
    now, waited = [0.0], []

    class Mute(Mesh):
        def paglet(self, agent_id: Any, *, timeout: float | None = None) -> Any:
            assert timeout is not None
            waited.append(timeout)
            now[0] += timeout
            raise TimedOut("no reply")

    mesh = Mute(LAPTOP, replace(AWAY, online=True, seconds_since_seen=0.0))
    for timeout, looks in ((2.0, [2.0]), (7.0, [5.0, 2.0]), (30.0, [5.0, 5.0])):
        mesh.timeout, waited = timeout, []
        collector_of(mesh, "g", lambda: now[0])  # type: ignore[arg-type]
        assert waited == looks


# What hosts know of a group whose collector cannot be asked.


class Known(Mesh):
    """A mesh where job `a` runs on w2 and job `b` has ended there; its report waits."""

    def __init__(self) -> None:
        super().__init__(LAPTOP, AWAY, MeshHostView(host=member("w2"), online=True, seconds_since_seen=0.0))
        waits = {"status": "COMPLETED", "reason": "report_waits", "reason_text": "it has ended, and its report waits"}
        self.copies = {"a": job_view("a", group_id="g"), "b": job_view("b", group_id="g", **waits)}

    def undelivered(self, group_id: str, job_key: str, *, timeout: float) -> MeshUndelivered:
        return MeshUndelivered()

    def mesh_slots(self, *, limit: int, timeout: float) -> Any:
        none = Resources()
        slots = Slots(
            host=W2, capacity=none, free=none, tags=(), running_jobs=1, queued_jobs=0, jobs=(*self.copies.values(),)
        )
        return (slots,), ()

    def job_attempts(self, job: str, *, timeout: float | None = None) -> JobAttempts:
        key = job.partition("/")[2]
        found = (unfinished(key),) if key in self.copies else ()
        return JobAttempts(attempts=(), unfinished=found, unreachable=())

    def paglet(self, agent_id: Any, *, timeout: float | None = None) -> PagletView:
        if agent_id not in self.copies:
            raise Unknown("no such paglet")
        return PagletView(
            agent_id=agent_id,
            class_name="m:C",
            kind="job",
            residence="here",
            epoch=1,
            host=W2,
            job=self.copies[agent_id],
        )


def unfinished(key: str) -> UnfinishedJob:
    return UnfinishedJob(
        agent_id=key,
        generation=1,
        attempt=1,
        status="RUNNING",
        residence="here",
        reason="",
        reason_text="",
        never=False,
        host=W2,
    )


def test_without_its_collector_a_job_is_explained_by_its_host() -> None:
    known: Any = Known()
    runs, ended = explain(known, "g/a"), explain(known, "g/b")
    assert (runs.fields["status"], runs.fields["host"], runs.code) == ("RUNNING", "w2", 0)
    assert "is on w1, last seen 3 min ago" in str(runs.fields["collector"])
    assert "jobs cancel --force g" in str(runs.fields["next"])
    assert (ended.fields["status"], ended.fields["why"]) == ("COMPLETED", "it has ended, and its report waits")
    assert ended.data["collector"] == runs.data["collector"]
    with pytest.raises(Unreachable, match="no reachable host has a copy of g/c"):
        explain(known, "g/c")


def test_of_a_group_whose_collector_is_away_the_hosts_say_what_they_have() -> None:
    found = explain(Known(), "g")  # type: ignore[arg-type]
    assert {(reason.state, reason.host, reason.such_as) for reason in found.reasons} == {
        ("RUNNING", "w2", "a"),
        ("COMPLETED", "w2", "b"),
    }
    assert [job["job_key"] for job in found.data["pending_jobs"]] == ["a", "b"]


def test_jobs_that_a_host_has_beyond_those_that_were_asked_for_are_told_of(capsys: pytest.CaptureFixture[str]) -> None:
    known = Known()
    known.copies = {f"{n:04d}": job_view(f"{n:04d}", group_id="g") for n in range(1000)}
    found = explain(known, "g")  # type: ignore[arg-type]
    assert (found.code, len(found.data["pending_jobs"])) == (1, 1000)
    assert "w2 has 1,000 jobs or more: some jobs of g may be missing" in capsys.readouterr().err


def test_a_group_that_nobody_knows_and_whose_jobs_are_there_is_told_by_their_hosts() -> None:
    known = Known()
    known.copies = {key: replace(job, group_id="lost") for key, job in known.copies.items()}
    found = explain(known, "lost")  # type: ignore[arg-type]
    assert "offline and not asked: w1" in str(found.fields["collector"])
    assert (
        found.fields["next"] == "its jobs continue, and their reports wait; cancel its jobs and submit again: "
        "paglets jobs cancel --force lost"
    )


def test_the_host_of_a_name_is_the_one_that_is_online_before_one_that_was_refused() -> None:
    online = replace(AWAY, online=True)
    for views in ((online, INTRUDER), (INTRUDER, online), (AWAY, INTRUDER), (INTRUDER, AWAY)):
        assert views_by_name(views)["w1"].host.store_id == "store-w1"
    later = replace(INTRUDER, host=replace(INTRUDER.host, joined=7), problem="")
    senior = replace(AWAY, host=replace(AWAY.host, joined=2))
    assert views_by_name([senior, later]) == views_by_name([later, senior]) == {"w1": senior}
    assert lease_holders(Mesh(LAPTOP, online, INTRUDER), [("w1", "")]) == {}  # type: ignore[arg-type]


def test_in_a_group_a_job_on_a_host_that_is_away_says_so_and_not_what_was_so_before() -> None:
    job = {"job_key": "a", "status": "WAITING_FOR_SLOT", "host_name": "w1", "reason_text": "0 free", "since": 1.0}
    assert pending_row(job, 2.0, views_by_name([AWAY]))[-1] == offline_text(AWAY)
    assert pending_row(job, 2.0, views_by_name([LAPTOP]))[-1] == "0 free"


def test_of_a_collector_that_is_online_nothing_is_said() -> None:
    assert collector_problem(W1, [LAPTOP, replace(AWAY, online=True)]) == ""


def test_a_refused_host_and_the_hosts_that_it_sees_are_not_joined() -> None:
    assert host_row(INTRUDER)[1] == "not joined (see below)"
    assert host_row(replace(AWAY, seconds_since_seen=0.0), is_alone=True)[1] == "not joined"
    assert host_row(AWAY)[1] == "offline for 3 min"


def test_a_collector_that_is_stuck_on_its_way_is_told_of_with_what_is_in_its_way() -> None:
    class Leaving(Mesh):
        def paglet(self, agent_id: Any, *, timeout: float | None = None) -> Any:
            raise TimedOut("no reply in the time given") from Moving("it is on its way to home (home has no room)")

    leaving = Leaving(LAPTOP, replace(AWAY, online=True, seconds_since_seen=0.0))
    with pytest.raises(Unreachable, match=r"the collector of g is moving from w1: .*home has no room"):
        collector_of(leaving, "g")  # type: ignore[arg-type]


def test_of_a_huge_text_the_beginning_and_the_end_are_shown() -> None:
    assert shortened("x" * 500) == "x" * 500
    huge = "begin" + "x" * 30_000 + "end"
    text = shortened(huge)
    assert text.startswith("begin")
    assert text.endswith("end")
    assert "29,508 more characters: --json shows all" in text
    assert len(failure_row("a", {"cause": "exception", "message": huge})[-1]) < 600  # type: ignore[arg-type]
