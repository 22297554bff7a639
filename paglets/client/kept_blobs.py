"""The blobs that a host keeps for this client, so that code is not uploaded again for each submission."""

from __future__ import annotations

import hashlib

from paglets.core.clock import Clock
from paglets.core.refs import BlobRef

KEPT_SECONDS = 600.0
"""The time for which an upload is remembered. The host keeps the bytes for an hour."""

MAX_KEPT = 1_000


class KeptBlobs:
    """The uploads of the last minutes. A host that has lost a blob says so when a request names it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until: dict[BlobRef, float] = {}

    def find(self, data: bytes) -> BlobRef | None:
        """Return the blob with these bytes if the host keeps it, else None."""
        blob = BlobRef(sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))
        return blob if self._until.get(blob, 0.0) > self._clock.monotonic() else None

    def note(self, blob: BlobRef) -> None:
        """Remember that the host has this blob now."""
        self._until.pop(blob, None)
        self._until[blob] = self._clock.monotonic() + KEPT_SECONDS
        if len(self._until) > MAX_KEPT:
            del self._until[next(iter(self._until))]
