"""Frames for a socket pair. A frame is a 4-byte big-endian length, followed by a JSON object in UTF-8."""

from __future__ import annotations

import struct
from typing import Any

from paglets.codec.strict_json import dump_bytes, loads
from paglets.core.errors import BadRequest, TooLarge

MAX_FRAME_BYTES = 64 << 20
HEADER = struct.Struct(">I")


def pack(tree: Any) -> bytes:
    """Return `tree` encoded as a frame. Raises TooLarge above MAX_FRAME_BYTES, and Invalid if `tree` is not JSON."""
    body = dump_bytes(tree)
    if len(body) > MAX_FRAME_BYTES:
        raise TooLarge(f"a frame of {len(body):,} bytes is over the limit of {MAX_FRAME_BYTES:,}")
    return HEADER.pack(len(body)) + body


class Unpacker:
    """An incremental parser that accepts bytes in pieces of any size and returns complete frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """Return the frames that are complete after `data` was received.

        Raises BadRequest or TooLarge for a bad frame. The caller must then close the connection, because the rest of
        the stream cannot be parsed.
        """
        self._buffer += data
        frames = []
        while len(self._buffer) >= HEADER.size:
            (length,) = HEADER.unpack_from(self._buffer)
            if length > MAX_FRAME_BYTES:
                raise TooLarge(f"a frame of {length:,} bytes is over the limit of {MAX_FRAME_BYTES:,}")
            if len(self._buffer) < HEADER.size + length:
                break
            frames.append(_object(bytes(self._buffer[HEADER.size : HEADER.size + length])))
            del self._buffer[: HEADER.size + length]
        return frames


def _object(body: bytes) -> dict[str, Any]:
    frame = loads(body)
    if not isinstance(frame, dict):
        raise BadRequest("the body of a frame must be a JSON object")
    return frame
