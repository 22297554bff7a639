"""Which report becomes the record of its key, and what becomes of keys by cancel, loss and census.

While a key has no record, the first success with a generation of at least its `floor` is taken; a
failure only from the newest generation. A cancel raises the floor, a loss does not: a copy that was
taken for lost may still bring the result first.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from paglets.groups.records import ExpectedJob, FailureReport, Report, Sighting

ReportVerdict = Literal["accepted", "already_recorded", "below_floor", "not_newest"]


def effective_generation(job: ExpectedJob, generation: int) -> int:
    """0 in a report means the newest."""
    return generation or job.generation


def judge_report(job: ExpectedJob, report: Report) -> ReportVerdict:
    """Whether the report becomes the record of its key, or why it is kept as a duplicate only."""
    generation = effective_generation(job, report.generation)
    if job.ended:
        return "already_recorded"
    if generation < job.floor:
        return "below_floor"
    if isinstance(report, FailureReport) and generation < job.generation:
        return "not_newest"
    return "accepted"


def ended(job: ExpectedJob, generation: int) -> ExpectedJob:
    """The key with its record made by a report of that generation."""
    return replace(job, ended=True, generation=max(job.generation, generation), sighting=None, older=())


def cancelled(job: ExpectedJob) -> ExpectedJob:
    """The key ended by a cancel: no report of any generation made so far counts any more.

    Where its copies were last seen stays known until they are known to be gone.
    """
    return replace(job, ended=True, floor=job.generation + 1)


def gone(job: ExpectedJob) -> ExpectedJob:
    """The key without its copies: no host has one any more."""
    return replace(job, sighting=None, older=())


def next_generation(job: ExpectedJob, now: float) -> ExpectedJob:
    """The key with a further copy, because every place where the newest may be is lost."""
    return replace(job, generation=job.generation + 1, since=now, sighting=None)


def registered_again(job: ExpectedJob, generation: int) -> ExpectedJob:
    """The key as it is, but for a newer generation that is told of."""
    return replace(job, generation=max(job.generation, generation))


CancelCause = Literal["cancelled", "recorded"]


def cancel_cause(job: ExpectedJob, generation: int) -> CancelCause | None:
    """Why a copy of that generation need not go on, or None where it must.

    An older generation above the floor stays wanted: its success counts if it comes first.
    """
    if generation < job.floor:
        return "cancelled"
    return "recorded" if job.ended else None


def with_sighting(job: ExpectedJob, sighting: Sighting) -> ExpectedJob:
    """The key with what a host told of a copy, if that is news; the same object where it is not.

    `since` of the older sighting is kept while place, status and reason code are the same.
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
    """The later one is greater. A copy is leaving under the epoch in which it was here."""
    return (sighting.generation, sighting.epoch, sighting.residence == "leaving")
