"""The rules that turn reports into records, and the effects of cancel, loss and sightings on a job key.

While a key has no record, the first success with a generation of at least its `floor` is accepted. A failure is
accepted only from the newest generation. A cancel raises the floor. A loss does not: a copy that counts as lost may
still deliver the result first.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from paglets.groups.records import ExpectedJob, FailureReport, Report, Sighting

ReportVerdict = Literal["accepted", "already_recorded", "below_floor", "not_newest"]


def effective_generation(job: ExpectedJob, generation: int) -> int:
    """Return the generation of a report; 0 in a report means the newest."""
    return generation or job.generation


def judge_report(job: ExpectedJob, report: Report) -> ReportVerdict:
    """Return "accepted" if the report becomes the record of its key, else the reason why it does not."""
    generation = effective_generation(job, report.generation)
    if job.ended:
        return "already_recorded"
    if generation < job.floor:
        return "below_floor"
    if isinstance(report, FailureReport) and generation < job.generation:
        return "not_newest"
    return "accepted"


def ended(job: ExpectedJob, generation: int) -> ExpectedJob:
    """Return the job as ended by a report of that generation."""
    return replace(job, ended=True, generation=max(job.generation, generation), sighting=None, older=())


def cancelled(job: ExpectedJob) -> ExpectedJob:
    """Return the job as ended by a cancel: reports of existing generations no longer count.

    The sighting stays until all copies are known to be gone.
    """
    return replace(job, ended=True, floor=job.generation + 1)


def gone(job: ExpectedJob) -> ExpectedJob:
    """Return the job without sightings, because no host has a copy any more."""
    return replace(job, sighting=None, older=())


def next_generation(job: ExpectedJob, now: float) -> ExpectedJob:
    """Return the job with its generation increased by one. Called when every host that may have its copy is lost."""
    return replace(job, generation=job.generation + 1, since=now, sighting=None)


def registered_again(job: ExpectedJob, generation: int) -> ExpectedJob:
    """Return the job after it was registered again: its generation is at least the registered one."""
    return replace(job, generation=max(job.generation, generation))


CancelCause = Literal["cancelled", "recorded"]


def cancel_cause(job: ExpectedJob, generation: int) -> CancelCause | None:
    """Return why to cancel a copy of that generation, or None if it must continue.

    An older generation above the floor continues: its success counts if it comes first.
    """
    if generation < job.floor:
        return "cancelled"
    return "recorded" if job.ended else None


def with_sighting(job: ExpectedJob, sighting: Sighting) -> ExpectedJob:
    """Return the job with a newer sighting of a copy; the same object if nothing changed.

    The time `since` stays while host, status, reason code, attempt and generation stay the same.
    """
    known = job.sighting
    if known is not None:
        if _order(sighting) < _order(known):
            return job
        same = (known.host.store_id, known.status, known.reason, known.attempt, known.generation) == (
            sighting.host.store_id,
            sighting.status,
            sighting.reason,
            sighting.attempt,
            sighting.generation,
        )
        sighting = replace(sighting, since=known.since) if same else sighting
        if sighting == known:
            return job
    return replace(job, generation=max(job.generation, sighting.generation), sighting=sighting)


def _order(sighting: Sighting) -> tuple[int, int, bool]:
    """Return a value that is greater for a later sighting. A copy is leaving under the epoch in which it was here."""
    return (sighting.generation, sighting.epoch, sighting.residence == "leaving")
