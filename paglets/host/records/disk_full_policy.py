"""The policy for an attempt that failed because the disk of its host was full: place the job again, or fail it."""

from __future__ import annotations

from typing import Literal

MOST_TIMES = 3
PAUSES_SECONDS = (5.0, 60.0, 300.0)
"""The delays before a job is placed again after its first, second and third full disk.

During a delay, other jobs may end, or a person may free space.
"""

UNASKED_BYTES = 1 << 30
"""The size limit of the scratch directory of a job without a disk request.

A job over this limit counts as the cause of the full disk.
"""

Verdict = Literal["again", "limit", "failed"]


def verdict(times: int, scratch_bytes: int, asked_bytes: int) -> Verdict:
    """Decide what happens to a job whose attempt failed because of a full disk.

    "again": place the job again. "limit": fail it, because it used more disk space than allowed. "failed": fail it,
    because its attempts met too many full disks. `times` is the number of full disks before this one. `scratch_bytes`
    is the size of the scratch directory, and `asked_bytes` the disk request of the job, or 0.
    """
    if scratch_bytes > allowed(asked_bytes):
        return "limit"
    return "again" if times < MOST_TIMES else "failed"


def allowed(asked_bytes: int) -> int:
    return asked_bytes or UNASKED_BYTES


def pause_seconds(times: int) -> float:
    """Return the delay before a job is placed again. `times` counts the full disks it has met, including this one."""
    return PAUSES_SECONDS[min(max(times, 1), len(PAUSES_SECONDS)) - 1]
