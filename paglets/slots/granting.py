"""The decision which waiting jobs start now on this host, on which cores and GPUs, and why other jobs wait."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from paglets.slots.amounts import SHORT_REASONS, resources_text, short_text
from paglets.slots.eligibility import Reason
from paglets.slots.model import Resources, SlotRequest

LOOK_AHEAD_JOBS = 1000
"""Number of queued jobs that a pass reads in addition to one job per free core. Otherwise many jobs that lack a
resource could hide smaller jobs behind them. Reading this many jobs takes a few milliseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingJob:
    """A job in this host's queue.

    `waited_seconds`: its waiting time on all hosts since its submission. `here_seconds`: its time in this queue.
    `stolen`: True if this host stole the job from another host.
    """

    agent_id: str
    request: SlotRequest
    home_store_id: str
    waited_seconds: float
    here_seconds: float
    stolen: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FreeUnits:
    """The free resources of a host: the ids of cores and GPUs without a lease, and numbers of bytes."""

    cores: tuple[int, ...]
    gpus: tuple[int, ...] = ()
    memory_bytes: int = 0
    temp_storage_bytes: int = 0

    def amounts(self) -> Resources:
        return Resources(
            cpu_cores=len(self.cores),
            memory_bytes=self.memory_bytes,
            temp_storage_bytes=self.temp_storage_bytes,
            gpus=len(self.gpus),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """A job that starts now, and the ids of its cores and GPUs."""

    agent_id: str
    cores: tuple[int, ...]
    gpus: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grants:
    """The result of a pass over the queue. `grants`: the jobs that start. `reasons`: why checked jobs do not start.

    `others`: the reason for jobs that were not checked. `reserved_for`: the job for which resources are reserved.
    """

    grants: tuple[Grant, ...]
    reasons: dict[str, Reason]
    others: Reason
    reserved_for: str | None = None


def queue_window(free_cores: int) -> int:
    """Return the number of oldest waiting jobs that a pass has to read.

    Without a free core this is 0, because every job needs a core. Otherwise it is one job per free core plus
    LOOK_AHEAD_JOBS. Jobs further back are read later, because the reservation guarantees that the queue moves.
    """
    return 0 if free_cores <= 0 else free_cores + LOOK_AHEAD_JOBS


class _Pass:
    """A pass over the queue of waiting jobs, oldest job first.

    `left`: what is free. `usable`: what is free and not reserved. `when_idle`: what is free without any lease.
    """

    def __init__(self, free: FreeUnits, offered: Resources, leased: Resources, reserve_after_seconds: float) -> None:
        self.cores, self.gpus = list(free.cores), list(free.gpus)
        self.left = free.amounts()
        self.usable = self.left
        self.offered = offered
        self.when_idle = (self.left + leased).smallest(offered)
        self.reserve_after_seconds = reserve_after_seconds
        self.grants: list[Grant] = []
        self.reserved: WaitingJob | None = None
        # The reasons of requests that did not fit. Free resources only shrink during a pass, so equal requests cannot
        # fit either. A start or a reservation clears the dict, because it changes the reasons.
        self.refused: dict[Resources, Reason] = {}

    def offer(self, job: WaitingJob) -> Reason | None:
        """Grant resources to the job and return None, or return the reason why it does not start."""
        wanted = job.request.resources
        if wanted in self.refused:
            return self.refused[wanted]
        if wanted.fits(self.usable):
            self._start(job)
            return None
        reason = self._why_not(job)
        self.refused[wanted] = reason
        return reason

    def _why_not(self, job: WaitingJob) -> Reason:
        wanted = job.request.resources
        lacking = wanted.lacking(self.left)
        if not lacking:
            return self._kept_free()
        if not wanted.fits(self.offered):
            text = short_text(wanted, self.offered, wanted.lacking(self.offered), "offered")
            return Reason(code="too_large", text=f"this host can never run the job: {text}", never=True)
        self._reserve(job)
        return Reason(code=SHORT_REASONS[lacking[0]], text=short_text(wanted, self.left, lacking, "free"))

    def _start(self, job: WaitingJob) -> None:
        wanted = job.request.resources
        cores, self.cores = self.cores[: wanted.cpu_cores], self.cores[wanted.cpu_cores :]
        gpus, self.gpus = self.gpus[: wanted.gpus], self.gpus[wanted.gpus :]
        self.grants.append(Grant(agent_id=job.agent_id, cores=tuple(cores), gpus=tuple(gpus)))
        self.left = self.left - wanted
        self.usable = self.usable - wanted
        self.refused.clear()

    def _reserve(self, job: WaitingJob) -> None:
        """Reserve resources for the job if it has waited long and fits once all leases have ended.

        If the job does not fit even then, because other programs use the memory, a reservation would only block other
        jobs.
        """
        wanted = job.request.resources
        waited_long = job.waited_seconds >= self.reserve_after_seconds
        if self.reserved is None and waited_long and wanted.fits(self.when_idle):
            self.reserved = job
            self.usable = self.left - wanted
            self.refused.clear()

    def _kept_free(self) -> Reason:
        assert self.reserved is not None, "only a reservation makes usable differ from left"
        kept = resources_text(self.reserved.request.resources)
        waited = f"{self.reserved.waited_seconds:.0f} s"
        return Reason(
            code="reserved_for",
            text=f"free resources are reserved for the older job {self.reserved.agent_id}, "
            f"which needs {kept} and has waited {waited}",
        )

    def others(self) -> Reason:
        if self.reserved is not None:
            return self._kept_free()
        return Reason(
            code="slots_busy",
            text=f"{self.left.cpu_cores} of {self.offered.cpu_cores} cores are free, and older jobs come first",
        )

    @property
    def full(self) -> bool:
        return self.usable.cpu_cores == 0


def grant(
    queue: Iterable[WaitingJob],
    free: FreeUnits,
    *,
    offered: Resources,
    leased: Resources,
    reserve_after_seconds: float,
) -> Grants:
    """Decide which of the oldest jobs in the queue (see `queue_window`) start. The oldest is checked first.

    The oldest job that does not fit and has waited `reserve_after_seconds` gets a reservation: no younger job takes the
    reserved resources, so it starts when enough leases have ended. The pass stops when no core is left.
    """
    one = _Pass(free, offered, leased, reserve_after_seconds)
    reasons: dict[str, Reason] = {}
    if not one.full:
        for job in queue:
            reason = one.offer(job)
            if reason is not None:
                reasons[job.agent_id] = reason
            if one.full:
                break
    return Grants(
        grants=tuple(one.grants),
        reasons=reasons,
        others=one.others(),
        reserved_for=None if one.reserved is None else one.reserved.agent_id,
    )
