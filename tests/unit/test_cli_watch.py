"""The output of `paglets jobs wait`, `watch`, `status`, `history` and `top`."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pytest
from job_views import job_view
from test_client import running

from paglets.api.calls import CallReply
from paglets.api.groups import GroupView
from paglets.api.hosts import Hosts, MeshHostView
from paglets.api.paglets import PagletView
from paglets.api.slots import JobView, Slots, Usage
from paglets.cli.commands.jobs.overview import by_cpu_use, cpu_share, status_counts
from paglets.cli.commands.jobs.wait import JobLines, _follower
from paglets.cli.main import move_shared_options
from paglets.cli.options import nearest
from paglets.cli.output import say
from paglets.cli.views.job_records import ended_line
from paglets.client.host_client import HostClient
from paglets.core.errors import EXIT_CANCELLED, EXIT_DONE, EXIT_FAILED, PagletsError, TimedOut, Unknown, Unreachable
from paglets.core.refs import HostRef, ProxyRef
from paglets.slots.model import Resources
from paglets.system.progress import NoProgress, Progress, ProgressBar, ProgressLines
from tests.fakes.clock import FakeClock
from tests.fakes.exchange import TableExchange, TableHost
from tests.fakes.mesh import member

DONE = {"result": 1, "host_name": "w1", "runtime_seconds": 3.25}
FAILED = {"cause": "exception", "message": "ValueError: bad", "host_name": "w2", "runtime_seconds": 60}
CANCELLED = {"cause": "cancelled", "message": "cancelled: by a on b", "host_name": ""}


def page(pending: int, *, of: int = 0, **ended: dict[str, Any]) -> dict[str, Any]:
    """Return a reply to `ended` of a group with `of` jobs."""
    entries = [{"job_key": key, "failure" if "cause" in record else "result": record} for key, record in ended.items()]
    over = {"created_at": 5.0, "completed_at": None if pending else 46.0}
    return {"ended": entries, "pending_count": pending, "expected_count": of, "next": of - pending, **over}


def progress_of(*pages: dict[str, Any]) -> Progress:
    progress = Progress(group_id="words")
    for each in pages:
        progress.take(each)
    return progress


@pytest.mark.parametrize(
    ("pages", "words", "code"),
    [
        ([page(0)], "0 done of 0 in 41 s", EXIT_DONE),
        ([page(2, a=DONE, of=3), page(0, b=DONE, c=DONE, of=3)], "3 done of 3 in 41 s", EXIT_DONE),
        ([page(5, a=DONE, b=FAILED, of=7)], "1 done, 1 failed of 7", EXIT_FAILED),
        ([page(0, a=DONE, b=CANCELLED, of=2)], "1 done, 1 failed (1 cancelled) of 2 in 41 s", EXIT_CANCELLED),
        ([page(0, a=CANCELLED, b=FAILED, of=2)], "0 done, 2 failed (1 cancelled) of 2 in 41 s", EXIT_FAILED),
    ],
)
def test_how_a_group_ended_is_told_and_is_the_exit_code(pages: list[dict[str, Any]], words: str, code: int) -> None:
    progress = progress_of(*pages)
    assert (progress.words(), progress.code()) == (words, code)


def test_in_a_pipe_each_job_that_ended_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    JobLines("words")(page(1, monday=DONE, **{"tues\nday": FAILED}))
    assert capsys.readouterr().out == (
        "monday  done  w1  3.2 s\ntues\\nday  failed  w2  1 min  exception: ValueError: bad\n"
    )
    assert ended_line("x", CANCELLED) == "x  cancelled  by a on b"


def test_on_a_terminal_a_bar_says_how_far_how_fast_and_what_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    clock, out = FakeClock(), io.StringIO()
    bar = ProgressBar("words", clock.monotonic, all_failures=True, out=out)
    bar(page(9, a=DONE, of=10))
    clock.advance(2.0)
    bar(page(5, b=DONE, c=DONE, d=DONE, e=FAILED, of=10))
    drawn = [line for line in out.getvalue().replace("\r\x1b[K", "\n").split("\n") if line]
    assert drawn == [
        "words  [##                  ]  1 done, 9 pending of 10",
        "words: e failed on w2: ValueError: bad",
        "words  [##########          ]  4 done, 1 failed, 5 pending of 10, 2/s, 2.5 s left",
    ]
    bar(page(0, f=DONE, g=DONE, h=DONE, i=DONE, j=DONE, of=10))
    assert out.getvalue().endswith("\r\x1b[K")


def test_a_pipe_gets_a_line_for_changes_less_and_less_often(
    capsys: pytest.CaptureFixture[str],
) -> None:
    clock, said = FakeClock(), []
    lines = ProgressLines("words", clock.monotonic)
    for nth in range(100):
        clock.advance(1.0)
        lines(page(100 - nth, of=100, **({f"k{nth}": DONE} if nth < 50 else {})))
        said += [(nth + 1, line) for line in capsys.readouterr().err.splitlines()]
    assert said == [
        (10, "words: 10 done, 91 pending of 100"),
        (25, "words: 25 done, 76 pending of 100"),
        (48, "words: 48 done, 53 pending of 100"),
        (82, "words: 50 done, 19 pending of 100"),
    ]


def test_a_group_is_counted_by_status_and_cause() -> None:
    names = ("expected_count", "completed_count", "failed_count", "pending_count")
    told = {
        "group_id": "g",
        "status": "ACTIVE",
        **dict.fromkeys(names, 3),
        "pending": {"RUNNING": 1, "WAITING_FOR_SLOT": 2},
        "failed": {"oom": 1, "exception": 2},
    }
    counts = status_counts(told)
    assert list(counts["pending"].items()) == [("WAITING_FOR_SLOT", 2), ("RUNNING", 1)]
    assert counts["failed"] == {"exception": 2, "oom": 1}


def job(agent_id: str, *, cpu: float, seconds: float, status: str = "RUNNING") -> JobView:
    return job_view(agent_id, status=status, running_seconds=seconds, usage=Usage(cpu_seconds=cpu))


def test_the_busiest_running_job_comes_first() -> None:
    def slots(name: str, *jobs: JobView) -> Slots:
        return Slots(
            host=HostRef(store_id=name, name=name, url=f"http://{name}:1"),
            capacity=Resources(),
            free=Resources(),
            tags=(),
            queued_jobs=0,
            running_jobs=len(jobs),
            jobs=jobs,
        )

    w1 = slots("w1", job("a", cpu=5, seconds=10), job("q", cpu=0, seconds=0, status="WAITING_FOR_SLOT"))
    w2 = slots("w2", job("b", cpu=30, seconds=10), job("c", cpu=0, seconds=0))
    assert [found.agent_id for _, found in by_cpu_use((w1, w2))] == ["b", "a", "c"]
    assert cpu_share(w2.jobs[0]) == 3.0


def test_an_offline_collector_is_awaited_until_the_commands_timeout(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    home = TableHost(name="home")
    collector = ProxyRef(agent_id="c1", host=home.ref)
    view = GroupView(
        group_id="words",
        class_name="m:C",
        created_at=0.0,
        home=home.ref,
        collector=collector,
        detached=False,
        detached_reason="",
    )
    replies: list[PagletsError | dict[str, Any]] = [*[TimedOut("no reply from c1")] * 2, page(0, a=DONE, of=1)]

    def answer(body: Any) -> CallReply:
        reply = replies.pop(0)
        if isinstance(reply, PagletsError):
            raise reply
        return CallReply(value=reply)

    def paglet(body: Any) -> PagletView:
        return PagletView(agent_id="c1", class_name="m:C", kind="collector", residence="here", epoch=1, host=home.ref)

    home.routes["GET /v1/groups/words"] = lambda body: view
    home.routes["GET /v1/paglets/c1"] = paglet
    home.routes["POST /v1/paglets/c1/call"] = answer
    client = HostClient(exchange=TableExchange(home), environ=running(tmp_path, "home"))
    shows = JobLines("words")
    assert [len(each["ended"]) for each in _follower(client, "words", shows).pages(None, brief=True)] == [1]
    assert "no reply from c1; waiting for it" in capsys.readouterr().err
    replies.append(TimedOut("no reply from c1"))
    with pytest.raises(TimedOut, match="the collector of words did not answer in 0 s: no reply from c1"):
        list(_follower(client, "words", shows).pages(0.0, brief=True))
    replies.append(page(1, of=1))
    with pytest.raises(TimedOut, match="words is not done after 0 s; its jobs continue: 1 job is pending"):
        list(_follower(client, "words", shows).pages(0.0, brief=True))


# The command line as a whole.


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["jobs", "ps"], ["jobs", "ps"]),
        (["--at", "w1", "jobs", "ps"], ["jobs", "ps", "--at", "w1"]),
        (["jobs", "--at=w1", "--json", "ps", "--all"], ["jobs", "ps", "--all", "--at=w1", "--json"]),
        (["--json"], ["--json"]),
        (["--at"], ["--at"]),
        (["jobs", "show", "--at", "w1", "x"], ["jobs", "show", "--at", "w1", "x"]),
    ],
)
def test_shared_options_may_stand_in_front(words: list[str], meant: list[str]) -> None:
    assert move_shared_options(words) == meant


def test_the_nearest_word_is_named_else_all() -> None:
    assert nearest("gruops", ["groups", "queue"]) == "did you mean 'groups'?"
    assert nearest("x", ["groups", "queue"]) == "choose from groups, queue"


def test_on_a_terminal_a_message_takes_the_place_of_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    sys.stderr.write("words  [###   ]  1 done of 2")
    say("it goes on")
    assert isinstance(sys.stderr, Terminal)
    assert sys.stderr.getvalue().endswith("\r\x1b[Kpaglets: it goes on\n")


@pytest.mark.parametrize(
    ("gone", "text"),
    [
        (HostRef(store_id="store-gpu", name="gpu", url="http://gpu:8765"), "was on gpu, which is no longer a host"),
        (HostRef(store_id="old", name="w1", url="http://w1:8765"), "was on w1, which restarted"),
    ],
)
def test_a_collector_whose_host_was_forgotten_or_began_anew_is_not_waited_for(
    tmp_path: Path, gone: HostRef, text: str
) -> None:
    home, heir = TableHost(name="home"), TableHost(name="w1")
    view = GroupView(
        group_id="words",
        class_name="m:C",
        created_at=0.0,
        home=home.ref,
        collector=ProxyRef(agent_id="c1", host=gone),
        detached=True,
        detached_reason="",
    )

    def unknown(body: Any) -> None:
        raise Unknown("nobody has it")

    exchange = TableExchange(home, heir)
    old = MeshHostView(host=member("w1", store_id="old"), online=False, seconds_since_seen=60.0)
    left = (old,) if gone.store_id == "old" else ()
    home.routes["GET /v1/mesh/hosts"] = lambda body: Hosts(hosts=(*exchange.members().hosts, *left))
    for host in (home, heir):
        host.routes["GET /v1/groups/words"] = lambda body: view
        host.routes["GET /v1/paglets/c1"] = unknown
        host.routes["POST /v1/paglets/c1/call"] = unknown
    client = HostClient(exchange=exchange, environ=running(tmp_path, "home"))
    with pytest.raises(Unreachable, match=text):
        next(_follower(client, "words", NoProgress("words")).pages(0.0, brief=True))
