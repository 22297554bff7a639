"""The status of a compute job: a table of its transitions, and a diagram that is generated from the table."""

from __future__ import annotations

from typing import Literal

from paglets.core.transitions import Transitions

JobStatus = Literal["PLACING", "WAITING_FOR_SLOT", "ASSIGNED", "RUNNING", "COMPLETED", "FAILED_FINAL", "CANCELLED"]

JOB_TRANSITIONS: Transitions[JobStatus] = Transitions(
    "job",
    "PLACING",
    {
        # The job has arrived in the queue of the chosen host.
        ("PLACING", "queued"): "WAITING_FOR_SLOT",
        # The move of the job to another host was refused or rolled back, so the job needs a new placement.
        ("WAITING_FOR_SLOT", "taken_back"): "PLACING",
        ("WAITING_FOR_SLOT", "granted"): "RUNNING",
        # The job was sent ahead to a warm worker, which runs it after the jobs that it already has.
        ("WAITING_FOR_SLOT", "assigned"): "ASSIGNED",
        # The job before this one in the warm worker has ended, and has passed its slot on.
        ("ASSIGNED", "began"): "RUNNING",
        # The job was taken back before it began, or its worker or host ended. This is neither an attempt nor a loss.
        ("ASSIGNED", "lost"): "WAITING_FOR_SLOT",
        # The attempt ended because the host restarted, lost its zygote or could not start it. This is no failure.
        ("RUNNING", "lost"): "WAITING_FOR_SLOT",
        # The attempt failed, and the job has attempts left.
        ("RUNNING", "retried"): "WAITING_FOR_SLOT",
        # The disk of the host was full, so another host is tried first.
        ("RUNNING", "displaced"): "PLACING",
        ("RUNNING", "completed"): "COMPLETED",
        ("RUNNING", "failed"): "FAILED_FINAL",
        ("WAITING_FOR_SLOT", "failed"): "FAILED_FINAL",
        ("PLACING", "failed"): "FAILED_FINAL",
        ("PLACING", "cancelled"): "CANCELLED",
        ("WAITING_FOR_SLOT", "cancelled"): "CANCELLED",
        ("ASSIGNED", "cancelled"): "CANCELLED",
        ("RUNNING", "cancelled"): "CANCELLED",
    },
)

FINAL = JOB_TRANSITIONS.final()


def move(old: str, event: str) -> JobStatus:
    """Return the status after `event` in the status `old`. Raises IllegalTransition if there is none."""
    return JOB_TRANSITIONS.move(old, event)


def diagram() -> str:
    """Return the transitions as a Mermaid state diagram, for the documentation."""
    return JOB_TRANSITIONS.diagram()
