"""Grant slots of this host to waiting jobs: the oldest job that fits comes first.

`paglets.slots.policy.grant` decides, in the transaction that stores the grants. The same transaction also sends jobs
ahead to warm workers, without a slot (see `paglets.host.jobs.lines`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice

from paglets.api.slots import Usage
from paglets.core.errors import StoreTransient
from paglets.host.jobs.idle_processes import lack_unleased_memory
from paglets.host.jobs.lines import shortest
from paglets.host.jobs.runs import Runs
from paglets.host.jobs.workspace import LAUNCHER_SILENT, ProcessWorkspace, launch_paths
from paglets.host.records import run_repository, templates
from paglets.host.records.run_repository import Run
from paglets.host.runtime.services import HostServices
from paglets.slots import policy
from paglets.slots.eligibility import Reason
from paglets.slots.model import Resources
from paglets.store import jobs as jobs_of_store
from paglets.store import lines, queue, residence
from paglets.store.db import Tx
from paglets.store.queue import QueuedJob
from paglets.worker.protocol import Go, Stamp

RESERVE_AFTER_SECONDS = 60.0
"""Seconds for which smaller jobs may overtake a large job. Afterwards, free slots are reserved for the large job."""

LOOK_AGAIN_SECONDS = 2.0
"""Seconds between two checks of free resources while jobs wait. No event reports what other programs free."""

MEMORY_FREED_SECONDS = 1.0
"""Seconds between two checks while jobs wait for memory that idle processes free when they end.

The time is short, because the meter measures once a second.
"""

MORE_REASONS_SECONDS = 0.1
"""Seconds between two passes while many new jobs have no reason yet: one pass stores the reasons of 1,000 jobs."""


AWAITED = policy.Reason(
    code="status_awaited",
    text="this host was suspended: it first asks the collector if the job is still wanted here",
    never=False,
)


OBSTACLES = ("disk_full", "disk_closed", LAUNCHER_SILENT)
"""The reason codes of jobs that wait because this host cannot start any process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """A run to launch. `go`: the frame for a warm worker, made in the transaction that stores the run."""

    run: Run
    cores: tuple[int, ...]
    gpus: tuple[int, ...]
    go: Go | None = None


def _any_waiting(tx: Tx) -> bool:
    return queue.has_more_than(tx, 0, "WAITING_FOR_SLOT")


