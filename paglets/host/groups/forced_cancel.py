"""Ends the copies of a group that are here, where their collector cannot be asked and a person wishes it.

Each is reported as cancelled, like a job that was ended by hand: should the collector ever be back, it takes that for
the failure of the job, and begins none of them anew.
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
    tx: Tx, group_id: str, wish: EndCopies, online: Collection[str], own: HostRef, now: float
) -> EndedCopies:
    """`online`: the stores of the hosts that are there. Raises Conflict where the collector is on one of them."""
    keys = None if wish.job_keys is None else frozenset(wish.job_keys)
    here = residence.find(tx, collector_id(group_id))
    if here is not None and here.status == "here":
        raise Conflict(f"the collector of {group_id} is on {own.name}: cancel it there")
    told = [_end_here(tx, job, wish.reason, online, own, now) for job in copies.unfinished_here(tx, group_id, keys)]
    told += [_end_leaving(tx, agent_id, key) for agent_id, key in copies.leaving(tx, group_id, keys)]
    tx.wake("runs", "cleanup")
    ended = tuple(dict.fromkeys(key for key in told if key))
    return EndedCopies(job_keys=ended, count=copies.unfinished(tx, group_id, keys))


def _end_here(tx: Tx, job: JobRow, reason: str, online: Collection[str], own: HostRef, now: float) -> str:
    """The key of a copy whose end begins now; "" of one that is being ended already."""
    assert job.collector is not None
    if job.collector.host.store_id in online:
        name = job.collector.host.name
        raise Conflict(f"{own.name} is in touch with {name}, which has the collector of {job.group_id}")
    message = f"cancelled: {reason}, {NO_COLLECTOR}" if reason else f"cancelled {NO_COLLECTOR}"
    if job.status != "RUNNING":
        paglets.drop_intent(tx, job.agent_id)
    if outcomes.fail_waiting(tx, job.agent_id, outcomes.CANCELLED, message, own, now):
        return job.job_key
    changed = copies.mark_unwanted(tx, job.agent_id, outcomes.BY_HAND + message)
    return job.job_key if changed else ""


def _end_leaving(tx: Tx, agent_id: str, job_key: str) -> str:
    """What is on its way ends when its target says that it has it not, or cannot be asked."""
    return job_key if rollbacks.request(tx, agent_id, rollbacks.UNWANTED) else ""
