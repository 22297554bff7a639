"""The status of a compute job: its table of transitions, and the diagram made from the table."""

from __future__ import annotations

from typing import Literal

from paglets.core.transitions import Transitions

JobStatus = Literal["PLACING", "WAITING_FOR_SLOT", "RUNNING", "COMPLETED", "FAILED_FINAL", "CANCELLED"]

JOB_TRANSITIONS: Transitions[JobStatus] = Transitions(
    "job",
    "PLACING",
    {
        # The chosen host has the job in its queue.
        ("PLACING", "queued"): "WAITING_FOR_SLOT",
        # The host returns the job for a new placement, or a move of the job was refused.
        ("WAITING_FOR_SLOT", "taken_back"): "PLACING",
        ("WAITING_FOR_SLOT", "granted"): "RUNNING",
        # The host restarted or lost its zygote during the attempt, which counts as a loss.
        ("RUNNING", "lost"): "WAITING_FOR_SLOT",
        # The job itself failed and has attempts left.
        ("RUNNING", "retried"): "WAITING_FOR_SLOT",
        # The disk was full, so another host is tried first.
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
    """Return the status that follows `old` on `event`. Raises IllegalTransition."""
    return JOB_TRANSITIONS.move(old, event)


def diagram() -> str:
    """Return the table as a Mermaid state diagram for the documentation."""
    return JOB_TRANSITIONS.diagram()
