"""Bytes of a run: made of a name and a size, so that whoever sees them can say whether they are right."""

from __future__ import annotations

import hashlib

from paglets.core.clock import Entropy
from paglets.core.refs import BlobRef

PIECE_BYTES = 16
PIN_SECONDS = 4.0
"""Small enough that blobs go in pieces, and that hosts collect them within a run."""

SHORT_PIN_SECONDS = 0.5
"""Some keep their promises for a shorter time than others believe them, as who slept: bytes go missing."""


def content(name: str, size_bytes: int) -> bytes:
    """The same for the same name and size, other bytes for every other name."""
    data = b""
    while len(data) < size_bytes:
        data += hashlib.sha256(f"{name} {len(data)}".encode()).digest()
    return data[:size_bytes]


def blob_of(data: bytes) -> BlobRef:
    return BlobRef(sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))


def some_size(entropy: Entropy, piece_bytes: int) -> int:
    """Nothing, less than a piece, a whole one, or several."""
    kinds = (0, 1 + entropy.pick(piece_bytes - 1), piece_bytes, 1 + entropy.pick(6 * piece_bytes), 12 * piece_bytes)
    return kinds[entropy.pick(len(kinds))]
