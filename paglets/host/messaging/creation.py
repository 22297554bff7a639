"""New paglets and groups: one transaction stores all of it, and a repeat of the request stores nothing."""

from __future__ import annotations

import sqlite3
from collections import Counter
from dataclasses import replace
from typing import Any

from paglets.api.groups import GroupView, Obstacle, SubmitGroup
from paglets.api.hosts import MeshHostView
from paglets.api.paglets import NewPaglet, ResidenceRow
from paglets.codec.envelope import Envelope, JobPart, WireMessage, check_file
from paglets.codec.strict_json import dumps
from paglets.core.context import HostInfo
from paglets.core.errors import Conflict, GroupExists, Invalid, Moved, Moving, NameTaken, PagletsError, Unknown
from paglets.core.record import from_json, to_json
from paglets.core.refs import BlobRef, FileRef, HostRef, ProxyRef, check_agent_id
from paglets.core.text import with_article
from paglets.groups.keys import (
    collector_id,
    first_generation,
    inputs_digest,
    submission_of,
)
from paglets.host.blobs.blob_store import BlobStore
from paglets.host.records.group_jobs import PreparedGroup, prepare, template_rows
from paglets.host.records.group_views import GROUP, group_view, on_only_host
from paglets.host.records.in_host import IN_HOST_CLASSES, HostView, InHostPaglet
from paglets.host.records.rollback import ERA, epoch_of_next_era
from paglets.host.runtime.services import HostServices
from paglets.mesh.gossip import Gossiper
from paglets.slots import policy
from paglets.slots.model import Candidate, SlotRequest, check_request
from paglets.store import blobs, newjobs, paglets, posts, residence, rollbacks, undelivered
from paglets.store.db import Tx
from paglets.store.newjobs import NewGroup
from paglets.store.rollbacks import Fence

MOST_OBSTACLES = 20
"""Different reasons that a group keeps: each job may ask for another amount, and every view of the group has them."""


