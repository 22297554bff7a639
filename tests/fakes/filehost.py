"""Hosts that keep blobs and artifacts in memory and answer the routes about bytes, for tests of clients."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qsl, unquote

from paglets.api.blobs import AddArtifact, Artifacts, ArtifactView, AskBlobs, BlobState, BlobStates
from paglets.api.calls import PostMessage
from paglets.api.limits import MAX_PIECE_BYTES
from paglets.api.paglets import Done
from paglets.codec.strict_json import loads
from paglets.core.errors import Conflict, FileChanged, PagletsError, Unknown
from paglets.core.record import from_json
from paglets.core.refs import ArtifactRef
from paglets.wire.request import Request, Response, reply, reply_error
from tests.fakes.exchange import TableExchange, TableHost


@dataclass(slots=True, kw_only=True)
class FileHost(TableHost):
    """A host of whole `blobs` and partial ones (`coming`). Requests that are not about bytes go to `routes`.

    `before_piece(method, offset)` is called before each piece. An error that it raises is the answer, but Unreachable
    and CallOutcomeUnknown are raised as errors of the connection. `lost` are errors of the connection that are raised
    after a piece was taken.
    """

    blobs: dict[str, bytes] = field(default_factory=dict)
    coming: dict[str, bytearray] = field(default_factory=dict)
    artifacts: dict[str, ArtifactRef] = field(default_factory=dict)
    posts: list[PostMessage] = field(default_factory=list)
    before_piece: Callable[[str, int], None] = lambda method, offset: None
    lost: list[PagletsError] = field(default_factory=list)
    others: tuple[FileHost, ...] = ()
    pieces: list[tuple[str, int, int]] = field(default_factory=list)
    """The method, offset and length of each piece."""

    def keep(self, data: bytes, name: str = "data.bin", artifact_id: str = "art-00000001", **more: Any) -> ArtifactRef:
        """Store `data` as an artifact of this host."""
        sha256 = hashlib.sha256(data).hexdigest()
        values: dict[str, Any] = {"owner": "", "created_at": 5.0} | more
        made = ArtifactRef(
            artifact_id=artifact_id, name=name, size_bytes=len(data), sha256=sha256, host_name=self.name, **values
        )
        self.blobs[sha256] = data
        self.artifacts[artifact_id] = made
        return made

    def give(self, artifact_id: str, other: FileHost) -> None:
        """Remove an artifact and its bytes, as if the artifact moved away."""
        moving = self.artifacts.pop(artifact_id)
        other.keep(self.blobs.pop(moving.sha256), moving.name, artifact_id, owner=moving.owner)

    def handle(self, request: Request) -> Response:
        path, _, query = request.target.partition("?")
        parts = [unquote(part) for part in path.split("/")[2:]]
        if parts[0] not in ("blobs", "artifacts", "outbox"):
            return TableHost.handle(self, request)
        self.asked.append(request)
        if self.broken:
            raise self.broken.pop(0)
        try:
            return self._answer(request, parts, dict(parse_qsl(query, keep_blank_values=True)))
        except PagletsError as error:
            if error.status == 502:
                raise
            return reply_error(error)

    def _answer(self, request: Request, parts: list[str], query: dict[str, str]) -> Response:
        match (request.method, *parts):
            case ("POST", "blobs", "state"):
                asked = from_json(AskBlobs, loads(request.body))
                if asked.check:
                    self._drop_damaged(asked.sha256s)
                return reply(BlobStates(blobs=tuple(self._state(sha256) for sha256 in asked.sha256s)))
            case ("PUT", "blobs", sha256):
                return reply(self._take(sha256, int(query["offset"]), int(query["size"]), request.body))
            case ("GET", "blobs", sha256):
                return self._give_piece(sha256, int(query["offset"]), int(query["length"]))
            case ("POST", "artifacts"):
                return reply(self._add(from_json(AddArtifact, loads(request.body))))
            case ("GET", "artifacts"):
                return reply(self._page(query))
            case ("GET", "artifacts", artifact_id):
                return reply(self._view(artifact_id))
            case ("DELETE", "artifacts", artifact_id):
                return reply(self._delete(artifact_id))
            case ("POST", "outbox"):
                return reply(self._post(from_json(PostMessage, loads(request.body))))
        raise Unknown(f"{request.method} {request.target}")

    def _drop_damaged(self, sha256s: tuple[str, ...]) -> None:
        for sha256 in sha256s:
            if sha256 in self.blobs and hashlib.sha256(self.blobs[sha256]).hexdigest() != sha256:
                del self.blobs[sha256]

    def _state(self, sha256: str) -> BlobState:
        if sha256 in self.blobs:
            return BlobState(sha256=sha256, offset=len(self.blobs[sha256]), complete=True)
        return BlobState(sha256=sha256, offset=len(self.coming.get(sha256, b"")), complete=False)

    def _take(self, sha256: str, offset: int, size: int, piece: bytes) -> BlobState:
        self.before_piece("PUT", offset)
        assert len(piece) <= MAX_PIECE_BYTES
        there = self.coming.setdefault(sha256, bytearray())
        if sha256 not in self.blobs:
            if offset != len(there):
                raise Conflict(f"{len(there)} bytes are here, not {offset}", offset=len(there))
            there += piece
            self.pieces.append(("PUT", offset, len(piece)))
            self._finish(sha256, size)
        if self.lost:
            raise self.lost.pop(0)
        return self._state(sha256)

    def _finish(self, sha256: str, size: int) -> None:
        there = self.coming[sha256]
        if len(there) < size:
            return
        del self.coming[sha256]
        if hashlib.sha256(there).hexdigest() != sha256:
            raise FileChanged("the whole has another hash")
        self.blobs[sha256] = bytes(there)

    def _give_piece(self, sha256: str, offset: int, length: int) -> Response:
        self.before_piece("GET", offset)
        assert length <= MAX_PIECE_BYTES
        if sha256 not in self.blobs:
            raise Unknown(f"{self.name} has no such bytes")
        piece = self.blobs[sha256][offset : offset + length]
        self.pieces.append(("GET", offset, len(piece)))
        return Response(status=200, body=piece)

    def _add(self, wanted: AddArtifact) -> ArtifactRef:
        self._must_have(wanted.sha256)
        known = self.artifacts.get(wanted.artifact_id)
        left = wanted.expires_in_seconds
        made = self.keep(
            self.blobs[wanted.sha256],
            wanted.name,
            wanted.artifact_id,
            owner=wanted.owner,
            expires_at=None if left is None else 5.0 + left,
        )
        return known or made

    def _post(self, post: PostMessage) -> Done:
        for artifact in post.message.artifacts:
            self._must_have(artifact.sha256)
        self.posts.append(post)
        return Done()

    def _must_have(self, sha256: str) -> None:
        if sha256 not in self.blobs:
            raise Conflict(f"{self.name} has not the bytes: send them first", missing=[sha256])

    def _page(self, query: dict[str, str]) -> Artifacts:
        owner, group, limit = query.get("owner"), query.get("group"), min(2, int(query["limit"]))
        found = [
            artifact
            for artifact_id, artifact in sorted(self.artifacts.items())
            if artifact_id > query["after"]
            and ((owner, group) == (None, None) or owner == artifact.owner or (group and group == artifact.group_id))
        ]
        more = found[limit - 1].artifact_id if len(found) > limit else None
        return Artifacts(artifacts=tuple(found[:limit]), next=more)

    def _view(self, artifact_id: str) -> ArtifactView:
        for host in (self, *self.others):
            if artifact_id in host.artifacts:
                return ArtifactView(artifact=replace(host.artifacts[artifact_id], host_name=host.name), host=host.ref)
        raise Unknown(f"no host that is online has the artifact {artifact_id}")

    def _delete(self, artifact_id: str) -> Done:
        for host in (self, *self.others):
            if host.artifacts.pop(artifact_id, None):
                if self.lost:
                    raise self.lost.pop(0)
                return Done()
        raise Unknown(f"no host that is online has the artifact {artifact_id}")


def file_mesh(*names: str) -> tuple[TableExchange, tuple[FileHost, ...]]:
    """Return the hosts of one mesh. Each finds the artifacts of all."""
    hosts = tuple(FileHost(name=name) for name in names)
    for host in hosts:
        host.others = tuple(other for other in hosts if other is not host)
    return TableExchange(*hosts), hosts
