"""Content of simulated files. It follows from a name and a size, so that any reader can verify it."""

from __future__ import annotations

import hashlib

from paglets.core.clock import Entropy
from paglets.core.refs import BlobRef

PIECE_BYTES = 16
PIN_SECONDS = 4.0
"""The time for which hosts pin bytes, short enough that they remove some within a run."""

SHORT_PIN_SECONDS = 0.5
"""A pin time shorter than other hosts assume, as after a sleep, so that bytes go missing."""


def content(name: str, size_bytes: int) -> bytes:
    """Return the same bytes for the same name and size, and different bytes for any other name."""
    data = b""
    while len(data) < size_bytes:
        data += hashlib.sha256(f"{name} {len(data)}".encode()).digest()
    return data[:size_bytes]


def blob_of(data: bytes) -> BlobRef:
    return BlobRef(sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))


def some_size(entropy: Entropy, piece_bytes: int) -> int:
    """Return a size: zero, part of a piece, one piece or several."""
    kinds = (0, 1 + entropy.pick(piece_bytes - 1), piece_bytes, 1 + entropy.pick(6 * piece_bytes), 12 * piece_bytes)
    return kinds[entropy.pick(len(kinds))]