class Creation:
    """Makes paglets and groups on this host."""

    def __init__(self, services: HostServices, gossip: Gossiper, host_view: HostView, blob_store: BlobStore) -> None:
        self._services = services
        self._blob_store = blob_store
        self._gossip = gossip
        self._host_view = host_view

    # Paglets.

    def create(self, tx: Tx, agent_id: str, new: NewPaglet) -> ProxyRef:
        """Store one paglet; the same once more changes nothing.

        Raises NameTaken, Invalid, Conflict (bytes of its code or files are not here, or its id is another paglet's).
        """
        check_agent_id(agent_id)
        _check_kind(new)
        self._check_bytes(tx, new.bundle, new.files)
        holder = residence.holder_of(tx, new.name) if new.name else None
        if holder is not None and holder != agent_id:
            raise NameTaken(f"a paglet named {new.name!r} lives on {self._services.own.name} already")
        now = self._services.clock.wall()
        if not residence.create(tx, self._envelope(agent_id, new, now), now):
            known = tx.value("SELECT class_name FROM paglets WHERE agent_id = ?", agent_id)
            if known not in (None, new.class_name):
                raise Conflict(f"{agent_id} is the id of another paglet, of the class {known}")
        return ProxyRef(agent_id=agent_id, host=self._services.own)

    def _envelope(self, agent_id: str, new: NewPaglet, now: float) -> Envelope:
        is_job = new.kind == "job"
        return Envelope(
            agent_id=agent_id,
            epoch=1,
            class_name=new.class_name,
            kind=new.kind,
            state=new.state,
            home=self._services.own,
            created_at=now,
            name=new.name,
            hook=None if is_job else "creation",
            storage={},
            job=_job_part(new) if is_job else None,
            bundle=new.bundle,
            files=new.files,
            service=new.service,
        )

    def _check_bytes(self, tx: Tx, bundle: BlobRef | None, files: tuple[FileRef, ...]) -> None:
        """Raises Invalid, Conflict."""
        for file in files:
            check_file(file)
        code = () if bundle is None else (bundle,)
        self._blob_store.require_blobs(tx, tuple(dict.fromkeys((*code, *(file.blob for file in files)))))

    def resolve_paglet(self, tx: Tx, target: str) -> ProxyRef:
        """The paglet of that id or name, as far as this host knows. Raises Unknown."""
        row = residence.find(tx, residence.id_of(tx, target))
        if row is None:
            raise Unknown(f"{self._services.own.name} knows no paglet {target[:100]!r}, by id or name")
        host = row.peer if row.status in ("gone", "leaving", "refused") and row.peer is not None else self._services.own
        return ProxyRef(agent_id=row.agent_id, host=host)

    def host_infos(self) -> tuple[HostInfo, ...]:
        return tuple(host_info(view) for view in self._gossip.hosts())

    # Groups.

    def submit_tree(self, tx: Tx, token: str, tree: Any) -> GroupView:
        return self.submit(tx, token, from_json(SubmitGroup, tree))

    def submit(self, tx: Tx, token: str, group: SubmitGroup) -> GroupView:
        """`prepare` and `store` as one."""
        return self.store(tx, self.prepare(token, group))

    def prepare(self, token: str, group: SubmitGroup) -> PreparedGroup:
        """`preparing.prepare` for this host."""
        return prepare(token, group, self._services.own)

    def store(self, tx: Tx, prepared: PreparedGroup) -> GroupView:
        """`_stored`, which also says if this is the only host."""
        return on_only_host(self._stored(tx, prepared), self._gossip.candidates()[0])

    def _stored(self, tx: Tx, prepared: PreparedGroup) -> GroupView:
        """Store collector, expected keys and jobs, all in this transaction: a group is there whole or not at all.

        This is the one change whose time grows with what it stores: about 0.1 ms for each job. Raises GroupExists,
        Invalid, Unknown (the collector's host), Conflict (bytes of code or inputs are not here).
        """
        row = tx.one(GROUP, prepared.group_id)
        if row is not None:
            if row["digest"] != prepared.digest:
                raise GroupExists(f"group {prepared.group_id} exists with other jobs; choose another group_id")
            view = group_view(tx, row, self._services.own)
            differs, lost = _differs(row, prepared.group), self._lost(view.collector.host)
            return replace(view, was_there=True, differs=differs, lost=lost)
        return self._store(tx, prepared)

    def _lost(self, host: HostRef) -> str:
        """Say that a collector is lost with its host, as far as this host knows; "" where that was not forgotten."""
        return (
            f"its collector was on {host.name}, which was forgotten" if self._gossip.is_forgotten(host.store_id) else ""
        )

    def _store(self, tx: Tx, prepared: PreparedGroup) -> GroupView:
        group_id, group = prepared.group_id, prepared.group
        inputs = tuple(dict.fromkeys((*group.inputs, *(file for job in group.jobs for file in job.inputs))))
        self._check_bytes(tx, group.bundle, inputs)
        now, own = self._services.clock.wall(), self._services.own
        place = self._collector_host(group)
        ref = ProxyRef(agent_id=collector_id(group_id), host=place)
        first = self._first_generation(tx, group_id, group)
        self._store_collector(tx, prepared, first, now)
        common = NewGroup(
            group_id=group_id,
            class_name=group.class_name,
            home=own,
            collector=ref,
            bundle=group.bundle,
            generation=first,
        )
        newjobs.add(tx, prepared.jobs, common, now)
        paglets.storage_add_text(tx, ref.agent_id, template_rows(prepared.jobs))
        tx.run(
            "INSERT INTO groups (group_id, digest, class_name, collector_id, collector, return_home, detached_reason,"
            " created_at, code, inputs, job_count) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            group_id,
            prepared.digest,
            group.class_name,
            ref.agent_id,
            dumps(to_json(ref)),
            int(group.return_home_when_complete),
            "the group was stored a moment ago",
            now,
            *_content(group).values(),
            len(prepared.keys),
        )
        tx.run(
            "INSERT INTO group_jobs (group_id, job_keys, creation_errors, obstacles) VALUES (?, ?, ?, ?)",
            group_id,
            dumps(list(prepared.keys)),
            dumps(to_json(prepared.errors)),
            dumps(to_json(self._obstacles(prepared.requests))),
        )
        tx.run("INSERT INTO group_specs VALUES (?, ?)", group_id, prepared.spec)
        code = () if group.bundle is None else (group.bundle,)
        blobs.keep_for_group(tx, group_id, (*code, *(file.blob for file in inputs)))
        if place.store_id != own.store_id and prepared.jobs:
            residence.leave(tx, ref.agent_id, place, now)
        tx.wake("placer", "groups", "reconciliation")
        row = tx.one(GROUP, group_id)
        assert row is not None
        return group_view(tx, row, own)

    def _store_collector(self, tx: Tx, prepared: PreparedGroup, first: int, now: float) -> None:
        group_id, group = prepared.group_id, prepared.group
        agent_id, own = collector_id(group_id), self._services.own
        envelope = Envelope(
            agent_id=agent_id,
            epoch=self._collector_epoch(tx, group_id, first),
            class_name=group.collector_class,
            kind="collector",
            state={},
            home=own,
            created_at=now,
            storage={},
            bundle=group.bundle,
        )
        store = residence.create if first == 1 else residence.replace_gone
        if not store(tx, envelope, now):
            raise GroupExists(f"group {group_id} was known to this host before; choose another group_id")
        args: dict[str, Any] = {
            "group_id": group_id,
            "home": to_json(own),
            "return_home_when_complete": group.return_home_when_complete,
            "created_at": now,
            "job_class": group.class_name,
            "first_generation": first,
            "jobs": [{"job_key": key} for key in prepared.keys],
            "failures": [{"job_key": e.job_key, "cause": "invalid", "message": e.message} for e in prepared.errors],
        }
        message = WireMessage(kind="begin", args=args)
        if group.collector_class in IN_HOST_CLASSES:
            collector = InHostPaglet(tx, self._host_view, agent_id)
            collector.handle(message, is_call=True)
            collector.save()
        else:
            posts.send(tx, ProxyRef(agent_id=agent_id, host=own), message, now, group_id=group_id)

    def _first_generation(self, tx: Tx, group_id: str, group: SubmitGroup) -> int:
        """Return the generation of the first copies: over 1 where a group of this id was cleared."""
        known = undelivered.cleared(tx, group_id)
        return first_generation(max(known.submissions if known else 0, group.submissions))

    def _collector_epoch(self, tx: Tx, group_id: str, first: int) -> int:
        """Return an epoch above that of each collector which this group id had; a fence ends the last one."""
        if first == 1:
            return 1
        agent_id, known = collector_id(group_id), undelivered.cleared(tx, group_id)
        row = residence.find(tx, agent_id)
        before = max(row.epoch if row else 0, known.epoch if known else 0, submission_of(first) * ERA - 1)
        epoch = epoch_of_next_era(before, self._services.entropy)
        if known is not None:
            rollbacks.fence(tx, Fence(agent_id=agent_id, epoch=epoch, target=known.host))
        return epoch

    def _collector_host(self, group: SubmitGroup) -> HostRef:
        """Where the collector lives: as asked; else with the longest-running other host; else here."""
        if group.collector_host:
            return self._gossip.find(group.collector_host)
        others = [member for member in self._gossip.online() if member.reachable]
        if not others:
            return self._services.own
        best = min(others, key=lambda member: (member.started_at, member.name, member.store_id))
        return best.ref

    def _obstacles(self, requests: Counter[SlotRequest]) -> tuple[Obstacle, ...]:
        """Return why jobs have no host at submission: each reason once, the one of most jobs first."""
        candidates = self._gossip.candidates()
        counts: Counter[policy.Reason] = Counter()
        for request, count in requests.items():
            reason = self._no_place(request, candidates)
            if reason is not None:
                counts[reason] += count
        return _bounded(counts.most_common())

    def _no_place(self, request: SlotRequest, candidates: tuple[Candidate, ...]) -> policy.Reason | None:
        home, version = self._services.own.store_id, self._services.settings.mesh_version
        return policy.placement_problem(
            [policy.judge(request, each, home_store_id=home, mesh_version=version) for each in candidates]
        )


