"""Which status a compute job may have after which: the one table, and the diagram drawn from it."""

from __future__ import annotations

from typing import Literal

from paglets.core.transitions import Transitions

JobStatus = Literal["PLACING", "WAITING_FOR_SLOT", "RUNNING", "COMPLETED", "FAILED_FINAL", "CANCELLED"]

JOB_TRANSITIONS: Transitions[JobStatus] = Transitions(
    "job",
    "PLACING",
    {
        # A host was chosen and has it in its queue.
        ("PLACING", "queued"): "WAITING_FOR_SLOT",
        # Its host gives it up again: to place it anew, or because a move that was begun is refused.
        ("WAITING_FOR_SLOT", "taken_back"): "PLACING",
        ("WAITING_FOR_SLOT", "granted"): "RUNNING",
        # The host restarted or lost its zygote under it: the attempt counts as a loss.
        ("RUNNING", "lost"): "WAITING_FOR_SLOT",
        # It failed by itself and has attempts left.
        ("RUNNING", "retried"): "WAITING_FOR_SLOT",
        # It met a full disk: another host first.
        ("RUNNING", "displaced"): "PLACING",
        ("RUNNING", "completed"): "COMPLETED",
        ("RUNNING", "failed"): "FAILED_FINAL",
        ("WAITING_FOR_SLOT", "failed"): "FAILED_FINAL",
        ("PLACING", "failed"): "FAILED_FINAL",
        ("PLACING", "cancelled"): "CANCELLED",
        ("WAITING_FOR_SLOT", "cancelled"): "CANCELLED",
        ("RUNNING", "cancelled"): "CANCELLED",
    },
)

FINAL = JOB_TRANSITIONS.final()


def move(old: str, event: str) -> JobStatus:
    """The status of a job that is `old` after `event`. Raises IllegalTransition."""
    return JOB_TRANSITIONS.move(old, event)


def diagram() -> str:
    """The table as a Mermaid state diagram, for the docs."""
    return JOB_TRANSITIONS.diagram()
