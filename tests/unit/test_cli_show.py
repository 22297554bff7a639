"""`paglets jobs show`: one job, its code, its files, its attempts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from paglets.api.hosts import MeshHostView
from paglets.api.logs import AttemptView, UnfinishedJob
from paglets.api.paglets import PagletView
from paglets.api.slots import JobView
from paglets.cli.commands.jobs.show import find_details
from paglets.cli.views.job_details import MOST_LINES, JobDetails, print_job_details
from paglets.client.job_logs import JobAttempts
from paglets.client.orphaned_groups import OrphanedGroup
from paglets.client.undelivered import MeshUndelivered
from paglets.codec.bundle import zipped
from paglets.core.errors import PagletsError, Unknown, Unreachable
from paglets.core.messages import Message
from paglets.core.refs import BlobRef, FileRef, HostRef, ProxyRef
from tests.fakes.mesh import member

W1 = HostRef(store_id="s1", name="w1", url="http://w1:8765")
BUNDLE = BlobRef(sha256="ab" * 32, size_bytes=300)
ENDED = {"result": {"n": 1}, "host_name": "w1", "generation": 1, "attempt": 1, "runtime_seconds": 3.0}
WAITS = {
    "job_key": "b",
    "status": "WAITING_FOR_SLOT",
    "host_name": "w1",
    "reason_text": "2 cores wanted",
    "never": False,
}


def attempt(key: str, agent_id: str) -> AttemptView:
    return AttemptView(
        agent_id=agent_id,
        group_id="g",
        job_key=key,
        generation=1,
        attempt=1,
        status="COMPLETED",
        ended=True,
        kept=True,
        host=W1,
    )


def unfinished(agent_id: str, **more: Any) -> UnfinishedJob:
    values = {"generation": 1, "attempt": 0, "status": "WAITING_FOR_SLOT", "residence": "here", "reason": "slots"}
    return UnfinishedJob(**values | {"agent_id": agent_id, "reason_text": "", "never": False, "host": W1} | more)


class Client:
    """A client of a mesh with group `g`: job `a` has ended, and a copy of job `b` waits on w1."""

    timeout = 30.0

    def __init__(self) -> None:
        self.waited: list[float | None] = []
        self.unreachable: tuple[PagletsError, ...] = ()
        self.left = MeshUndelivered()
        self.code: bytes | PagletsError = zipped({"count.py": b"x" * 40, "pkg/__init__.py": b""})
        self.files: tuple[FileRef, ...] = ()
        self.copies = {"g/b": (unfinished("b1"),), "b1": (unfinished("b1"),)}

    def undelivered(self, group_id: str, job_key: str, *, timeout: float) -> MeshUndelivered:
        return self.left

    def group(self, group_id: str) -> Any:
        if group_id != "g":
            raise Unknown(f"no group {group_id}")
        return type(
            "View",
            (),
            {"class_name": "count:Job", "collector": ProxyRef(agent_id="c", host=W1), "job_keys": ("a", "b")},
        )

    def hosts(self) -> tuple[Any, ...]:
        row = member("collects", store_id=W1.store_id)
        return (MeshHostView(host=row, online=True, seconds_since_seen=0.0),)

    def call_tree(self, target: ProxyRef, message: Message, timeout_seconds: float | None = None) -> Any:
        return {
            "group_id": "g",
            "collector": {"host_name": "collects"},
            "results": {"a": ENDED},
            "failures": {},
            "pending_jobs": [WAITS],
            "jobs": {"a": {"n": 1}},
        }

    def job_attempts(self, job: str, *, timeout: float | None = None) -> JobAttempts:
        self.waited.append(timeout)
        attempts = (attempt("a", "a1"),) if job in ("g/a", "a1") else ()
        return JobAttempts(attempts=attempts, unfinished=self.copies.get(job, ()), unreachable=self.unreachable)

    def mesh_groups(self, timeout: float) -> tuple[tuple[Any, ...], dict[Any, Any]]:
        return (), {}

    def orphaned_group(self, group_id: str, *, timeout: float | None = None) -> OrphanedGroup:
        return OrphanedGroup(group_id=group_id)

    def waiting_reports(self, left: OrphanedGroup, job_key: str | None = None) -> Iterator[Any]:
        return iter(())

    def paglet(self, agent_id: Any, *, timeout: float | None = None) -> PagletView:
        if agent_id != "b1":
            raise Unknown(f"paglet {agent_id} has ended")
        job = JobView(
            agent_id="b1",
            group_id="g",
            job_key="b",
            generation=1,
            attempt=0,
            status="WAITING_FOR_SLOT",
            residence="here",
            reason="slots",
            reason_text="2 cores wanted",
            never=False,
            waited_seconds=1.0,
            running_seconds=0.0,
            request={},
        )
        return PagletView(
            agent_id="b1",
            class_name="count:Job",
            kind="job",
            residence="here",
            epoch=1,
            host=W1,
            job=job,
            bundle=BUNDLE,
            files=self.files,
        )

    def read_blob(self, blob: BlobRef, host: HostRef) -> bytes:
        assert (blob, host) == (BUNDLE, W1)
        if isinstance(self.code, PagletsError):
            raise self.code
        return self.code


def shown(client: Client, selector: str) -> JobDetails:
    return find_details(client, selector)  # type: ignore[arg-type]


@pytest.mark.parametrize("selector", ["g/b", "b1"])
def test_a_job_that_waits_is_shown_with_its_code_and_files(selector: str, capsys: pytest.CaptureFixture[str]) -> None:
    client = Client()
    client.files = tuple(FileRef(name=f"in-{nth}.txt", sha256="cd" * 32, size_bytes=5) for nth in range(MOST_LINES + 2))
    found = shown(client, selector)
    assert (found.job, found.class_name, found.explanation.code) == ("g/b", "count:Job", 0)
    assert found.code is not None
    assert found.code.files == (("count.py", 40), ("pkg/__init__.py", 0))

    print_job_details(found)
    said = capsys.readouterr()
    for words in ("abababababab (300 bytes): 2 files", "pkg/__init__.py", "in-0.txt", "2 cores wanted"):
        assert words in said.out
    assert "2 more files of inputs: --json shows all" in said.err


@pytest.mark.parametrize("selector", ["g/a", "a1"])
def test_a_job_that_ended_is_shown_by_its_key_and_by_the_id_of_its_copy(
    selector: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = shown(Client(), selector)
    assert (found.job, found.class_name, found.is_here, found.code) == ("g/a", "count:Job", False, None)
    print_job_details(found)
    said = capsys.readouterr().out
    for words in ("COMPLETED", "w1", 'result    {"n": 1}', 'metadata  {"n": 1}', "paglets jobs logs g/a"):
        assert words in said


@pytest.mark.parametrize("code", [b"no archive", b"", Unreachable("w1 is away"), zipped({})[:-3]])
def test_code_that_cannot_be_looked_at_is_told_and_the_rest_shown(code: bytes | PagletsError) -> None:
    client = Client()
    client.code = code
    found = shown(client, "g/b")
    assert found.code is not None
    assert found.code.problem
    assert found.code.files == ()
    assert found.class_name == "count:Job"


@pytest.mark.parametrize("selector", ["g/nothing", "nothing", "nothing/a"])
def test_what_names_no_job_is_unknown(selector: str) -> None:
    with pytest.raises(Unknown):
        shown(Client(), selector)


def test_an_attempt_that_died_is_told_with_its_cause(capsys: pytest.CaptureFixture[str]) -> None:
    died = replace(attempt("b", "b1"), status="WAITING_FOR_SLOT", cause="signal:SIGKILL")
    lost = replace(died, attempt=2, cause="host_lost")
    print_job_details(replace(shown(Client(), "g/b"), attempts=(died, lost)))
    told = capsys.readouterr().out.splitlines()
    assert told[-3].split() == ["ATTEMPT", "STATUS", "HOST", "CAUSE"]
    assert told[-2].split(maxsplit=1) == ["1", "FAILED, retried  w1    signal:SIGKILL"]
    assert told[-1].split(maxsplit=1) == ["2", "LOST, retried    w1    host_lost"]


def test_where_the_collector_is_away_what_the_jobs_host_knows_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    class Away(Client):
        def hosts(self) -> tuple[Any, ...]:
            row = member("collects", store_id=W1.store_id)
            return (MeshHostView(host=row, online=False, seconds_since_seen=20.0),)

        def slots(self, **how: Any) -> Any:
            raise Unreachable("w1 is away")

        def paglet(self, agent_id: Any, *, timeout: float | None = None) -> PagletView:
            if isinstance(agent_id, ProxyRef):
                raise Unknown("not there")
            return super().paglet(agent_id)

    found = shown(Away(), "g/b")
    assert (found.explanation.fields["status"], found.is_here) == ("WAITING_FOR_SLOT", True)
    assert "last seen 20 s ago" in str(found.explanation.fields["collector"])


@pytest.mark.parametrize("selector", ["g/a", "g/b", "b1"])
def test_a_host_that_hangs_is_not_waited_for_as_long_as_the_client_may_and_is_told(selector: str) -> None:
    client = Client()
    client.unreachable = (Unreachable("w9: no answer within 5 s"),)
    assert shown(client, selector).unreachable == client.unreachable
    assert set(client.waited) == {5.0}
    client.waited.clear()
    find_details(client, selector, 60.0)  # type: ignore[arg-type]
    assert set(client.waited) == {60.0}