def _bounded(found: list[tuple[policy.Reason, int]]) -> tuple[Obstacle, ...]:
    """Return the first of these, and of the others one for each code, with the text of its first."""
    kept = [
        Obstacle(count=count, code=reason.code, text=reason.text, never=reason.never)
        for reason, count in found[:MOST_OBSTACLES]
    ]
    rest: dict[tuple[str, bool], Obstacle] = {}
    for reason, count in found[MOST_OBSTACLES:]:
        text = f"{reason.text} (for example)"
        new = Obstacle(count=0, code=reason.code, text=text, never=reason.never)
        alike = rest.setdefault((reason.code, reason.never), new)
        rest[reason.code, reason.never] = replace(alike, count=alike.count + count)
    return (*kept, *rest.values())


def _content(group: SubmitGroup) -> dict[str, str]:
    """What a group was submitted with beside its jobs, by column."""
    common = (("", file.name, file.sha256) for file in group.inputs)
    own = ((job.job_key, file.name, file.sha256) for job in group.jobs for file in job.inputs)
    return {"code": group.bundle.sha256 if group.bundle else "", "inputs": inputs_digest((*common, *own))}


def _differs(row: sqlite3.Row, group: SubmitGroup) -> tuple[str, ...]:
    """What the group that is there was submitted with otherwise; of one of an older program that is not known."""
    return tuple(what for what, value in _content(group).items() if row[what] not in (None, value))


