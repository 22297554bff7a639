"""In-memory blobs, in place of `BlobFolder`. Their disk may be full, and loses data that was not synced."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from paglets.core.clock import Entropy
from paglets.core.errors import Conflict, FileChanged, Invalid, NoRoom, Unknown
from paglets.core.refs import BlobRef, check_blob, check_file_name, check_sha256

DISK_BYTES = 1 << 40

BLOB_STEPS = ("append", "finish", "adopt", "put", "remove")
"""The names that MemoryBlobs passes to `step`, before and after each change of the disk."""


@dataclass(slots=True)
class Staged:
    """A staged file: the time of its last write, and True if its writer has synced it."""

    data: bytes
    written_at: float
    synced: bool


@dataclass(slots=True)
class MemoryDisk:
    """The content of a disk, which outlives the host. `code` are the hashes of unpacked bundles.

    `unsynced` are whole blobs that a broken host did not sync. Otherwise there are none.
    """

    whole: dict[str, bytes] = field(default_factory=dict)
    partial: dict[str, bytes] = field(default_factory=dict)
    staged: dict[str, Staged] = field(default_factory=dict)
    code: dict[str, None] = field(default_factory=dict)
    unsynced: dict[str, None] = field(default_factory=dict)

    def power_off(self, entropy: Entropy) -> None:
        """Lose power: partial blobs keep some of their first bytes, and other unsynced data is lost."""
        for sha256 in self.unsynced:
            self.whole.pop(sha256, None)
        self.unsynced.clear()
        for sha256, data in sorted(self.partial.items()):
            self.partial[sha256] = data[: entropy.pick(len(data) + 1)]
        self.staged = {name: staged for name, staged in self.staged.items() if staged.synced}

    def used(self) -> int:
        return sum(map(len, (*self.whole.values(), *self.partial.values(), *(s.data for s in self.staged.values()))))


def _nothing(step: str) -> None:
    pass


class MemoryBlobs:
    """A `host.services.Blobs` of one start of a host on `disk`.

    `full()` returns True if the disk takes no more data now. `step(name)` is called before and after each change of the
    disk (BLOB_STEPS). It may raise, to crash there. `now()` returns the time for the age of staged files, in seconds.
    """

    def __init__(
        self,
        disk: MemoryDisk,
        *,
        full: Callable[[], bool] = lambda: False,
        step: Callable[[str], None] = _nothing,
        now: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.disk = disk
        self._full = full
        self._step = step
        self._now = now

    def stage(self, name: str, data: bytes, *, synced: bool = True) -> None:
        """Write a file to the staging folder, as a process of a paglet does. Raises NoRoom."""
        self._need_room()
        self.disk.staged[check_file_name(name)] = Staged(data, self._now(), synced)

    def run_in_background(self, act: Callable[[], None]) -> None:
        act()

    def size(self, sha256: str) -> int | None:
        data = self.disk.whole.get(check_sha256(sha256))
        return None if data is None else len(data)

    def partial(self, sha256: str) -> int:
        return len(self.disk.partial.get(check_sha256(sha256), b""))

    def append(self, sha256: str, offset: int, piece: bytes) -> int:
        whole, length = self.size(sha256), self.partial(sha256)
        if whole is not None:
            raise Conflict(f"blob {sha256} is already complete here, with {whole:,} bytes", offset=whole)
        if offset != length:
            raise Conflict(f"blob {sha256} continues at byte {length:,} here, not at {offset:,}", offset=length)
        self._need_room()
        with self._changing("append"):
            self.disk.partial[sha256] = self.disk.partial.get(sha256, b"") + piece
        return length + len(piece)

    def finish(self, blob: BlobRef) -> None:
        sha256 = check_blob(blob).sha256
        with self._changing("finish"):
            data = self.disk.partial.pop(sha256, b"")
            if self.size(sha256) == blob.size_bytes:
                return
            if len(data) != blob.size_bytes or _hash(data) != sha256:
                raise FileChanged(f"blob {sha256} was refused: send it again from the start")
            self.disk.whole[sha256] = data

    def adopt(self, staged: str, blob: BlobRef) -> None:
        check_blob(blob)
        found = self.disk.staged.get(check_file_name(staged))
        if found is None:
            raise Unknown(f"there is no staged file {staged!r}")
        if len(found.data) != blob.size_bytes:
            raise Invalid(f"staged: {staged!r} has {len(found.data):,} bytes, not the {blob.size_bytes:,} of its blob")
        with self._changing("adopt"):
            del self.disk.staged[staged]
            self.disk.whole[blob.sha256] = found.data
            self.disk.partial.pop(blob.sha256, None)

    def staged(self, name: str) -> int:
        found = self.disk.staged.get(check_file_name(name))
        return 0 if found is None else len(found.data)

    def put(self, data: bytes) -> BlobRef:
        blob = BlobRef(sha256=_hash(data), size_bytes=len(data))
        if self.size(blob.sha256) != blob.size_bytes:
            self._need_room()
            with self._changing("put"):
                self.disk.whole[blob.sha256] = bytes(data)
                self.disk.partial.pop(blob.sha256, None)
        return blob

    def read(self, sha256: str, offset: int, length: int) -> bytes:
        if offset < 0 or length < 0:
            raise Invalid(f"offset and length must not be negative: {offset}, {length}")
        data = self.disk.whole.get(check_sha256(sha256))
        if data is None:
            raise Unknown(f"blob {sha256} is not here")
        return data[offset : offset + length]

    def is_intact(self, blob: BlobRef) -> bool:
        data = self.disk.whole.get(check_sha256(blob.sha256))
        return data is not None and (len(data), _hash(data)) == (blob.size_bytes, blob.sha256)

    def remove(self, sha256: str) -> None:
        check_sha256(sha256)
        with self._changing("remove"):
            self.disk.whole.pop(sha256, None)

    def drop_partial(self, sha256: str) -> None:
        self.disk.partial.pop(check_sha256(sha256), None)

    def path(self, sha256: str) -> str:
        return f"/blobs/{check_sha256(sha256)[:2]}/{sha256}"

    def staging(self) -> str:
        return "/blobs/staging"

    def code_folder(self) -> str:
        return "/code"

    def free(self) -> int:
        return 0 if self._full() else max(0, DISK_BYTES - self.disk.used())

    def all_hashes(self) -> tuple[str, ...]:
        return tuple(sorted(self.disk.whole.keys() | self.disk.partial.keys() | self.disk.code.keys()))

    def drop_code(self, sha256: str) -> None:
        self.disk.code.pop(check_sha256(sha256), None)

    def drop_staged(self, before_seconds: float) -> None:
        oldest = self._now() - before_seconds
        self.disk.staged = {name: file for name, file in self.disk.staged.items() if file.written_at >= oldest}

    def _need_room(self) -> None:
        if self._full():
            raise NoRoom("the disk of this host is full: 0 bytes free")

    @contextmanager
    def _changing(self, step: str) -> Iterator[None]:
        self._step(step)
        yield
        self._step(step)


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
