"""What lies on a machine beside its database: blobs, files of users, scratch directories; and what processes see of it.

All of it outlives the host.
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
    """A machine's folders as the processes of one life of its host see them."""

    blobs: MemoryBlobs
    sources: SourceFiles
    scratch: Scratch

    def begin(self, go: Go) -> list[str]:
        """As a child does before any code of the paglet runs: files into the scratch, code unpacked.

        Gives what is not as `go` says, in words.
        """
        return [*self._unpack(go), *(text for each in go.files for text in self._put(go, each))]

    def read(self, path: str) -> bytes | None:
        """The bytes of a blob by its path; None where there is none."""
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
