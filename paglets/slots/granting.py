"""Which waiting jobs start now on this host, on which cores and GPUs; and why the others wait."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from paglets.slots.amounts import resources_text, short_text
from paglets.slots.eligibility import Reason
from paglets.slots.model import Resources, SlotRequest

LOOK_AHEAD_JOBS = 1000
"""How far a pass looks past jobs that do not fit. Ten thousand jobs of a shape that lacks one
resource could hide others behind them; reading and judging this many takes a few milliseconds."""

SHORT_REASONS = {
    "cpu_cores": "slots_busy",
    "memory_bytes": "memory_short",
    "temp_storage_bytes": "disk_short",
    "gpus": "gpu_short",
}
"""A resource -> the code of the reason that not enough of it is free."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingJob:
    """A job in this host's queue.

    `waited_seconds`: since it was submitted, on all hosts. `here_seconds`: since it came to this one.
    `stolen`: it came by stealing.
    """

    agent_id: str
    request: SlotRequest
    home_store_id: str
    waited_seconds: float
    here_seconds: float
    stolen: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FreeUnits:
    """What nobody has leased: ids of cores and GPUs, and bytes."""

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
    """This job starts now, on these cores and GPUs."""

    agent_id: str
    cores: tuple[int, ...]
    gpus: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grants:
    """`reasons`: for each job looked at that does not start; `others`: for the jobs not looked at."""

    grants: tuple[Grant, ...]
    reasons: dict[str, Reason]
    others: Reason
    reserved_for: str | None = None


def queue_window(free_cores: int) -> int:
    """How many of the oldest waiting jobs a pass must be given.

    None where no core is free, as every job needs one. Else one for each core that may be granted, and
    `LOOK_AHEAD_JOBS` more, so that jobs that do not fit seldom hide younger ones that do. What is
    further back gets its turn as the queue moves; the reservation sees to it that it does.
    """
    return 0 if free_cores <= 0 else free_cores + LOOK_AHEAD_JOBS


class _Pass:
    """One pass over the queue, oldest first."""

    def __init__(self, free: FreeUnits, offered: Resources, leased: Resources, reserve_after_seconds: float) -> None:
        self.cores, self.gpus = list(free.cores), list(free.gpus)
        self.left = free.amounts()
        self.usable = self.left
        self.offered = offered
        self.when_idle = (self.left + leased).smallest(offered)
        self.reserve_after_seconds = reserve_after_seconds
        self.grants: list[Grant] = []
        self.reserved: WaitingJob | None = None
        # What is free only shrinks: of equal requests only the first after a change is judged.
        self.refused: dict[Resources, Reason] = {}

    def offer(self, job: WaitingJob) -> Reason | None:
        """Start the job (None), or say why not."""
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
        """Keep for this job what it needs, if it waited long and the end of the leases will make room.

        Where even an idle host would be short (other programs hold the memory), keeping things free
        would stop every job and help none.
        """
        wanted = job.request.resources
        waited_long = job.waited_seconds >= self.reserve_after_seconds
        if self.reserved is None and waited_long and wanted.fits(self.when_idle):
            self.reserved = job
            self.usable = self.left - wanted
            self.refused.clear()

    def _kept_free(self) -> Reason:
        assert self.reserved is not None, "usable differs from left only by a reservation"
        kept = resources_text(self.reserved.request.resources)
        waited = f"{self.reserved.waited_seconds:.0f} s"
        return Reason(
            code="reserved_for",
            text=f"what is free is kept for the older job {self.reserved.agent_id}, "
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
    """Oldest fit first, over a window of the queue (`queue_window`), oldest first.

    The oldest job that does not fit and has waited `reserve_after_seconds` gets a reservation: no
    younger job takes what it needs, so that it starts when enough leases have ended. The pass ends, and
    takes no more from `queue`, as soon as no core can be had.
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
