"""Cancel copies of jobs on this host while the collector of their group is unreachable.

A report of each copy says that a user cancelled it. If the collector becomes reachable again, it stores this report as
the failure of the job, and does not resubmit the job.
"""

from __future__ import annotations

from collections.abc import Collection

from paglets.api.groups import EndCopies, EndedCopies
from paglets.core.errors import Conflict
from paglets.core.refs import HostRef
from paglets.groups.keys import collector_id
from paglets.host.records import outcomes
from paglets.store import copies, paglets, residence, rollbacks
from paglets.store.db import Tx
from paglets.store.queue import JobRow

NO_COLLECTOR = "while its collector could not be asked"


def end_copies(
    tx: Tx, group_id: str, request: EndCopies, online: Collection[str], own: HostRef, now: float
) -> EndedCopies:
    """Cancel this host's copies of the requested jobs. Return their keys, and the number of copies not yet ended.

    Raises Conflict if the collector is on this host or on a host of `online` (store ids).
    """
    keys = None if request.job_keys is None else frozenset(request.job_keys)
    here = residence.find(tx, collector_id(group_id))
    if here is not None and here.status == "here":
        raise Conflict(f"the collector of {group_id} is on {own.name}", hint=["cancel the group there"])
    keys_ended = [
        _end_here(tx, job, request.reason, online, own, now) for job in copies.unfinished_here(tx, group_id, keys)
    ]
    keys_ended += [_end_leaving(tx, agent_id, key) for agent_id, key in copies.leaving(tx, group_id, keys)]
    tx.wake("runs", "cleanup")
    ended = tuple(dict.fromkeys(key for key in keys_ended if key))
    return EndedCopies(job_keys=ended, count=copies.unfinished(tx, group_id, keys))


def _end_here(tx: Tx, job: JobRow, reason: str, online: Collection[str], own: HostRef, now: float) -> str:
    """Cancel one copy. Return its job key, or "" if the copy was already ending.

    Raises Conflict if its collector is on an online host.
    """
    assert job.collector is not None
    if job.collector.host.store_id in online:
        name = job.collector.host.name
        raise Conflict(
            f"{own.name} can reach {name}, which has the collector of {job.group_id}", hint=["cancel the group there"]
        )
    message = f"cancelled: {reason}, {NO_COLLECTOR}" if reason else f"cancelled {NO_COLLECTOR}"
    if job.status not in ("ASSIGNED", "RUNNING"):
        paglets.drop_intent(tx, job.agent_id)
    if outcomes.fail_waiting(tx, job.agent_id, outcomes.CANCELLED, message, own, now):
        return job.job_key
    changed = copies.mark_unwanted(tx, job.agent_id, outcomes.BY_HAND + message)
    return job.job_key if changed else ""


def _end_leaving(tx: Tx, agent_id: str, job_key: str) -> str:
    """Recall a copy in transit. The copy ends once its target lacks the copy or is unreachable.

    Return the job key, or "" if the copy is no longer in transit.
    """
    return job_key if rollbacks.request(tx, agent_id, rollbacks.UNWANTED) else ""
