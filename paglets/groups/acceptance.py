"""The rules for reports that become records, and the effects of cancels, losses and sightings on a job key.

As long as a key has no record, the first success with a generation of at least its `floor` is accepted. A failure is
accepted only from the newest generation. A cancel raises the floor. A loss does not, because a copy that counts as lost
may still deliver the first result.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from paglets.groups.records import ExpectedJob, FailureReport, Report, Sighting

ReportVerdict = Literal["accepted", "already_recorded", "below_floor", "not_newest"]


def effective_generation(job: ExpectedJob, generation: int) -> int:
    """Return the `generation` of a report, or if it is 0, the newest generation of the job."""
    return generation or job.generation


def judge_report(job: ExpectedJob, report: Report) -> ReportVerdict:
    """Return "accepted" if the report becomes the record of its job key, otherwise the reason why it does not."""
    generation = effective_generation(job, report.generation)
    if job.ended:
        return "already_recorded"
    if generation < job.floor:
        return "below_floor"
    if isinstance(report, FailureReport) and generation < job.generation:
        return "not_newest"
    return "accepted"


def ended(job: ExpectedJob, generation: int) -> ExpectedJob:
    """Return the job after a report of this generation has ended it."""
    return replace(job, ended=True, generation=max(job.generation, generation), sighting=None, older=())


def cancelled(job: ExpectedJob) -> ExpectedJob:
    """Return the job after a cancel has ended it. Reports of its existing generations are no longer accepted.

    The sighting is kept until all copies are known to have ended.
    """
    return replace(job, ended=True, floor=job.generation + 1)


def gone(job: ExpectedJob) -> ExpectedJob:
    """Return the job without its sighting and older copies, because no host has a copy any more."""
    return replace(job, sighting=None, older=())


def next_generation(job: ExpectedJob, now: float) -> ExpectedJob:
    """Return the job with the next generation, because its newest copy is lost."""
    return replace(job, generation=job.generation + 1, since=now, sighting=None)


def registered_again(job: ExpectedJob, generation: int) -> ExpectedJob:
    """Return the job after its key was registered again with this generation. A higher one of its own is kept."""
    return replace(job, generation=max(job.generation, generation))


CancelCause = Literal["cancelled", "recorded"]


def cancel_cause(job: ExpectedJob, generation: int) -> CancelCause | None:
    """Return the cause for cancelling a copy of this generation; None if the copy must continue.

    A copy of an older generation continues if its generation is at least `job.floor`, because its success is accepted
    if no other success arrives first.
    """
    if generation < job.floor:
        return "cancelled"
    return "recorded" if job.ended else None


def with_sighting(job: ExpectedJob, sighting: Sighting) -> ExpectedJob:
    """Return the job with `sighting`, or the same object if the sighting is older or changes nothing.

    The time `since` of the known sighting stays if host, status, reason code, attempt and generation are equal.
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
    """Return a value that is greater for a later sighting. In one epoch, a copy is first `here` and then `leaving`."""
    return (sighting.generation, sighting.epoch, sighting.residence == "leaving")
