"""The search for the last lines of a log."""

from __future__ import annotations

import re

from paglets.api.logs import AttemptView
from paglets.client.host_client import HostClient

TAIL_BYTES = 1 << 16
MOST_TAIL_BYTES = 1 << 24
"""The limit of the search: more than a host keeps of a stream."""

BEYOND = (1 << 62) - 1
"""An offset beyond any log, so that the answer has only the size."""


def offset_of_last_lines(client: HostClient, attempt: AttemptView, stream: str, lines: int) -> int:
    """Return the offset where the last `lines` lines of a log begin, or the start of its last gapless part."""
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
    """Return the last bytes of a log, at most `most`, without those before a gap."""
    end = client.read_log(attempt, stream, BEYOND, 1).size_bytes
    return _kept_before(client, attempt, stream, max(0, end - most), end)[1]


def _kept_before(client: HostClient, attempt: AttemptView, stream: str, begin: int, end: int) -> tuple[int, bytes]:
    """Return the bytes up to `end`, from `begin` or from the end of the last gap, and their offset."""
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
