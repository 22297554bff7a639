"""Files of a machine beside its database: blobs, files of users and scratch directories.

They outlive the host.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from paglets.worker.protocol import Go, GoFile
from tests.fakes.blobs import MemoryBlobs
from tests.simulator.content import blob_of
from tests.simulator.sources import SourceFiles

Scratch = dict[str, dict[str, bytes]]
"""The files in the scratch directory of each paglet that has one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Folders:
    """A machine's folders, as processes of one start of its host see them."""

    blobs: MemoryBlobs
    sources: SourceFiles
    scratch: Scratch

    def begin(self, go: Go) -> list[str]:
        """Copy files to the scratch directory and unpack code, as a child does before it runs user code.

        Return a description of everything that differs from `go`.
        """
        return [*self._unpack(go), *(text for each in go.files for text in self._put(go, each))]

    def read(self, path: str) -> bytes | None:
        """Return the bytes of a blob by its path, or None if it is missing."""
        return self.blobs.disk.whole.get(path.rpartition("/")[2])

    def _unpack(self, go: Go) -> Iterator[str]:
        code = go.code
        if code is None or code.bundle.sha256 in self.blobs.disk.code:
            return
        data = self.read(code.path)
        if data is None or blob_of(data) != code.bundle:
            yield f"the code of {go.stamp.agent_id} {'is not here' if data is None else 'has other bytes'}"
        self.blobs.disk.code[code.bundle.sha256] = None

    def _put(self, go: Go, each: GoFile) -> Iterator[str]:
        if each.source_path in self.sources.there:
            return
        scratch = self.scratch.setdefault(go.stamp.agent_id, {})
        name = each.file.name
        data = scratch[name] if name in scratch else self.read(each.path)
        if data is None:
            yield f"the file {name} of {go.stamp.agent_id} is not here"
        else:
            scratch[name] = data
            if blob_of(data) != each.file.blob:
                yield f"the file {name} of {go.stamp.agent_id} has other bytes than it was registered with"
