"""Files of users on a machine, which paglets register. They outlive the host."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from paglets.store.files import Removal


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """The fields of `stat` of a file."""

    size_bytes: int
    mtime_ns: int
    inode: int


class SourceFiles:
    """A store of files by path. `on_removed` is called with each path that a host removes."""

    def __init__(self) -> None:
        self.there: dict[str, SourceFile] = {}
        self.on_removed: Callable[[str], None] = lambda path: None
        self._written = 0

    def write(self, path: str, data: bytes) -> SourceFile:
        """Write a new file, which replaces one with the same path."""
        self._written += 1
        file = SourceFile(size_bytes=len(data), mtime_ns=1_000 * self._written, inode=self._written)
        self.there[path] = file
        return file

    def remove(self, removal: Removal) -> str:
        """Remove a file under the conditions of `Disk.remove_source`."""
        found = self.there.get(removal.path)
        if found is None:
            return ""
        if found != SourceFile(size_bytes=removal.size_bytes, mtime_ns=removal.mtime_ns, inode=removal.inode):
            return "it was changed"
        del self.there[removal.path]
        self.on_removed(removal.path)
        return ""
