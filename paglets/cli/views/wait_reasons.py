"""Texts about the reasons of waiting jobs, and the jobs that hold what they lack.

The reason in a host's record says how much of a resource is free. The holders of the rest change often, so commands
read them from `GET /v1/slots` of the host when they need them.
"""

from __future__ import annotations

from collections.abc import Sequence

from paglets.api.slots import JobView, Lease, Slots
from paglets.core.text import duration_text
from paglets.slots.amounts import SHORT_REASONS, amount_text, bytes_text
from paglets.slots.model import Resources

LACKING = {code: name for name, code in SHORT_REASONS.items()}
"""Reason code -> the resource that is lacking."""

MOST_NAMED = 3


def job_name(job: JobView) -> str:
    """Return the name of a job that commands accept."""
    return f"{job.group_id}/{job.job_key}" if job.group_id else job.agent_id


def holders_text(slots: Slots, code: str) -> str:
    """Return `held by g/a (2 cores for 40 s), g/b (1 core for 3 min) and 2 more`, largest holders first.

    Return "" if no resource is lacking, or nothing holds any of it.
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
    """Return the amount and job of each lease of a resource, largest first, then longest running first."""
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
    """Return the bytes of memory or disk that other programs use. Only jobs hold cores and GPUs."""
    if not name.endswith("_bytes"):
        return 0
    others: int = getattr(slots.capacity, name) - getattr(slots.free, name) - leased
    return max(0, others)


def wait_reason_text(code: str, text: str, *, never: bool, held: str = "") -> str:
    """Return why a job waits, such as `never: 64 cores asked, 2 offered`: its reason, then the holders."""
    reason = "; ".join(filter(None, (text or code, held)))
    return f"never: {reason}" if never else reason
