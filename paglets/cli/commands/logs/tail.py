"""The search for the last lines of a log. A *gap* is a range of bytes that the host has deleted."""

from __future__ import annotations

import re

from paglets.api.logs import AttemptView
from paglets.client.host_client import HostClient

TAIL_BYTES = 1 << 16
MOST_TAIL_BYTES = 1 << 24
"""The maximum number of bytes to search. A host keeps fewer bytes of each stream."""

BEYOND = (1 << 62) - 1
"""An offset beyond the end of any log. The answer to a request for it has no data, only the size of the log."""


def offset_of_last_lines(client: HostClient, attempt: AttemptView, stream: str, lines: int) -> int:
    """Return the offset where the last `lines` lines of a log begin, or the end of the last gap if that is later."""
    end = client.read_log(attempt, stream, BEYOND, 1).size_bytes
    if lines == 0:
        return end
    span = TAIL_BYTES
    while True:
        begin, data = _kept_before(client, attempt, stream, max(0, end - span), end)
        breaks = [found.start() for found in re.finditer(b"\n", data[:-1])]
        if len(breaks) >= lines:
            return begin + breaks[-lines] + 1
        if begin == 0 or begin > end - span or span >= MOST_TAIL_BYTES:
            return begin
        span *= 4


def last_bytes(client: HostClient, attempt: AttemptView, stream: str, most: int) -> bytes:
    """Return at most `most` bytes from the end of a log, but none before its last gap."""
    end = client.read_log(attempt, stream, BEYOND, 1).size_bytes
    return _kept_before(client, attempt, stream, max(0, end - most), end)[1]


def _kept_before(client: HostClient, attempt: AttemptView, stream: str, begin: int, end: int) -> tuple[int, bytes]:
    """Return an offset, and the bytes of a log from there to `end`.

    The offset is `begin`, or the end of the last gap if that is later.
    """
    data = bytearray()
    position = begin
    while position < end:
        piece = client.read_log(attempt, stream, position)
        if not piece.data:
            break
        if piece.offset > position:
            begin = piece.offset
            data.clear()
        data += piece.data
        position = piece.next
    return begin, bytes(data[: max(0, end - begin)])
