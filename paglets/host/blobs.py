"""The bytes of this host: taken in pieces, promised, kept while something refers to them, then removed.

A row in `blobs` is written when the bytes are safe on the disk, under the lock of their hash; it is deleted when
nothing refers to them and nobody was promised them lately, and only then, under the same lock, the file goes.
"""

from __future__ import annotations

from paglets.api import MAX_ENVELOPE_BYTES, MAX_PIECE_BYTES, BlobState
from paglets.core.errors import Conflict, NoRoom, TooLarge, Unknown
from paglets.core.refs import BlobRef, check_blob, check_sha256
from paglets.host.shell import Shell
from paglets.host.threads import KeyedLocks
from paglets.slots.amounts import bytes_text
from paglets.store import blobs
from paglets.store.db import Tx

FREE_BYTES = 64 << 20
"""What is left of the disk for the database and the logs."""

COLLECT_A_TURN = 200


class BlobKeeper:
    """Any thread. `Settings.blob_pin_seconds`: how long a blob stays that was promised to somebody."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._disk = shell.blobs
        self._locks = KeyedLocks()
        self._pinned: dict[str, float] = {}
        self._coming: dict[str, int] = {}
        # What an earlier start promised is not known any more.
        self._collect_at = shell.clock.monotonic() + shell.settings.blob_pin_seconds
        self._collected = ""
        self._idle: set[str] = set()

    # Looking and promising.

    def pin(self, sha256: str) -> None:
        """It stays for a while, whether something refers to it or not."""
        self._pinned[sha256] = self._shell.clock.monotonic() + self._shell.settings.blob_pin_seconds

    def state(self, sha256: str) -> BlobState:
        """How much of it is here; a whole one stays for a while."""
        check_sha256(sha256)
        self.pin(sha256)
        size = self._shell.store.read(lambda tx: blobs.size(tx, sha256))
        if size is not None:
            return BlobState(sha256=sha256, offset=size, complete=True)
        with self._locks.of(sha256):
            whole = self._disk.size(sha256)
            if whole is None:
                return BlobState(sha256=sha256, offset=self._disk.partial(sha256), complete=False)
            return self._is_whole(BlobRef(sha256=sha256, size_bytes=whole))

    def read(self, sha256: str, offset: int, length: int) -> bytes:
        """Up to `length` bytes, a piece at most. Raises Unknown."""
        check_sha256(sha256)
        if self._shell.store.read(lambda tx: blobs.size(tx, sha256)) is None:
            raise Unknown(f"{self._shell.own.name} has no bytes of the SHA-256 {sha256}")
        self.pin(sha256)
        return self._disk.read(sha256, offset, min(length, MAX_PIECE_BYTES))

    def read_whole(self, blob: BlobRef) -> bytes:
        """All of it at once: an envelope. Raises Unknown, TooLarge."""
        if blob.size_bytes > MAX_ENVELOPE_BYTES:
            raise TooLarge(f"an envelope of {blob.size_bytes:,} bytes is over the limit of {MAX_ENVELOPE_BYTES:,}")
        pieces = range(0, blob.size_bytes, MAX_PIECE_BYTES)
        return b"".join(self.read(blob.sha256, offset, MAX_PIECE_BYTES) for offset in pieces)

    def path(self, sha256: str) -> str:
        return self._disk.path(sha256)

    def must_be_here(self, tx: Tx, wanted: tuple[BlobRef, ...]) -> None:
        """Raises Conflict naming the first of these that is not."""
        lacking = blobs.missing(tx, (check_blob(blob) for blob in wanted))
        if lacking:
            raise Conflict(
                f"{self._shell.own.name} has not the bytes of {lacking[0].sha256}: send them first",
                missing=[blob.sha256 for blob in lacking],
            )

    # Taking.

    def take(self, blob: BlobRef, offset: int, piece: bytes) -> BlobState:
        """The next piece of a blob. Raises Conflict (details: the `offset` that is right), NoRoom, FileChanged."""
        check_blob(blob)
        if len(piece) > MAX_PIECE_BYTES or offset + len(piece) > blob.size_bytes:
            raise TooLarge(f"{len(piece)} bytes at {offset} are more than a piece of {blob.size_bytes} bytes")
        self.pin(blob.sha256)
        with self._locks.of(blob.sha256):
            whole = self._disk.size(blob.sha256)
            if whole is not None:
                return self._is_whole(BlobRef(sha256=blob.sha256, size_bytes=whole))
            there = self._disk.partial(blob.sha256)
            if there != offset:
                raise Conflict(f"{there} bytes of {blob.sha256} are here, not {offset}", offset=there)
            return self._add(blob, offset, piece)

    def _add(self, blob: BlobRef, offset: int, piece: bytes) -> BlobState:
        if offset == 0 or blob.sha256 not in self._coming:
            self.check_room(blob.size_bytes, coming=blob.sha256, there=offset)
        there = self._disk.append(blob.sha256, offset, piece)
        if there < blob.size_bytes:
            self._coming[blob.sha256] = blob.size_bytes
            return BlobState(sha256=blob.sha256, offset=there, complete=False)
        self._coming.pop(blob.sha256, None)
        self._disk.finish(blob)
        return self._is_whole(blob)

    def check_room(self, size_bytes: int, *, coming: str = "", there: int = 0) -> None:
        """May a blob of that size be kept? Raises NoRoom. `coming`: which one, `there`: how much of it is here."""
        name, settings = self._shell.own.name, self._shell.settings
        most, quota = settings.artifact_max_bytes, settings.artifact_quota_bytes
        if most and size_bytes > most:
            raise NoRoom(
                f"{name} takes no file over {bytes_text(most)} (artifact_max_size), this has {bytes_text(size_bytes)}"
            )
        if quota:
            used = self._shell.store.read(blobs.total_bytes)
            used += sum(size for sha256, size in list(self._coming.items()) if sha256 != coming)
            if used + size_bytes > quota:
                raise NoRoom(
                    f"{name} keeps {bytes_text(used)} of the {bytes_text(quota)} that it may "
                    f"(artifact_storage_quota): {bytes_text(size_bytes)} more do not fit"
                )
        free = self._disk.free()
        if free < size_bytes - there + FREE_BYTES:
            raise NoRoom(
                f"the disk of {name} has {bytes_text(free)} free: {bytes_text(size_bytes)} more do not fit "
                f"({bytes_text(FREE_BYTES)} stay free)"
            )

    def staging(self, size_bytes: int) -> str:
        """Where a process of a paglet may write a file of that size. Raises NoRoom."""
        self.check_room(size_bytes)
        return self._disk.staging()

    def publish(self, staged: str, blob: BlobRef) -> None:
        """A staged file becomes a blob; the same once more changes nothing. Raises Unknown, Invalid."""
        check_blob(blob)
        self.pin(blob.sha256)
        with self._locks.of(blob.sha256):
            try:
                self._disk.adopt(staged, blob)
            except Unknown:
                # It was adopted, and its row could not be stored: it is asked again when the disk has room.
                if self._disk.size(blob.sha256) != blob.size_bytes:
                    raise
            self._is_whole(blob)

    def put(self, data: bytes) -> BlobRef:
        """Bytes at hand."""
        self.check_room(len(data))
        blob = self._disk.put(data)
        self.pin(blob.sha256)
        with self._locks.of(blob.sha256):
            if self._disk.size(blob.sha256) is None:
                self._disk.put(data)
            self._is_whole(blob)
        return blob

    def _is_whole(self, blob: BlobRef) -> BlobState:
        """Its bytes are safe on the disk; its lock is held."""
        now = self._shell.clock.wall()
        self._shell.store.write(lambda tx: blobs.add(tx, blob, now))
        return BlobState(sha256=blob.sha256, offset=blob.size_bytes, complete=True)

    # Removing.

    def _is_pinned(self, sha256: str) -> bool:
        return self._pinned.get(sha256, 0.0) > self._shell.clock.monotonic()

    def collect(self) -> bool:
        """A turn of removing what nothing refers to; True where there is more to look at."""
        now = self._shell.clock.monotonic()
        if now < self._collect_at:
            return False
        self._pinned = {sha256: until for sha256, until in list(self._pinned.items()) if until > now}
        after = self._collected
        found = self._shell.store.read(lambda tx: blobs.unneeded(tx, after, COLLECT_A_TURN))
        self._collected = found[-1] if len(found) == COLLECT_A_TURN else ""
        for sha256 in found:
            if self._shell.store.write(lambda tx, sha256=sha256: self._forget(tx, sha256)):  # type: ignore[misc]
                self._unlink(sha256)
        return bool(self._collected)

    def _forget(self, tx: Tx, sha256: str) -> bool:
        return not self._is_pinned(sha256) and blobs.forget(tx, sha256)

    def _unlink(self, sha256: str) -> None:
        with self._locks.of(sha256):
            if self._shell.store.read(lambda tx: blobs.size(tx, sha256)) is None:
                self._disk.remove(sha256)
                self._disk.drop_code(sha256)

    def sweep(self) -> None:
        """Remove what lies on the disk without a row and was not touched between two calls of this."""
        left = {each for each in self._disk.remains() if not self._is_pinned(each) and self._is_stray(each)}
        for sha256 in sorted(left & self._idle):
            with self._locks.of(sha256):
                if self._is_stray(sha256) and not self._is_pinned(sha256):
                    self._coming.pop(sha256, None)
                    self._disk.drop_partial(sha256)
                    self._disk.remove(sha256)
                    self._disk.drop_code(sha256)
        self._idle = left
        self._disk.drop_staged(self._shell.settings.blob_pin_seconds)

    def _is_stray(self, sha256: str) -> bool:
        return self._shell.store.read(lambda tx: blobs.size(tx, sha256)) is None
