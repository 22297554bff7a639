"""Paglets as people and other hosts see them."""

from __future__ import annotations

from paglets.api.paglets import FoundPaglet, PagletView
from paglets.api.slots import JobView
from paglets.codec.text import loads
from paglets.core.record import from_json
from paglets.core.refs import HostRef, ProxyRef
from paglets.store import artifacts, files, handoffs, paglets, queue, residence
from paglets.store.db import Tx
from paglets.store.handoffs import MOVING, LeavingJob

MAX_FOUND = 1_000


def named(tx: Tx, name: str | None, service: str | None, own: HostRef) -> tuple[FoundPaglet, ...]:
    """The paglets here of that name, or with that service, by id."""
    rows = tx.all(
        "SELECT agent_id, name, service FROM paglets WHERE name = ? UNION"
        " SELECT agent_id, name, service FROM paglets WHERE service = ? AND service != '' ORDER BY agent_id LIMIT ?",
        name,
        service,
        MAX_FOUND,
    )
    return tuple(
        FoundPaglet(ref=ProxyRef(agent_id=row["agent_id"], host=own), name=row["name"], service=row["service"])
        for row in rows
    )


def page_of_ids(tx: Tx, after: str, limit: int) -> tuple[str, ...]:
    """Ids of the paglets here, in order, beyond `after`."""
    rows = tx.all("SELECT agent_id FROM paglets WHERE agent_id > ? ORDER BY agent_id LIMIT ?", after, limit)
    return tuple(row["agent_id"] for row in rows)


def paglet_view(tx: Tx, agent_id: str, own: HostRef, now: float, *, brief: bool = False) -> PagletView:
    """A paglet that is here; `brief`: without its state."""
    here = residence.must_be_here(tx, agent_id)
    row = tx.one("SELECT * FROM paglets WHERE agent_id = ?", agent_id)
    assert row is not None
    waiting = tx.value("SELECT count(*) FROM inbox WHERE agent_id = ? AND status = 'waiting'", agent_id)
    dead = tx.value("SELECT count(*) FROM inbox WHERE agent_id = ? AND status = 'dead'", agent_id)
    return PagletView(
        agent_id=agent_id,
        class_name=row["class_name"],
        kind=row["kind"],
        residence=here.status,
        epoch=here.epoch,
        host=own,
        name=row["name"],
        hook=row["hook"],
        reason=_reason(row["intent"], row["hook_error"], row["problem"]),
        inbox=waiting,
        dead_posts=dead,
        state=None if brief else loads(row["state"]),
        job=job_view(tx, agent_id, now),
        bundle=paglets.bundle_of(tx, agent_id),
        files=files.of(tx, agent_id),
        artifacts=artifacts.count(tx, agent_id),
        service=row["service"],
        inactive=bool(row["inactive"]),
        created_at=row["created_at"],
    )


def job_view(tx: Tx, agent_id: str, now: float) -> JobView | None:
    row = tx.one("SELECT * FROM requests WHERE agent_id = ?", agent_id)
    return None if row is None else queue.view(tx, row, now)


def _reason(intent: str | None, hook_error: str | None, problem: str) -> str:
    if intent is not None:
        tree = loads(intent)
        if "move" in tree:
            return problem or f"it moves to {from_json(HostRef, tree['move']).name} when its code here has ended"
        return f"it {'rests' if 'rest' in tree else 'ends'} when its code has ended"
    return problem or ("" if hook_error is None else f"its last hook failed: {hook_error}")


def leaving_views(tx: Tx, now: float, most: int) -> tuple[JobView, ...]:
    """Jobs under way to another host."""
    return tuple(_leaving_view(job, now) for job in handoffs.jobs(tx, most=most))


def _leaving_view(job: LeavingJob, now: float) -> JobView:
    return JobView(
        agent_id=job.agent_id,
        group_id=job.group_id,
        job_key=job.job_key,
        generation=job.generation,
        attempt=job.attempt,
        status=job.status,
        residence="leaving",
        reason=MOVING,
        reason_text=job.reason_text,
        never=False,
        waited_seconds=job.waited_seconds + max(0.0, now - job.began_at),
        running_seconds=0.0,
        request=job.request,
        target=job.target,
    )
