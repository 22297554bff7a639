"""The jobs that hold what a waiting job lacks, in `jobs why` and `jobs queue`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from job_views import job_view
from test_cli import FakeHost

from paglets.api.hosts import HostIdentity, MeshHostView
from paglets.api.paglets import PagletView
from paglets.api.slots import JobView, Lease, Slots
from paglets.cli.commands.jobs import why
from paglets.cli.views.explanation import Explanation
from paglets.cli.views.job_rows import job_row
from paglets.cli.views.wait_reasons import holders_text
from paglets.core.errors import Unknown, Unreachable
from paglets.core.refs import HostRef
from paglets.slots.model import Resources
from tests.fakes.mesh import member

GIB = 1 << 30
W1 = HostRef(store_id="store-w1", name="w1", url="http://w1:8765")


def running(key: str, seconds: float, cores: int = 1, **held: Any) -> JobView:
    """Return a job of group `demo` with a lease."""
    lease = Lease(
        agent_id=key,
        attempt=1,
        generation=1,
        cpu_cores=tuple(range(cores)),
        **{"gpu_ids": (), "memory_bytes": 0, "temp_storage_bytes": 0, "granted_at": 0.0} | held,
    )
    return replace(waiting(key, ""), status="RUNNING", reason_text="", running_seconds=seconds, lease=lease)


def waiting(key: str, reason: str, text: str = "1 core asked, 0 free") -> JobView:
    said = {"reason": reason, "reason_text": text, "attempt": 0, "waited_seconds": 5.0}
    return job_view(key, group_id="demo", status="WAITING_FOR_SLOT", **said)


def slots(*jobs: JobView, **free: int) -> Slots:
    """Return the slots of w1, which offers 8 cores, 8 GiB of memory, 8 GiB of disk and 2 GPUs."""
    return Slots(
        host=W1,
        capacity=Resources(cpu_cores=8, memory_bytes=8 * GIB, temp_storage_bytes=8 * GIB, gpus=2),
        free=Resources(**free),
        tags=(),
        queued_jobs=0,
        running_jobs=len(jobs),
        jobs=jobs,
    )


ONE = running("a", 40.0)
BIG = running("b", 200.0, cores=2, memory_bytes=5 * GIB)


@pytest.mark.parametrize(
    ("given", "code", "text"),
    [
        (slots(ONE), "slots_busy", "held by demo/a (1 core for 40 s)"),
        (slots(ONE, BIG), "slots_busy", "held by demo/b (2 cores for 3 min 20 s) and demo/a (1 core for 40 s)"),
        (slots(ONE, BIG, memory_bytes=3 * GIB), "memory_short", "held by demo/b (5 GiB memory for 3 min 20 s)"),
        (
            slots(BIG, memory_bytes=GIB),
            "memory_short",
            "held by demo/b (5 GiB memory for 3 min 20 s) and other programs (2 GiB)",
        ),
        (slots(ONE, temp_storage_bytes=7 * GIB), "disk_short", "held by other programs (1 GiB)"),
        (slots(ONE, running("c", 3.0, gpu_ids=(0, 1))), "gpu_short", "held by demo/c (2 GPUs for 3.0 s)"),
        (slots(), "slots_busy", ""),
        (slots(ONE), "reserved_for", ""),
        (slots(ONE), "", ""),
    ],
)
def test_those_who_hold_what_is_lacking_are_named_with_how_much_and_how_long(
    given: Slots, code: str, text: str
) -> None:
    assert holders_text(given, code) == text


def test_of_many_the_three_that_hold_most_and_run_longest_are_named() -> None:
    many = [running(f"j{nth}", 10.0 * nth) for nth in range(6)]
    assert holders_text(slots(*many, BIG), "slots_busy") == (
        "held by demo/b (2 cores for 3 min 20 s), demo/j5 (1 core for 50 s), demo/j4 (1 core for 40 s) and 4 more"
    )


def test_in_a_queue_each_waiting_job_says_who_holds_what_it_lacks() -> None:
    given = slots(ONE, waiting("d", "slots_busy"))
    assert [job_row(job, given)[-1] for job in given.jobs] == [
        "",
        "1 core asked, 0 free; held by demo/a (1 core for 40 s)",
    ]


class Mesh(FakeHost):
    """A mesh where two jobs of group `g` wait on w1, one of them with the id `d`."""

    timeout = 30.0
    lost_after: float | None = None

    def identity(self, host: HostRef) -> HostIdentity:
        assert host.store_id == "store-w1"
        portrait = member("collects", store_id="store-w1")
        known = HostIdentity.of(portrait, program="paglets 1", python="3.11", pid=1)
        return replace(known, host_lost_after_seconds=self.lost_after)

    def __init__(self, told: Slots | Unreachable, *, online: bool = True, reason: str = "slots_busy") -> None:
        wait = {"status": "WAITING_FOR_SLOT", "host_name": "w1", "reason": reason, "since": 1.0}
        counted = wait | {"job_key": "c", "reason_text": "0 free", "never": False, "count": 2}
        jobs = [wait | {"job_key": key, "reason_text": "0 free"} for key in ("c", "d")]
        super().__init__(pending_jobs=jobs, pending_reasons=[counted])
        self._told, self._online = told, online
        self.asked: list[str | None] = []

    def hosts(self) -> tuple[MeshHostView, ...]:
        view = MeshHostView(host=member("w1", store_id="another"), online=self._online, seconds_since_seen=0.0)
        return (*super().hosts(), view)

    def slots(self, *, limit: int, host: str | None = None, timeout: float | None = None) -> Slots:
        assert timeout == why.HELD_SECONDS
        self.asked.append(host)
        if isinstance(self._told, Unreachable):
            raise self._told
        return self._told

    def paglet(self, agent_id: Any, *, timeout: float | None = None) -> PagletView:
        if agent_id != "d":
            raise Unknown("no such paglet")
        return PagletView(
            agent_id="d",
            class_name="count:Job",
            kind="job",
            residence="here",
            epoch=1,
            host=W1,
            job=waiting("d", "slots_busy", "0 free"),
        )


def explain(mesh: Mesh, selector: str) -> Explanation:
    return why.explain(mesh, selector)  # type: ignore[arg-type]


@pytest.mark.parametrize("selector", ["g/d", "d"])
def test_why_of_a_job_names_who_holds_what_it_lacks(selector: str) -> None:
    found = explain(Mesh(slots(ONE)), selector)
    assert found.fields["why"] == "0 free; held by demo/a (1 core for 40 s)"


def test_why_of_a_group_asks_each_host_once() -> None:
    mesh = Mesh(slots(ONE))
    reasons = [reason for reason in explain(mesh, "g").reasons if reason.state == "WAITING_FOR_SLOT"]
    assert [(each.count, each.text) for each in reasons] == [(2, "0 free; held by demo/a (1 core for 40 s)")]
    assert mesh.asked == ["w1"]


def test_of_a_host_that_is_away_it_is_said_what_becomes_of_its_jobs() -> None:
    mesh = Mesh(slots(ONE), online=False)
    away = "w1 is offline, last seen 0.0 s ago: {} the job is submitted again, or at once with "
    away += "`paglets mesh forget w1`"
    for mesh.lost_after, when in ((None, "if that lasts"), (97.0, "in about 1 min 37 s"), (0.0, "within seconds")):
        assert explain(mesh, "g/d").fields["why"] == f"0 free; {away.format(when)}"
    assert mesh.asked == []


@pytest.mark.parametrize(
    ("mesh", "asked"),
    [
        (Mesh(Unreachable("w1 does not answer")), ["w1"]),
        (Mesh(slots(ONE), reason="reserved_for"), []),
    ],
)
def test_where_that_cannot_be_told_the_reason_stands_alone(mesh: Mesh, asked: list[str]) -> None:
    assert explain(mesh, "g/d").fields["why"] == "0 free"
    assert mesh.asked == asked
