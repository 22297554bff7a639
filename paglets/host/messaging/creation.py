"""The creation of paglets. Each is created in one transaction, and a repeated request changes nothing."""

from __future__ import annotations

from paglets.api.hosts import MeshHostView
from paglets.api.paglets import NewPaglet, ResidenceRow
from paglets.codec.envelope import Envelope, JobPart, check_file
from paglets.core.context import HostInfo
from paglets.core.errors import Conflict, Invalid, Moved, Moving, NameTaken, PagletsError, Unknown
from paglets.core.record import from_json, to_json
from paglets.core.refs import BlobRef, FileRef, ProxyRef, check_agent_id
from paglets.core.text import with_article
from paglets.host.blobs.blob_store import BlobStore
from paglets.host.runtime.services import HostServices
from paglets.mesh.gossip import Gossiper
from paglets.slots.model import SlotRequest, check_request
from paglets.store import handoffs, paglets, residence
from paglets.store.db import Tx


class PagletCreation:
    """The creation and lookup of paglets on this host."""

    def __init__(self, services: HostServices, gossip: Gossiper, blob_store: BlobStore) -> None:
        self._services = services
        self._blob_store = blob_store
        self._gossip = gossip

    def create(self, tx: Tx, agent_id: str, new: NewPaglet) -> ProxyRef:
        """Store a new paglet and return its address. A repeated request changes nothing.

        Raises NameTaken, Invalid, or Conflict if blobs of its code or files are missing or its id is taken.
        """
        check_agent_id(agent_id)
        _check_kind(new)
        require_files(tx, self._blob_store, new.bundle, new.files)
        holder = residence.holder_of(tx, new.name) if new.name else None
        if holder is not None and holder != agent_id:
            raise NameTaken(f"a paglet named {new.name!r} already exists on {self._services.own.name}")
        now = self._services.clock.wall()
        if not residence.create(tx, self._envelope(agent_id, new, now), now):
            known = paglets.class_name(tx, agent_id)
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

    def resolve_paglet(self, tx: Tx, target: str) -> ProxyRef:
        """Return the last known address of the paglet with that id or name. Raises Unknown if there is none."""
        row = residence.find(tx, residence.id_of(tx, target))
        if row is None:
            raise Unknown(f"{self._services.own.name} knows no paglet {target[:100]!r}, by id or name")
        host = row.peer if row.status in ("gone", "leaving", "refused") and row.peer is not None else self._services.own
        return ProxyRef(agent_id=row.agent_id, host=host)

    def host_infos(self) -> tuple[HostInfo, ...]:
        return tuple(host_info(view) for view in self._gossip.hosts())


def require_files(tx: Tx, blob_store: BlobStore, bundle: BlobRef | None, files: tuple[FileRef, ...]) -> None:
    """Check that this host has the code and the files of a paglet.

    Raises Invalid if a file reference is malformed, or Conflict if a blob is missing.
    """
    for file in files:
        check_file(file)
    code = () if bundle is None else (bundle,)
    blob_store.require_blobs(tx, tuple(dict.fromkeys((*code, *(file.blob for file in files)))))


def _check_kind(new: NewPaglet) -> None:
    if new.kind not in ("paglet", "job"):
        raise Invalid(f"{with_article(new.kind)} cannot be created alone", hint=["submit a group instead"])
    if new.kind == "job":
        check_request(from_json(SlotRequest, new.request, "request"))


def _job_part(new: NewPaglet) -> JobPart:
    """Return the job part of a job without a group."""
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
    """Check that the paglet is on this host. Raises Moved, Moving or Unknown."""
    row = residence.find(tx, agent_id)
    if row is None or row.status != "here":
        raise why_elsewhere(tx, agent_id)


def why_elsewhere(tx: Tx, agent_id: str) -> PagletsError:
    """Return the error for a request to a paglet that is not on this host. If a hand-off is blocked, it says why."""
    return elsewhere(agent_id, residence.find(tx, agent_id), handoffs.problem(tx, agent_id))


def elsewhere(agent_id: str, row: ResidenceRow | None, problem: str = "") -> PagletsError:
    """Return Moved, Moving or Unknown for a paglet that is not on this host according to its residence row."""
    if row is None or row.status == "disposed":
        return Unknown(f"paglet {agent_id} is not known here" if row is None else f"paglet {agent_id} has ended")
    why = f": {problem}" if problem else ""
    if row.status == "leaving" or row.peer is None:
        return Moving(f"paglet {agent_id} is on its way to {row.peer.name if row.peer else 'another host'}{why}")
    return Moved(f"paglet {agent_id} is on {row.peer.name}", host=to_json(row.peer), epoch=row.epoch)


def host_info(view: MeshHostView) -> HostInfo:
    mesh_host = view.host
    return HostInfo(
        store_id=mesh_host.store_id,
        name=mesh_host.name,
        url=mesh_host.url,
        online=view.online,
        tags=mesh_host.tags,
        properties=mesh_host.properties,
        mesh_version=mesh_host.mesh_version,
        cpu_cores=mesh_host.capacity.cpu_cores,
        memory_bytes=mesh_host.capacity.memory_bytes,
        temp_storage_bytes=mesh_host.capacity.temp_storage_bytes,
        gpus=mesh_host.capacity.gpus,
        free_cpu_cores=mesh_host.free.cpu_cores,
        queued_jobs=mesh_host.queued_jobs,
        running_jobs=mesh_host.running_jobs,
    )
