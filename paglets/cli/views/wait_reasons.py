"""Texts about the reasons why jobs wait, and about the jobs that hold the lacking resources.

A host stores with each waiting job how much of the lacking resource is free. The holders of the resource change often,
so they are not stored: commands read them with `GET /v1/slots` when needed.
"""

from __future__ import annotations

from collections.abc import Sequence

from paglets.api.slots import JobView, Lease, Slots
from paglets.core.text import duration_text
from paglets.slots.amounts import SHORT_REASONS, amount_text, bytes_text
from paglets.slots.model import Resources

LACKING = {code: name for name, code in SHORT_REASONS.items()}
"""The resource that a waiting job lacks, by reason code."""

MOST_NAMED = 3


def job_name(job: JobView) -> str:
    """Return the name by which commands accept a job: GROUP/JOBKEY, or its id if it has no group."""
    return f"{job.group_id}/{job.job_key}" if job.group_id else job.agent_id


def holders_text(slots: Slots, code: str) -> str:
    """Return a text such as `held by g/a (2 cores for 40 s), g/b (1 core for 3 min) and 2 more`.

    The largest holders come first. Return "" if `code` is not about a lacking resource, or the resource has no holder.
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
    """Return the amount and job of each lease of a resource, sorted by amount, then by running time, descending."""
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
    """Return the bytes of memory or disk that other programs use, or 0 for cores and GPUs: only jobs hold these."""
    if not name.endswith("_bytes"):
        return 0
    others: int = getattr(slots.capacity, name) - getattr(slots.free, name) - leased
    return max(0, others)


def wait_reason_text(code: str, text: str, *, never: bool, held: str = "") -> str:
    """Return a text about why a job waits, such as `never: 64 cores asked, 2 offered`. Append `held`, if not empty."""
    reason = "; ".join(filter(None, (text or code, held)))
    return f"never: {reason}" if never else reason
