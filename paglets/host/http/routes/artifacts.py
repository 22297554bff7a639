"""Routes about artifacts: named blobs with an owner."""

from __future__ import annotations

from typing import Any

from paglets.api.blobs import AddArtifact, Artifacts, ArtifactView
from paglets.api.paglets import Done
from paglets.codec.envelope import CarriedArtifact
from paglets.core.errors import Conflict, Unknown, to_wire_error
from paglets.core.refs import ArtifactRef, BlobRef, check_artifact_id, check_file_name, check_lifetime
from paglets.host.blobs.fetcher import delete_here
from paglets.host.host import Host
from paglets.host.http.router import ParsedRequest, route
from paglets.host.messaging.creation import require_here
from paglets.store import artifacts
from paglets.store.db import Tx
from paglets.wire.request import PendingResponse, reply, reply_error

MAX_PAGE = 1_000


def add(host: Host, asked: ParsedRequest) -> ArtifactRef:
    body: AddArtifact = asked.body
    check_artifact_id(body.artifact_id)
    check_file_name(body.name)
    check_lifetime(body.expires_in_seconds)
    now, own = host.services.clock.wall(), host.services.own
    # Check the file, not only its row in the database, because the caller may delete its own file after this request.
    kept = host.blob_store.state(body.sha256).complete

    def store(tx: Tx) -> ArtifactRef:
        if body.owner != artifacts.HOST:
            require_here(tx, body.owner)
        host.blob_store.require_blobs(tx, (BlobRef(sha256=body.sha256, size_bytes=body.size_bytes),))
        if not kept:
            raise Conflict(f"{own.name} lost the bytes of {body.sha256}", missing=[body.sha256])
        return artifacts.create(tx, body.owner, _carried(body, now), now, own.name)

    return host.services.store.write(store)


def _carried(body: AddArtifact, now: float) -> CarriedArtifact:
    return CarriedArtifact(
        artifact_id=body.artifact_id,
        name=body.name,
        sha256=body.sha256,
        size_bytes=body.size_bytes,
        created_at=now,
        expires_in_seconds=body.expires_in_seconds,
    )


def page(host: Host, asked: ParsedRequest) -> Artifacts:
    limit = max(1, asked.number("limit", 100, MAX_PAGE))
    after, which = (
        asked.query.get("after", ""),
        {"owner": asked.query.get("owner"), "group_id": asked.query.get("group")},
    )
    found = host.services.store.read(lambda tx: artifacts.page(tx, after, limit, host.services.own.name, **which))
    return Artifacts(artifacts=found, next=found[-1].artifact_id if len(found) == limit else None)


def one(host: Host, asked: ParsedRequest) -> Any:
    artifact_id, own = check_artifact_id(asked.path["ID"]), host.services.own
    ref = host.services.store.read(lambda tx: artifacts.find_any(tx, artifact_id, own.name))
    if ref is not None:
        return ArtifactView(artifact=ref, host=own)
    if asked.query.get("here"):
        raise Unknown(f"{own.name} has no artifact {artifact_id}")
    pending = PendingResponse()
    host.services.runner.call_soon(
        lambda: host.blob_fetcher.find(artifact_id, lambda result: _complete(pending, result))
    )
    return pending


def delete(host: Host, asked: ParsedRequest) -> Any:
    artifact_id = check_artifact_id(asked.path["ID"])
    if asked.query.get("here"):
        return host.services.store.write(lambda tx: delete_here(tx, artifact_id))
    pending = PendingResponse()
    host.services.runner.call_soon(
        lambda: host.blob_fetcher.delete(artifact_id, lambda result: _complete(pending, result))
    )
    return pending


def _complete(pending: PendingResponse, result: Any) -> None:
    if isinstance(result, BaseException):
        pending.complete(reply_error(to_wire_error(result)))
    else:
        pending.complete(reply(result))


ROUTES = (
    route("POST", "/v1/artifacts", AddArtifact, ArtifactRef, "turn a blob of this host into an artifact", add),
    route("GET", "/v1/artifacts", None, Artifacts, "one page of the artifacts on this host", page),
    route("GET", "/v1/artifacts/ID", None, ArtifactView, "one artifact, whichever host has it", one),
    route("DELETE", "/v1/artifacts/ID", None, Done, "delete an artifact, whichever host has it", delete),
)
