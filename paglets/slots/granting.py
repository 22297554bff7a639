"""The decision which waiting jobs start now on this host, on which cores and GPUs, and why the others wait."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from paglets.slots.amounts import SHORT_REASONS, resources_text, short_text
from paglets.slots.eligibility import Reason
from paglets.slots.model import Resources, SlotRequest

LOOK_AHEAD_JOBS = 1000
"""The number of queued jobs that a pass reads beyond the free cores. Many jobs that lack one resource could otherwise
hide smaller ones behind them. Reading and checking this many takes a few milliseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingJob:
    """A job in this host's queue.

    `waited_seconds`: waiting time on all hosts since its submission. `here_seconds`: time on this host. `stolen`: this
    host stole it.
    """

    agent_id: str
    request: SlotRequest
    home_store_id: str
    waited_seconds: float
    here_seconds: float
    stolen: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FreeUnits:
    """The resources that no lease holds: ids of cores and GPUs, and bytes."""

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
    """A job that starts now, with its cores and GPUs."""

    agent_id: str
    cores: tuple[int, ...]
    gpus: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grants:
    """The result of a pass. `reasons`: for each checked job that does not start. `others`: for all jobs not checked."""

    grants: tuple[Grant, ...]
    reasons: dict[str, Reason]
    others: Reason
    reserved_for: str | None = None


def queue_window(free_cores: int) -> int:
    """Return how many of the oldest waiting jobs a pass has to read.

    Without a free core the result is 0, because every job needs one. Otherwise it is one job per free core plus
    `LOOK_AHEAD_JOBS`, so that jobs that do not fit seldom hide younger ones. Jobs further back get their turn as the
    queue moves, which the reservation guarantees.
    """
    return 0 if free_cores <= 0 else free_cores + LOOK_AHEAD_JOBS


class _Pass:
    """A pass over the queue, oldest job first."""

    def __init__(self, free: FreeUnits, offered: Resources, leased: Resources, reserve_after_seconds: float) -> None:
        self.cores, self.gpus = list(free.cores), list(free.gpus)
        self.left = free.amounts()
        self.usable = self.left
        self.offered = offered
        self.when_idle = (self.left + leased).smallest(offered)
        self.reserve_after_seconds = reserve_after_seconds
        self.grants: list[Grant] = []
        self.reserved: WaitingJob | None = None
        # Free resources only shrink, so equal requests get the same result until the next change.
        self.refused: dict[Resources, Reason] = {}

    def offer(self, job: WaitingJob) -> Reason | None:
        """Start the job and return None, or return why it does not start."""
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
            return Reason(code="too_large", text=f"this host can never run it: {text}", never=True)
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
        """Reserve resources for this job if it has waited long and would fit once all leases end.

        If the job would not fit even on an idle host (other programs hold the memory), a reservation would stop every
        job and help none.
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
    """Decide which jobs of a window of the queue (`queue_window`) start: the oldest that fit, oldest first.

    The oldest job that does not fit and has waited `reserve_after_seconds` gets a reservation. No younger job takes its
    resources, so it starts when enough leases have ended. The pass stops reading `queue` when no core is left.
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