class Scheduler:
    """The runner part `scheduler`, which grants slots to jobs."""

    name = "scheduler"

    def __init__(
        self,
        services: HostServices,
        runs: Runs,
        workspace: ProcessWorkspace,
        awaited: Callable[[], bool] = lambda: False,
    ) -> None:
        """Create the scheduler. `awaited` returns True while jobs of groups must wait for replies of their collectors.

        `_lack_memory` is True if jobs wait for memory that idle processes may hold. `_lack_reasons` is True if the last
        pass left waiting jobs without a reason. `_held` is True if waiting jobs may have a reason code from OBSTACLES.
        It is True at first, because the store may have kept such codes when the host ended. `_has_granted` is True if
        `join` has made the pass for which this part was woken.
        """
        self._services = services
        self._awaited = awaited
        self._runs = runs
        self._workspace = workspace
        self._paths = launch_paths(services)
        self._reserve_after = RESERVE_AFTER_SECONDS
        self._held = True
        self._lack_memory = False
        self._lack_reasons = False
        self._look_at = float("-inf")
        self._has_granted = False

    def join(self, tx: Tx) -> tuple[list[Granted], bool]:
        """Grant slots in the COMMIT that stores new jobs or the end of a run. If all are taken, only send jobs ahead.

        Return the runs to launch, and True if this was a complete pass.
        """
        if not _any_waiting(tx) or self._workspace.blocked_reason() is not None:
            return [], False
        if self._is_full(tx):
            return self._send_ahead(tx, [], self._services.clock.wall()), False
        return self._grant(tx, self._runs.running()), True

    def joined(self, value: tuple[list[Granted], bool]) -> None:
        granted, self._has_granted = value
        self._launch(granted)

    def _launch(self, granted: list[Granted]) -> None:
        for each in granted:
            self._runs.launch(each.run, each.cores, each.gpus, each.go)

    def tick(self, now: float) -> float | None:
        store, usage = self._services.store, self._runs.running()
        has_granted, self._has_granted = self._has_granted, False
        are_waiting, is_full = store.read(lambda tx: (_any_waiting(tx), self._is_full(tx)))
        if are_waiting:
            if now < self._look_at and is_full:
                return self._look_at  # All cores are leased, so a pass would cost a COMMIT and grant nothing.
            obstacle = self._workspace.blocked_reason()
            if obstacle is not None:
                self._held = True
                with suppress(StoreTransient):
                    store.write(lambda tx: self._hold(tx, obstacle))
                return now + self._pause()
            if not has_granted:
                self._launch(store.write(lambda tx: self._grant(tx, usage)))
            self._held = False
            if store.read(_any_waiting):
                self._end_idle_processes()
                self._look_at = now + self._pause()
                return self._look_at
        self._services.runner.wake("stealing")
        return None

    def _pause(self) -> float:
        """Return the seconds until the next pass."""
        if self._lack_reasons:
            return MORE_REASONS_SECONDS
        return MEMORY_FREED_SECONDS if self._lack_memory else LOOK_AGAIN_SECONDS

    def _end_idle_processes(self) -> None:
        idle = self._runs.idle_processes
        if self._lack_memory and idle.exist():
            idle.end_all()

    def _is_full(self, tx: Tx) -> bool:
        """Return True if all cores are leased, so that no slot can be granted."""
        return len(queue.leased_units(tx, "core")) >= self._services.settings.offered.cpu_cores

    def _hold(self, tx: Tx, why: Reason) -> None:
        """Store `why`, the reason why no process can start on this host, in the rows of all waiting jobs."""
        now = self._services.clock.wall()
        self._lack_memory = False
        for job in list(queue.waiting_for_slot(tx, policy.queue_window(1))):
            _set_reason(tx, job, why, now)
        self._lack_reasons = jobs_of_store.set_default_reason(tx, why.code, why.text, now)

    def _grant(self, tx: Tx, usage: dict[str, Usage]) -> list[Granted]:
        free = self.free_units(tx, usage)
        now = self._services.clock.wall()
        jobs: dict[str, QueuedJob] = {}
        awaited = self._awaited()
        if self._held:
            jobs_of_store.clear_reasons(tx, OBSTACLES)

        def oldest_first() -> Iterator[policy.WaitingJob]:
            for job in queue.waiting_for_slot(tx, policy.queue_window(len(free.cores))):
                if awaited and job.group_id is not None:
                    continue
                jobs[job.agent_id] = job
                yield as_waiting(job, now)

        offered, leased = self._services.settings.offered, queue.total_leased(tx)
        decided = policy.grant(
            oldest_first(), free, offered=offered, leased=leased, reserve_after_seconds=self._reserve_after
        )
        unleased = (offered - leased).memory_bytes
        self._lack_memory = lack_unleased_memory(decided.reasons.values(), free.memory_bytes, unleased)
        for agent_id, reason in decided.reasons.items():
            _set_reason(tx, jobs[agent_id], reason, now)
        made = [self._make(tx, jobs[grant.agent_id], grant, now) for grant in decided.grants]
        granted = [each for each in made if each is not None]
        granted += self._send_ahead(tx, granted, now)
        others = AWAITED if awaited else decided.others
        self._lack_reasons = jobs_of_store.set_default_reason(tx, others.code, others.text, now)
        return granted

    def _make(self, tx: Tx, job: QueuedJob, grant: policy.Grant, now: float) -> Granted | None:
        token = self._services.entropy.token()
        epoch = residence.epoch_here(tx, job.agent_id)
        if epoch is None or not queue.grant(tx, job, grant.cores, grant.gpus, token, epoch, now):
            return None
        run = _run(job, token, epoch, templates.sharing(tx, job.agent_id, self._paths))
        run.cores, go = grant.cores, None
        if run.worker is not None:
            run.line = token
            lines.join(tx, token, token)
            go = run_repository.go_frame(tx, run, self._paths)
        return Granted(run=run, cores=grant.cores, gpus=grant.gpus, go=go)

    def _send_ahead(self, tx: Tx, granted: list[Granted], now: float) -> list[Granted]:
        """Send the oldest waiting jobs to the lines with room, up to the first job that fits in none of them.

        Pass over jobs that this host can never run, as `policy.grant` does.
        """
        open_lines = self._runs.lines.with_room(lines.lengths(tx), (each.run for each in granted))
        room = 0 if self._awaited() else sum(line.room for line in open_lines)
        made: list[Granted] = []
        for job in self._oldest_that_fit(tx, room):
            shared = templates.sharing(tx, job.agent_id, self._paths)
            line = shortest(open_lines, shared.worker)
            epoch = residence.epoch_here(tx, job.agent_id)
            if line is None or epoch is None:
                break
            token = self._services.entropy.token()
            if lines.assign(tx, job, token, line.first.line, epoch, now):
                line.waiting, line.room = line.waiting + 1, line.room - 1
                run = _run(job, token, epoch, shared)
                run.line, run.is_ahead = line.first.line, True
                go = run_repository.go_frame(tx, run, self._paths)
                made.append(Granted(run=run, cores=line.first.cores, gpus=(), go=go))
        return made

    def _oldest_that_fit(self, tx: Tx, most: int) -> tuple[QueuedJob, ...]:
        """Return the oldest waiting jobs that this host could run if it were idle."""
        waiting = queue.waiting_for_slot(tx, policy.queue_window(most))
        offered = self._services.settings.offered
        return tuple(islice((job for job in waiting if job.request.resources.fits(offered)), most))

    def free_units(self, tx: Tx, usage: dict[str, Usage]) -> policy.FreeUnits:
        """Return the resources that are neither leased nor used by other programs.

        While this host cannot start a process, no core is free, so that other hosts send no jobs.
        """
        offered = self._services.settings.offered
        leased = queue.total_leased(tx)
        free = offered - leased
        available = self._services.meter.available() - unused(tx, usage)
        cores, gpus = queue.leased_units(tx, "core"), queue.leased_units(tx, "gpu")
        held = self._workspace.blocked_reason() is not None
        return policy.FreeUnits(
            cores=() if held else tuple(unit for unit in range(offered.cpu_cores) if unit not in cores),
            gpus=tuple(unit for unit in range(offered.gpus) if unit not in gpus),
            memory_bytes=min(free.memory_bytes, available.memory_bytes),
            temp_storage_bytes=min(free.temp_storage_bytes, available.temp_storage_bytes),
        )


