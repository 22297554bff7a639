"""Who holds what a waiting job lacks: the jobs with leases on its host, as that host's `GET /v1/slots` shows them.

The reason that a host notes for a job says how much is free. Who holds the rest changes all the time, and grows older:
that is looked up when somebody asks.
"""

from __future__ import annotations

from collections.abc import Sequence

from paglets.api.slots import JobView, Lease, Slots
from paglets.core.text import duration_text
from paglets.slots.amounts import amount_text, bytes_text
from paglets.slots.granting import SHORT_REASONS
from paglets.slots.model import Resources

LACKING = {code: name for name, code in SHORT_REASONS.items()}
"""The code of a reason -> the resource of which not enough is free."""

MOST_NAMED = 3


def job_name(job: JobView) -> str:
    """What commands take for it."""
    return f"{job.group_id}/{job.job_key}" if job.group_id else job.agent_id


def holders_text(slots: Slots, code: str) -> str:
    """`held by g/a (2 cores for 40 s), g/b (1 core for 3 min) and 2 more`, those that hold most first.

    "" where nothing is lacking, or nobody holds any.
    """
    name = LACKING.get(code)
    if name is None:
        return ""
    holders = _holders(slots.jobs, name)
    parts = [
        f"{job_name(job)} ({amount_text(name, amount)} for {duration_text(job.running_seconds)})"
        for amount, job in holders[:MOST_NAMED]
    ]
    others = _others(slots, name, sum(amount for amount, _ in holders))
    parts += [f"{len(holders) - MOST_NAMED} more"] if len(holders) > MOST_NAMED else []
    parts += [f"other programs ({bytes_text(others)})"] if others else []
    return f"held by {' and '.join(filter(None, (', '.join(parts[:-1]), parts[-1])))}" if parts else ""


def _holders(jobs: Sequence[JobView], name: str) -> list[tuple[int, JobView]]:
    """The jobs that leased some of it and how much, those with most first, of these the longest running."""
    held = [(getattr(_leased(job.lease), name), job) for job in jobs if job.lease is not None]
    holders = [(amount, job) for amount, job in held if amount]
    return sorted(holders, key=lambda each: (-each[0], -each[1].running_seconds))


def _leased(lease: Lease) -> Resources:
    return Resources(
        cpu_cores=len(lease.cpu_cores),
        memory_bytes=lease.memory_bytes,
        temp_storage_bytes=lease.temp_storage_bytes,
        gpus=len(lease.gpu_ids),
    )


def _others(slots: Slots, name: str, leased: int) -> int:
    """Bytes of memory or disk that are neither free nor leased. Cores and GPUs are lent to jobs only."""
    if not name.endswith("_bytes"):
        return 0
    others: int = getattr(slots.capacity, name) - getattr(slots.free, name) - leased
    return max(0, others)


def wait_reason_text(code: str, text: str, *, never: bool, held: str = "") -> str:
    """Return why a job waits, such as `never: 64 cores asked, 2 offered`: its reason, and who holds what it lacks."""
    told = "; ".join(filter(None, (text or code, held)))
    return f"never: {told}" if never else told
