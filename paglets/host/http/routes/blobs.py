"""Routes about blobs."""

from __future__ import annotations

from paglets.api.blobs import AskBlobs, BlobState, BlobStates
from paglets.api.limits import MAX_ASKED_BLOBS, MAX_PIECE_BYTES
from paglets.core.errors import BadRequest, TooLarge
from paglets.core.refs import MAX_BLOB_BYTES, BlobRef
from paglets.host.host import Host
from paglets.host.http.router import ParsedRequest, Route
from paglets.wire.http1 import BYTES_TYPE
from paglets.wire.request import Response


def state(host: Host, asked: ParsedRequest) -> BlobStates:
    body: AskBlobs = asked.body
    if len(body.sha256s) > MAX_ASKED_BLOBS:
        raise TooLarge(f"{len(body.sha256s)} blobs in one request; the limit is {MAX_ASKED_BLOBS}")
    look = host.blob_store.check if body.check else host.blob_store.state
    return BlobStates(blobs=tuple(look(sha256) for sha256 in body.sha256s))


def put(host: Host, asked: ParsedRequest) -> BlobState:
    if "size" not in asked.query:
        raise BadRequest("the query has no size of the whole blob: expected ?offset=N&size=TOTAL")
    blob = BlobRef(sha256=asked.path["SHA256"], size_bytes=asked.number("size", 0, MAX_BLOB_BYTES))
    return host.blob_store.take(blob, asked.number("offset", 0, MAX_BLOB_BYTES), asked.body)


def get(host: Host, asked: ParsedRequest) -> Response:
    offset = asked.number("offset", 0, MAX_BLOB_BYTES)
    length = asked.number("length", MAX_PIECE_BYTES, MAX_PIECE_BYTES)
    piece = host.blob_store.read(asked.path["SHA256"], offset, length)
    return Response(status=200, body=piece, headers={"content-type": BYTES_TYPE}, by_name=True)


ROUTES = (
    Route(
        method="POST",
        path="/v1/blobs/state",
        takes=AskBlobs,
        gives=BlobStates,
        about="how many bytes of these blobs this host has",
        answer=state,
    ),
    Route(
        method="PUT",
        path="/v1/blobs/SHA256",
        takes=bytes,
        gives=BlobState,
        about="store the next piece of a blob: ?offset=N&size=TOTAL",
        answer=put,
    ),
    Route(
        method="GET",
        path="/v1/blobs/SHA256",
        takes=None,
        gives=bytes,
        about="read a piece of a blob: ?offset=N&length=N",
        answer=get,
    ),
)