def _set_reason(tx: Tx, job: QueuedJob, reason: Reason, now: float) -> None:
    """Store why a job waits. Execute no statement if the row has this reason, as for most jobs in each pass."""
    if (job.reason, job.reason_text, job.never) != (reason.code, reason.text, reason.never):
        queue.set_reason(tx, job.agent_id, reason.code, reason.text, reason.never, now)


def _run(job: QueuedJob, token: str, epoch: int, shared: templates.Sharing) -> Run:
    stamp = Stamp(agent_id=job.agent_id, epoch=epoch, generation=job.generation, attempt=job.attempt + 1, token=token)
    return Run(
        stamp=stamp,
        entry="attempt",
        timeout_seconds=job.request.timeout_seconds,
        template=shared.template,
        worker=shared.worker,
        alone=shared.alone,
    )


def unused(tx: Tx, usage: dict[str, Usage]) -> Resources:
    """Return the memory and disk that running jobs have leased but do not use yet. The system reports them as free."""
    memory = disk = 0
    for agent_id, lease in queue.leased_amounts(tx).items():
        used = usage.get(agent_id, Usage())
        memory += max(0, lease.memory_bytes - used.rss_bytes)
        disk += max(0, lease.temp_storage_bytes - used.scratch_bytes)
    return Resources(memory_bytes=memory, temp_storage_bytes=disk)


def as_waiting(job: QueuedJob, now: float) -> policy.WaitingJob:
    return policy.WaitingJob(
        agent_id=job.agent_id,
        request=job.request,
        home_store_id=job.home_store,
        waited_seconds=max(0.0, now - job.queued_at),
        here_seconds=max(0.0, now - job.here_at),
        stolen=job.stolen,
    )
