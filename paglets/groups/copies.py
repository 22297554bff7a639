"""Where the copies of a group's jobs are: what the collector's host notes in the collector's storage.

The host does this itself, for collectors of any class, and not by messages: it must not wait for a handler of
the user's. What a handler writes to the same row at the same time is the end of the key, which wins.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

from paglets.core.refs import HostRef
from paglets.groups import acceptance
from paglets.groups.records import ExpectedJob, Sighting, Template
from paglets.groups.rows import CollectorRows


def see(rows: CollectorRows, key: str, sighting: Sighting) -> acceptance.UnwantedCause | None:
    """Note where a copy is, or say why nobody wants it any more.

    A copy of an unknown key is left alone: the key may be registered later. One of a cancelled key is noted too:
    its end is waited for.
    """
    job = rows.job(key)
    if job is None:
        return None
    cause = acceptance.unwanted(job, sighting.generation)
    if cause is None or (cause == "cancelled" and job.ended):
        newer = acceptance.seen(job, sighting)
        if newer is not job:
            rows.put_job(key, newer)
    return cause


def newest_copy(job: ExpectedJob, template: Template, now: float) -> Sighting:
    """The newest copy as it was last seen; one that nobody told of is at home, where it was made."""
    if job.sighting is not None:
        return job.sighting
    return Sighting(
        agent_id=template.agent_id,
        host=template.home,
        generation=job.generation,
        attempt=0,
        epoch=0,
        residence="here",
        status="PLACING",
        reason="no_copy_seen",
        reason_text="no host has told of a copy of this job yet",
        never=False,
        since=now,
    )


def copy_id(group_id: str, key: str, generation: int) -> str:
    """The agent id of a further copy: the same whoever makes it, and however often."""
    text = "\n".join((group_id, key, str(generation)))
    return "copy-" + hashlib.sha256(text.encode()).hexdigest()[:32]


def begun_anew(job: ExpectedJob, agent_id: str, host: HostRef, why: str, now: float) -> ExpectedJob:
    """The key with a further copy, made on `host`, in place of the one that is lost."""
    made = Sighting(
        agent_id=agent_id,
        host=host,
        generation=job.generation + 1,
        attempt=0,
        epoch=0,
        residence="here",
        status="PLACING",
        reason="begun_anew",
        reason_text=why,
        never=False,
        since=now,
    )
    return replace(acceptance.next_generation(job, now), sighting=made)


def waits(job: ExpectedJob, copy: Sighting, reason: str, text: str, now: float) -> ExpectedJob:
    """The key whose further copy cannot be made yet; `since` is kept while the reason is the same."""
    since = copy.since if copy.reason == reason else now
    told = replace(copy, status="PLACING", reason=reason, reason_text=text, never=False, since=since)
    return replace(job, sighting=told)
