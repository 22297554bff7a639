"""A client of hosts that keep bytes in memory, with a clock that only advances in waits."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

from paglets.client.artifacts import ArtifactTransfers
from paglets.client.mesh_client import MeshClient
from paglets.core.refs import BlobRef
from tests.fakes.clock import FakeClock, SeededEntropy
from tests.fakes.filehost import file_mesh

TIMEOUT = 10.0


def some_bytes(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def blob_of(data: bytes) -> BlobRef:
    return BlobRef(sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))


class FilesRig:
    """A mesh of `a`, `b` and `c`; `files` is a client of `a`."""

    def __init__(self) -> None:
        self.exchange, (self.a, self.b, self.c) = file_mesh("a", "b", "c")
        self.clock = FakeClock()
        link = MeshClient(
            self.a.ref, self.exchange, clock=self.clock, entropy=SeededEntropy(1), pause=self.clock.advance
        )
        self.files = ArtifactTransfers(link, TIMEOUT)

    def offsets(self, method: str, host: str = "a") -> list[int]:
        """Return the offsets of the pieces, in order."""
        return [offset for kind, offset, _ in self.exchange.hosts[f"http://{host}:8765"].pieces if kind == method]

    def names(self, folder: Path) -> list[str]:
        return sorted(path.name for path in folder.iterdir())