def _check_kind(new: NewPaglet) -> None:
    if new.kind not in ("paglet", "job"):
        raise Invalid(f"{with_article(new.kind)} is not created by itself: it comes with a group")
    if new.kind == "job":
        check_request(from_json(SlotRequest, new.request, "request"))


def _job_part(new: NewPaglet) -> JobPart:
    """Of a job without a group."""
    return JobPart(
        group_id=None,
        job_key=new.job_key,
        collector=None,
        generation=1,
        attempt=0,
        status="PLACING",
        request=new.request or {},
        submitted_state=new.state,
    )


def require_here(tx: Tx, agent_id: str) -> None:
    """Raise Moved, Moving or Unknown where the paglet is not here."""
    row = residence.find(tx, agent_id)
    if row is None or row.status != "here":
        raise why_elsewhere(tx, agent_id)


def why_elsewhere(tx: Tx, agent_id: str) -> PagletsError:
    """What a caller is told of a paglet that is not here; of one that is leaving also what is in its way."""
    problem = tx.value("SELECT problem FROM handoffs WHERE agent_id = ?", agent_id)
    return elsewhere(agent_id, residence.find(tx, agent_id), problem or "")


def elsewhere(agent_id: str, row: ResidenceRow | None, problem: str = "") -> PagletsError:
    """The same of one with that residence row."""
    if row is None or row.status == "disposed":
        return Unknown(f"paglet {agent_id} is not known here" if row is None else f"paglet {agent_id} has ended")
    why = f": {problem}" if problem else ""
    if row.status == "leaving" or row.peer is None:
        return Moving(f"paglet {agent_id} is on its way to {row.peer.name if row.peer else 'another host'}{why}")
    return Moved(f"paglet {agent_id} is on {row.peer.name}", host=to_json(row.peer), epoch=row.epoch)


def host_info(view: MeshHostView) -> HostInfo:
    member = view.host
    return HostInfo(
        store_id=member.store_id,
        name=member.name,
        url=member.url,
        online=view.online,
        tags=member.tags,
        properties=member.properties,
        mesh_version=member.mesh_version,
        cpu_cores=member.capacity.cpu_cores,
        memory_bytes=member.capacity.memory_bytes,
        temp_storage_bytes=member.capacity.temp_storage_bytes,
        gpus=member.capacity.gpus,
        free_cpu_cores=member.free.cpu_cores,
        queued_jobs=member.queued_jobs,
        running_jobs=member.running_jobs,
    )
