"""Where the copies of a group's jobs are: what the collector's host notes in the collector's storage.

The host does this itself, for collectors of any class, and not by messages: it must not wait for a handler of
the user's. A handler in a process may have read the row before and write it after: an end of the key, which wins, or a
key that was registered again, and then the next census, or the next try to begin it anew, notes the same once more.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace

from paglets.core.refs import HostRef
from paglets.groups import acceptance
from paglets.groups.records import NO_COPY_SEEN, ExpectedJob, OlderCopy, Sighting, Template
from paglets.groups.rows import CollectorRows

MAX_OLDER = 8
"""Copies of one key that are kept in mind beside the newest."""


def record_sighting(rows: CollectorRows, key: str, sighting: Sighting) -> acceptance.CancelCause | None:
    """Note where a copy is, or say why nobody wants it any more.

    A copy of an unknown key is left alone: the key may be registered later. One of a cancelled key is noted too:
    its end is waited for.
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


def newest_copy(job: ExpectedJob, template: Template, now: float) -> Sighting:
    """The newest copy as it was last seen; one that nobody told of is at home, where it was made."""
    if job.sighting is not None:
        return job.sighting
    return _at_the_beginning(template.agent_id, template.home, job.generation, *NO_COPY_SEEN, now)


def _at_the_beginning(agent_id: str, host: HostRef, generation: int, reason: str, text: str, since: float) -> Sighting:
    """A copy where it was made."""
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
    """The agent id of a further copy: the same whoever makes it, and however often."""
    text = "\n".join((group_id, key, str(generation)))
    return "copy-" + hashlib.sha256(text.encode()).hexdigest()[:32]


def older_copies(copy: Sighting, hosts: Iterable[HostRef]) -> tuple[OlderCopy, ...]:
    """A copy that is taken for lost, and may be on any of `hosts`."""
    return tuple(OlderCopy(agent_id=copy.agent_id, host=host, generation=copy.generation) for host in hosts)


def resubmitted(
    job: ExpectedJob, agent_id: str, host: HostRef, why: str, now: float, lost: tuple[OlderCopy, ...] = ()
) -> ExpectedJob:
    """The key with a further copy, made on `host`, in place of the one that is `lost`."""
    made = _at_the_beginning(agent_id, host, job.generation + 1, "resubmitted", why, now)
    older = (*job.older, *lost)[-MAX_OLDER:]
    return replace(acceptance.next_generation(job, now), sighting=made, older=older)


def postponed(job: ExpectedJob, copy: Sighting, reason: str, text: str, now: float) -> ExpectedJob:
    """The key of which no further copy is made now; `since` is kept while the reason is the same."""
    since = copy.since if copy.reason == reason else now
    told = replace(copy, status="PLACING", reason=reason, reason_text=text, never=False, since=since)
    return replace(job, sighting=told)
