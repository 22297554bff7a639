"""The submission of groups. Each is stored in one transaction, and a repeated request changes nothing."""

from __future__ import annotations

import sqlite3
from collections import Counter
from dataclasses import replace
from typing import Any

from paglets.api.groups import GroupView, Obstacle, SubmitGroup
from paglets.codec.envelope import Envelope, WireMessage
from paglets.core.errors import GroupExists
from paglets.core.record import from_json, to_json
from paglets.core.refs import HostRef, ProxyRef
from paglets.groups.keys import (
    collector_id,
    first_generation,
    inputs_digest,
    submission_of,
)
from paglets.host.blobs.blob_store import BlobStore
from paglets.host.messaging.creation import require_files
from paglets.host.records.group_jobs import PreparedGroup, description_rows, prepare
from paglets.host.records.group_views import GROUP, group_view, on_only_host
from paglets.host.records.in_host import IN_HOST_CLASSES, HostView, InHostPaglet
from paglets.host.records.rollback import ERA, epoch_of_next_era
from paglets.host.runtime.services import HostServices
from paglets.mesh.gossip import Gossiper
from paglets.slots import policy
from paglets.slots.model import Candidate, SlotRequest
from paglets.store import blobs, groups, newjobs, paglets, receiving, residence, rollbacks, undelivered
from paglets.store.db import Tx
from paglets.store.groups import StoredGroup
from paglets.store.newjobs import NewGroup
from paglets.store.rollbacks import Fence

MOST_OBSTACLES = 20
"""The maximum number of placement obstacles that are stored separately with a group.

Further ones are merged by reason code, because each view of the group lists all obstacles.
"""


class GroupSubmission:
    """The submission of groups of jobs to this host."""

    def __init__(self, services: HostServices, gossip: Gossiper, host_view: HostView, blob_store: BlobStore) -> None:
        self._services = services
        self._blob_store = blob_store
        self._gossip = gossip
        self._host_view = host_view

    def submit_tree(self, tx: Tx, token: str, tree: Any) -> GroupView:
        return self.submit(tx, token, from_json(SubmitGroup, tree))

    def submit(self, tx: Tx, token: str, group: SubmitGroup) -> GroupView:
        """Prepare and store a group."""
        return self.store(tx, self.prepare(token, group))

    def prepare(self, token: str, group: SubmitGroup) -> PreparedGroup:
        """Check a group and prepare its rows, outside of a transaction."""
        return prepare(token, group, self._services.own)

    def store(self, tx: Tx, prepared: PreparedGroup) -> GroupView:
        """Store a group, or return the view of the group that is already stored under its id.

        Raises GroupExists or Invalid. Raises Unknown if the requested host of the collector is unknown, and Conflict if
        blobs of code or inputs are missing.
        """
        return on_only_host(self._stored(tx, prepared), self._gossip.candidates()[0])

    def _stored(self, tx: Tx, prepared: PreparedGroup) -> GroupView:
        """Store the group unless its id is known, and return its view. Raises GroupExists if the jobs differ."""
        row = tx.one(GROUP, prepared.group_id)
        if row is not None:
            if row["digest"] != prepared.digest:
                raise GroupExists(f"group {prepared.group_id} exists with other jobs", hint=["choose another group_id"])
            view = group_view(tx, row, self._services.own)
            differs, lost = _differs(row, prepared.group), self._lost(view.collector.host)
            return replace(view, was_there=True, differs=differs, lost=lost)
        return self._store(tx, prepared)

    def _lost(self, host: HostRef) -> str:
        """Return the reason why the group is lost if the host of its collector was removed, else ""."""
        return (
            f"its collector was on {host.name}, which was forgotten" if self._gossip.is_forgotten(host.store_id) else ""
        )

    def _store(self, tx: Tx, prepared: PreparedGroup) -> GroupView:
        """Store the collector, the expected job keys and the jobs, and return the view of the new group.

        The time of this transaction grows with the group: about 0.1 ms for each job.
        """
        group_id, group = prepared.group_id, prepared.group
        inputs = tuple(dict.fromkeys((*group.inputs, *(file for job in group.jobs for file in job.inputs))))
        require_files(tx, self._blob_store, group.bundle, inputs)
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
        paglets.storage_add_text(tx, ref.agent_id, description_rows(prepared.jobs))
        stored = StoredGroup(
            group_id=group_id,
            digest=prepared.digest,
            class_name=group.class_name,
            collector=ref,
            return_home=group.return_home_when_complete,
            job_keys=prepared.keys,
            creation_errors=to_json(prepared.errors),
            obstacles=to_json(self._obstacles(prepared.requests)),
            spec=prepared.spec,
            **_content(group),
        )
        groups.insert(tx, stored, now)
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
            raise GroupExists(f"group {group_id} was known to this host before", hint=["choose another group_id"])
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
            receiving.deliver_here(tx, ProxyRef(agent_id=agent_id, host=own), message, now)

    def _first_generation(self, tx: Tx, group_id: str, group: SubmitGroup) -> int:
        """Return the generation of the first copies of the jobs. It is over 1 if a group with this id was cleared."""
        known = undelivered.cleared(tx, group_id)
        return first_generation(max(known.submissions if known else 0, group.submissions))

    def _collector_epoch(self, tx: Tx, group_id: str, first: int) -> int:
        """Return an epoch higher than those of earlier collectors of this group id. Fence the latest of them."""
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
        """Return the requested host for the collector.

        If none was requested, return the other online, reachable host that has run longest, or this host if none is.
        """
        if group.collector_host:
            return self._gossip.find(group.collector_host)
        others = [mesh_host for mesh_host in self._gossip.online() if mesh_host.reachable]
        if not others:
            return self._services.own
        best = min(others, key=lambda mesh_host: (mesh_host.started_at, mesh_host.name, mesh_host.store_id))
        return best.ref

    def _obstacles(self, requests: Counter[SlotRequest]) -> tuple[Obstacle, ...]:
        """Return the reasons why jobs cannot be placed at submission, with job counts. The highest count is first."""
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
    """Return the first MOST_OBSTACLES reasons. Merge the others by reason code, each with one text as an example."""
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
    """Return the hashes of the group's code and input files, by column of the table `groups`."""
    common = (("", file.name, file.sha256) for file in group.inputs)
    own = ((job.job_key, file.name, file.sha256) for job in group.jobs for file in job.inputs)
    return {"code": group.bundle.sha256 if group.bundle else "", "inputs": inputs_digest((*common, *own))}


def _differs(row: sqlite3.Row, group: SubmitGroup) -> tuple[str, ...]:
    """Return the columns of `_content` in which the stored group differs. Skip null columns of an older version."""
    return tuple(what for what, value in _content(group).items() if row[what] not in (None, value))
