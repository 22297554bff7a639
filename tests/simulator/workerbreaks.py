"""Deliberate bugs in the handling of warm workers, made like those in `breaks`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from paglets.worker.host.worker_jobs import NOT_STARTED
from paglets.worker.host.worker_pool import WorkerPool, WorkerProcesses
from paglets.worker.launch import LaunchEvents, ProcessExit
from paglets.worker.protocol import Go
from tests.simulator.breaks import Break, by_sql, rewritten
from tests.simulator.faults import Trouble
from tests.simulator.profile import Profile, calm
from tests.simulator.tampering import Tampering
from tests.simulator.workers import SIGKILL, SimWorker


class Charging:
    """The events of a launcher, which charges all jobs of a worker for its end."""

    def __init__(self, events: LaunchEvents) -> None:
        self._events = events

    def __getattr__(self, name: str) -> Any:
        return getattr(self._events, name)

    def ended(self, token: str, how: ProcessExit) -> None:
        charged = replace(how, error="", launcher_lost=False, signal=SIGKILL)
        self._events.ended(token, charged if how.error == NOT_STARTED else how)


def _charging(processes: WorkerProcesses, events: LaunchEvents) -> WorkerPool:
    return WorkerPool(processes, cast(LaunchEvents, Charging(events)))


class EagerWorker(SimWorker):
    """A worker that imports the module of its jobs before the host has stored its process."""

    def fork(self, pid: int) -> None:
        super().fork(pid)
        self.run_code()


class CarelessWorker(SimWorker):
    """A worker that does not check what its jobs leave behind."""

    def difference(self) -> str:
        return ""


class DeafWorker(SimWorker):
    """A worker that runs a job that it gave back."""

    def _withdraw(self, token: str) -> None:
        kept = self._waiting.copy()
        super()._withdraw(token)
        self._waiting = kept


class StaleWorker(SimWorker):
    """A worker that keeps the id and the directory of its first job."""

    def enter(self, go: Go) -> None:
        if not self.has_run_code:
            super().enter(go)


def _working() -> Profile:
    """Return a run of jobs for warm workers that are killed, on machines that crash and restart."""
    base = calm(2)
    load = replace(base.load, groups=3, most_jobs=16, files=1.0, workers=1.0, short=0.5, counters=0, seconds=10.0)
    return replace(base, load=load, trouble=Trouble(crashes=4, workers=8, seconds=15.0))


def _ahead() -> Profile:
    """Return a run of jobs most of which are so short that others are sent ahead."""
    profile = _working()
    return replace(profile, load=replace(profile.load, short=1.0), trouble=Trouble(seconds=15.0))


WORKER_BREAKS: tuple[Break, ...] = (
    Break(
        name="a job runs twice because it was sent ahead",
        tamper=lambda: Tampering(worker=DeafWorker),
        profile=_ahead(),
    ),
    by_sql(
        "a job that was sent ahead is running without a lease",
        rewritten("UPDATE lease_units SET agent_id = ? WHERE agent_id = ?", "SELECT ?, ?"),
        profile=_ahead(),
    ),
    Break(
        name="a job is charged for the end of a worker that did not begin it",
        tamper=lambda: Tampering(pool=_charging),
        profile=_working(),
    ),
    Break(
        name="a worker imports before its process is stored",
        tamper=lambda: Tampering(worker=EagerWorker),
        profile=_working(),
    ),
    by_sql(
        "a worker of an earlier start goes on",
        rewritten(" FROM templates ORDER BY token", " FROM templates WHERE token NOT LIKE 'worker-%' ORDER BY token"),
        profile=_working(),
    ),
    Break(
        name="a job runs in a process in which another job left something",
        tamper=lambda: Tampering(worker=CarelessWorker),
        profile=_working(),
    ),
    Break(
        name="a job has the id of the job before it",
        tamper=lambda: Tampering(worker=StaleWorker),
        profile=_working(),
    ),
    by_sql(
        "a job of a worker runs beside others after a crash of its host",
        rewritten("UPDATE paglets SET launcher_deaths = ?", ""),
        profile=_working(),
    ),
)
