"""Clear a group whose collector was lost with a removed host, so that its id can be used again.

Undelivered results are kept, unless the user wants to drop them (`drop_results`): then a failure replaces each result.
The files of undelivered failures are dropped. The finished copies of the cleared jobs are disposed of. If
the collector comes back, it receives the failures, and therefore does not resubmit the jobs.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from paglets.api.groups import ClearGroup, EndCopies, ReportCounts
from paglets.codec.envelope import WireMessage
from paglets.core.errors import Conflict
from paglets.core.refs import HostRef
from paglets.groups.keys import collector_id
from paglets.host.records import outcomes
from paglets.host.records.group_views import collector_ref
from paglets.store import groups, residence, undelivered
from paglets.store.db import Tx

PAGE = 200
"""The maximum number of reports that one transaction reads."""

REPORT_ARGS = ("job_key", "generation", "attempt", "host_name", "runtime_seconds")


def require_lost(tx: Tx, group_id: str, members: Collection[str], own: HostRef) -> None:
    """Check that the collector of a group was lost.

    Raises Conflict if it is on this host, or if its last known host is still in the mesh. `members` are the store ids
    of all hosts of the mesh.
    """
    row = residence.find(tx, collector_id(group_id))
    if row is not None and row.status in ("here", "leaving"):
        raise Conflict(f"the collector of {group_id} is on {own.name}", hint=["cancel the group there"])
    known = groups.find(tx, group_id)
    hosts = [*undelivered.collector_hosts(tx, group_id), *([collector_ref(tx, known, own).host] if known else [])]
    for host in hosts:
        if host.store_id in members:
            raise is_in_mesh(group_id, host)


def is_in_mesh(group_id: str, host: HostRef) -> Conflict:
    """Return the error that the host of the collector is still in the mesh."""
    return Conflict(
        f"{host.name}, the host of the collector of {group_id}, is still in the mesh",
        hint=[f"start that host, or if it is lost for good: `paglets mesh forget {host.name}`"],
    )


def clear_page(tx: Tx, group_id: str, request: EndCopies, after: int, now: float) -> tuple[int, ReportCounts]:
    """Clear one page of the undelivered reports of a group: those with the lowest post numbers above `after`.

    A failure loses its files. A result is kept, unless `drop_results` is set: then a failure replaces it. The finished
    copy of each cleared job is disposed of. Return the `after` of the next page (0 if there is none), and the counts of
    the cleared reports.
    """
    found = undelivered.posts_of(tx, group_id, after, PAGE)
    total = ReportCounts()
    for post in found:
        is_result = post.message.kind == "job_result"
        if (request.job_keys is not None and post.message.args["job_key"] not in request.job_keys) or (
            is_result and not request.drop_results
        ):
            continue
        undelivered.replace_message(
            tx, post.n, _dropped(post.message, request.reason) if is_result else _without_files(post.message)
        )
        outcomes.retire(tx, post.agent_id, now)
        total = total.plus(_counted(post.message))
    tx.wake("garbage", "cleanup", "outbox")
    return (found[-1].n if len(found) == PAGE else 0), total


def _counted(message: WireMessage) -> ReportCounts:
    """Return the counts of a cleared report: all zero if a user cancelled its job."""
    if message.args.get("cause") == outcomes.CANCELLED:
        return ReportCounts()
    is_result, files = message.kind == "job_result", message.artifacts
    return ReportCounts(
        results=int(is_result),
        failures=int(not is_result),
        files=len(files),
        file_bytes=sum(file.size_bytes for file in files),
    )


def _dropped(message: WireMessage, reason: str) -> WireMessage:
    by = f" {reason}" if reason else ""
    args = {name: message.args[name] for name in REPORT_ARGS if name in message.args}
    text = f"its result was dropped{by}, after its collector was lost"
    return WireMessage(kind="job_failure", args={**args, "cause": outcomes.CANCELLED, "message": text})


def _without_files(message: WireMessage) -> WireMessage:
    return replace(message, artifacts=())


def free_id(tx: Tx, group_id: str, request: ClearGroup, now: float) -> None:
    """Delete the row of the group, if it was submitted to this host. Store how many submissions used its id."""
    row = residence.find(tx, collector_id(group_id))
    cleared = undelivered.Cleared(submissions=request.submissions, epoch=row.epoch if row else 0, host=request.host)
    undelivered.remember_cleared(tx, group_id, cleared, now)
    groups.delete(tx, group_id)
    tx.wake("groups", "garbage")
