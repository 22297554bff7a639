"""Sightings of job copies, which the collector's host writes directly into the collector's storage.

The host sends no messages for this, because it must not wait for a handler of the user. A handler in a process may have
read a row before the host changes it, and then overwrite the change. If the handler ended the key, that is final.
Otherwise the next reconciliation or resubmission repeats the change.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace

from paglets.core.refs import HostRef
from paglets.groups import acceptance
from paglets.groups.records import NO_COPY_SEEN, ExpectedJob, JobDescription, OlderCopy, Sighting
from paglets.groups.rows import CollectorRows

MAX_OLDER = 8
"""Maximum number of older copies of a job that are stored besides the newest copy."""


def record_sighting(rows: CollectorRows, key: str, sighting: Sighting) -> acceptance.CancelCause | None:
    """Store the sighting of a copy. Return the cause for cancelling the copy; None if it must continue.

    A copy of an unknown key continues, because the key may be registered later. For a cancelled key the sighting is
    also stored, because the collector waits until all copies have ended.
    """
    job = rows.job(key)
    if job is None:
        return None
    cause = acceptance.cancel_cause(job, sighting.generation)
    if cause is None or (cause == "cancelled" and job.ended):
        newer = acceptance.with_sighting(job, sighting)
        if newer is not job:
            rows.put_job(key, newer)
    return cause


def newest_copy(job: ExpectedJob, description: JobDescription, now: float) -> Sighting:
    """Return the last sighting of the newest copy. Without a sighting, assume that the copy is at its home."""
    if job.sighting is not None:
        return job.sighting
    return _as_created(description.agent_id, description.home, job.generation, *NO_COPY_SEEN, now)


def _as_created(agent_id: str, host: HostRef, generation: int, reason: str, text: str, since: float) -> Sighting:
    """Return the sighting of a new copy, at the host that created it."""
    return Sighting(
        agent_id=agent_id,
        host=host,
        generation=generation,
        attempt=0,
        epoch=0,
        residence="here",
        status="PLACING",
        reason=reason,
        reason_text=text,
        never=False,
        since=since,
    )


def copy_id(group_id: str, key: str, generation: int) -> str:
    """Return the agent id of a further copy of a job. It is a hash, so that a repeated creation is detected."""
    text = "\n".join((group_id, key, str(generation)))
    return "copy-" + hashlib.sha256(text.encode()).hexdigest()[:32]


def older_copies(copy: Sighting, hosts: Iterable[HostRef]) -> tuple[OlderCopy, ...]:
    """Return an OlderCopy for each of the hosts that may still have the lost copy."""
    return tuple(OlderCopy(agent_id=copy.agent_id, host=host, generation=copy.generation) for host in hosts)


def resubmitted(
    job: ExpectedJob, agent_id: str, host: HostRef, why: str, now: float, lost: tuple[OlderCopy, ...] = ()
) -> ExpectedJob:
    """Return the job with a further copy, created on `host`, which replaces the `lost` copy."""
    made = _as_created(agent_id, host, job.generation + 1, "resubmitted", why, now)
    older = (*job.older, *lost)[-MAX_OLDER:]
    return replace(acceptance.next_generation(job, now), sighting=made, older=older)


def postponed(job: ExpectedJob, copy: Sighting, reason: str, text: str, now: float) -> ExpectedJob:
    """Return the job with the reason why it is not resubmitted yet. `since` is kept while the reason is the same."""
    since = copy.since if copy.reason == reason else now
    waiting = replace(copy, status="PLACING", reason=reason, reason_text=text, never=False, since=since)
    return replace(job, sighting=waiting)
