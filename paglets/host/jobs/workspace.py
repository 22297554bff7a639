"""The disk space of processes: their scratch directories and log paths, and the check whether a process can start."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from functools import partial

from paglets.core.errors import StoreTransient
from paglets.host.handoff.placer import PlacementDenyList
from paglets.host.records import backpressure, disk_full_policy
from paglets.host.records.run_repository import LaunchPaths, Run
from paglets.host.runtime.services import HostServices
from paglets.slots.eligibility import Reason
from paglets.store import jobs, paglets, residence
from paglets.store.db import Tx
from paglets.worker.launch import LaunchSpec, ProcessExit

PLACE_AGAIN_SECONDS = 10.0
"""Seconds for which no process is started after one could not start for lack of disk space.

Only the start of a process shows that a quota is used up.
"""

LAUNCHER_SILENT = "launcher_silent"
"""The reason code of jobs that wait while the zygote does not answer."""


def launch_paths(services: HostServices) -> LaunchPaths:
    """Return the paths of this host that processes get."""
    return LaunchPaths(
        own=services.own,
        code_paths=services.settings.code_paths,
        code_folder=services.blobs.code_folder(),
        blob_path=services.blobs.path,
    )


class ProcessWorkspace:
    """The disk space of processes. All methods but `blocked_reason` run on the runner's thread."""

    def __init__(self, services: HostServices) -> None:
        self._services = services
        self._obstacle: Reason | None = None
        self._obstacle_until = float("-inf")
        self._paused: dict[str, float] = {}
        self._launcher_trouble: Reason | None = None

    def launcher_troubled(self, text: str) -> None:
        """Set the reason why the launcher cannot start processes. With "", clear the reason."""
        self._launcher_trouble = Reason(code=LAUNCHER_SILENT, text=text) if text else None

    def blocked_reason(self) -> Reason | None:
        """Return the reason why no process can start, or None if one can. May be called from any thread."""
        if self._launcher_trouble is not None:
            return self._launcher_trouble
        if self._services.clock.monotonic() < self._obstacle_until:
            return self._obstacle
        return self._services.disk.blocked_reason()

    def may_start(self, agent_id: str) -> bool:
        """Return True if a process of that paglet may be started now."""
        return self.blocked_reason() is None and self._services.clock.monotonic() >= self._paused.get(
            agent_id, float("-inf")
        )

    def spec(self, run: Run, cores: tuple[int, ...], gpus: tuple[int, ...]) -> LaunchSpec:
        """Create the scratch directory of a run, and return its LaunchSpec. Raises OSError or StoreTransient."""
        stamp, disk = run.stamp, self._services.disk
        is_attempt = run.entry == "attempt"
        fresh, alone = (True, run.alone) if is_attempt else self._services.store.read(partial(_found, stamp.agent_id))
        bound_to = cores if self._services.settings.pin_cpus else ()
        environment = {"CUDA_VISIBLE_DEVICES": ",".join(map(str, gpus))} if is_attempt else {}
        return LaunchSpec(
            token=stamp.token,
            agent_id=stamp.agent_id,
            attempt=stamp.attempt,
            work_dir=disk.prepare(stamp.agent_id, fresh=fresh),
            stdout_path=disk.log_path(stamp.agent_id, stamp.generation, stamp.attempt, "out"),
            stderr_path=disk.log_path(stamp.agent_id, stamp.generation, stamp.attempt, "err"),
            environment=environment,
            cores=bound_to,
            alone=alone,
            threads=len(cores),
            template=run.template,
            worker=None if run.worker is None else replace(run.worker, cores=bound_to),
            line=run.line,
        )

    def not_made(self, run: Run, error: OSError | StoreTransient) -> ProcessExit:
        """Return the ProcessExit of a run whose scratch directory could not be created. Pause further starts."""
        is_of_disk = not isinstance(error, OSError) or error.errno in backpressure.OF_THE_DISK
        if is_of_disk or self._services.disk.blocked_reason() is not None:
            return self.lacking(str(error), ProcessExit())
        self._paused = {agent_id: at for agent_id, at in self._paused.items() if at > run.started_at}
        self._paused[run.agent_id] = run.started_at + PLACE_AGAIN_SECONDS
        return ProcessExit(error=str(error))

    def leave_full_disk(self, agent_id: str, deny_list: PlacementDenyList) -> None:
        """Remove the scratch directory of a job that found the disk full.

        Let the job be placed again after a pause, on another host if one is eligible.
        """
        now = self._services.clock.monotonic()
        times = self._services.store.read(lambda tx: jobs.disk_fulls(tx, agent_id))
        deny_list.avoid(agent_id, self._services.own.store_id, now)
        deny_list.pause(agent_id, now + disk_full_policy.pause_seconds(times or 1))
        # Files that cannot be removed now are removed when the next attempt starts.
        with suppress(OSError):
            self._services.disk.discard(agent_id)

    def lacking(self, why: str, how: ProcessExit) -> ProcessExit:
        """Return `how` for a run for which the disk has no room, so that it does not count as a failed attempt.

        Block all starts for PLACE_AGAIN_SECONDS.
        """
        self._obstacle = Reason(code="disk_full", text=f"the host has no disk space for a process: {why}")
        self._obstacle_until = self._services.clock.monotonic() + PLACE_AGAIN_SECONDS
        return replace(how, error=self._obstacle.text, launcher_lost=True)


def _found(agent_id: str, tx: Tx) -> tuple[bool, bool]:
    """Return two flags: the scratch directory is stale, and a zygote of its own must fork the process."""
    return residence.has_stale_scratch(tx, agent_id), paglets.launcher_deaths(tx, agent_id) > 0
