"""Whole blobs into memory, for what is small: a bundle, say."""

from __future__ import annotations

import hashlib

from paglets.api.limits import MAX_PIECE_BYTES
from paglets.client.mesh_client import MeshClient
from paglets.core.errors import FileChanged, TooLarge, Unreachable
from paglets.core.refs import BlobRef, HostRef, check_blob

MAX_READ_BYTES = 80 << 20


def read_blob(mesh: MeshClient, blob: BlobRef, host: HostRef, timeout: float) -> bytes:
    """The bytes that the member `host` keeps. Raises Unknown, TooLarge, FileChanged, Unreachable."""
    if check_blob(blob).size_bytes > MAX_READ_BYTES:
        raise TooLarge(f"a blob of {blob.size_bytes:,} bytes is not read at once: at most {MAX_READ_BYTES:,} are")
    at = mesh.member(host)
    if at is None:
        raise Unreachable(f"{host.name} is not among the hosts that {mesh.base.name} lists")
    data = bytearray()
    while len(data) < blob.size_bytes:
        length = min(MAX_PIECE_BYTES, blob.size_bytes - len(data))
        piece = mesh.fetch(at, f"/v1/blobs/{blob.sha256}?offset={len(data)}&length={length}", timeout)
        if not 0 < len(piece) <= length:
            raise FileChanged(f"{host.name} answered {len(piece):,} bytes where {length:,} were asked for")
        data += piece
    if hashlib.sha256(data).hexdigest() != blob.sha256:
        raise FileChanged(f"the bytes of {blob.sha256[:8]} on {host.name} are not those that its name names")
    return bytes(data)
