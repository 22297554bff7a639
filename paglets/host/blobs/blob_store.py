"""The bytes of this host: taken in pieces, promised, kept while something refers to them, then removed.

A row in `blobs` is written when the bytes are safe on the disk; it is deleted when nothing refers to them and they
are promised to nobody, and the file goes after it. Both happen under the lock of their hash, and so does each look
that ends in a promise. A file that is not as its row says counts as not here, and makes room for the right bytes.
"""

from __future__ import annotations

import hashlib
import traceback
from collections.abc import Callable, Iterable
from typing import TypeVar

from paglets.api.blobs import BlobState
from paglets.api.limits import MAX_ENVELOPE_BYTES, MAX_PIECE_BYTES
from paglets.core.clock import Mutex
from paglets.core.errors import Conflict, FileChanged, PagletsError, TooLarge, Unknown
from paglets.core.refs import BlobRef, check_blob, check_file_name, check_sha256
from paglets.host.blobs.quota import QuotaReservations
from paglets.host.runtime.services import HostServices
from paglets.host.runtime.threads import KeyedLocks
from paglets.store import blobs
from paglets.store.db import Tx


class BlobPins:
    """Any thread. A promise by the clock lasts `seconds`; one to a run lasts until it is let go."""

    def __init__(self, seconds: float, monotonic: Callable[[], float]) -> None:
        self._seconds = seconds
        self._monotonic = monotonic
        self._lock = Mutex()
        self._until: dict[str, float] = {}
        self._held: dict[str, set[str]] = {}

    def pin(self, sha256: str) -> None:
        with self._lock:
            self._until[sha256] = self._monotonic() + self._seconds

    def hold(self, token: str, sha256: str) -> None:
        """For the run of that token, however long it takes until it says what the blob is for."""
        with self._lock:
            self._held.setdefault(token, set()).add(sha256)

    def held(self, token: str) -> tuple[str, ...]:
        with self._lock:
            return tuple(self._held.get(token, ()))

    def let_go(self, token: str, sha256s: Iterable[str]) -> None:
        with self._lock:
            held = self._held.get(token, set())
            held.difference_update(sha256s)
            if not held:
                self._held.pop(token, None)

    def stands(self, sha256: str) -> bool:
        with self._lock:
            by_clock = self._until.get(sha256, 0.0) > self._monotonic()
            return by_clock or any(sha256 in held for held in self._held.values())

    def forget_old(self) -> None:
        with self._lock:
            now = self._monotonic()
            for sha256 in [sha256 for sha256, until in self._until.items() if until <= now]:
                del self._until[sha256]


T = TypeVar("T")

COLLECT_A_TURN = 200


class BlobStore:
    """Any thread; the runner calls what may wait for the disk by `aside` only.

    `Settings.blob_pin_seconds`: how long a blob stays that was promised to somebody.
    """

    def __init__(self, services: HostServices) -> None:
        self._services = services
        self._disk = services.blobs
        self._locks = KeyedLocks()
        self._promises = BlobPins(services.settings.blob_pin_seconds, services.clock.monotonic)
        self._room = QuotaReservations(services)
        # Files of the right size that were found to have wrong bytes.
        self._damaged: set[str] = set()
        # What an earlier start promised is not known any more.
        self._collect_at = services.clock.monotonic() + services.settings.blob_pin_seconds
        self._collected = ""
        self._idle: set[str] = set()

    def run_in_background(self, act: Callable[[], T], done: Callable[[T | BaseException], None]) -> None:
        """Do it where it may wait for the disk; `done` gets its value or error, on the runner."""

        def perform() -> None:
            try:
                result: T | BaseException = act()
            except Exception as error:
                if not isinstance(error, PagletsError):
                    self._services.log(f"fault in an act on blobs: {traceback.format_exc()}")
                result = error
            self._services.runner.call_soon(lambda: done(result))

        self._disk.run_in_background(perform)

    # Looking and promising.

    def pin(self, sha256: str) -> None:
        """It stays for a while, whether something refers to it or not."""
        self._promises.pin(sha256)

    def hold(self, token: str, sha256: str) -> None:
        """It stays for the run of that token, which has not said yet what it is for."""
        self._promises.hold(token, sha256)

    def committed(self, token: str) -> None:
        """A change of that run is committed: what something refers to by now needs no promise to the run."""
        held = self._promises.held(token)
        if held:
            needed = self._services.store.read(lambda tx: [sha256 for sha256 in held if blobs.is_needed(tx, sha256)])
            self._promises.let_go(token, needed)

    def run_ended(self, token: str) -> None:
        self._promises.let_go(token, self._promises.held(token))
        self._room.run_ended(token)

    def state(self, sha256: str) -> BlobState:
        """How much of it is here; a whole one stays for a while."""
        check_sha256(sha256)
        with self._locks.of(sha256):
            self.pin(sha256)
            size = self._row(sha256)
            if size is not None and self._has_all(sha256, size):
                return BlobState(sha256=sha256, offset=size, complete=True)
            return BlobState(sha256=sha256, offset=self._disk.partial(sha256), complete=False)

    def check(self, sha256: str) -> BlobState:
        """Its state after a look at all of its bytes: somebody got wrong ones."""
        with self._locks.of(check_sha256(sha256)):
            size = self._row(sha256)
            if size is not None and not self._disk.is_intact(BlobRef(sha256=sha256, size_bytes=size)):
                self._damaged.add(sha256)
                self._services.log(f"the bytes of {sha256} are damaged on this disk")
        return self.state(sha256)

    def read(self, sha256: str, offset: int, length: int) -> bytes:
        """Up to `length` bytes, a piece at most. Raises Unknown; FileChanged where the disk has lost them."""
        size = self._row(check_sha256(sha256))
        if size is None:
            raise Unknown(f"{self._services.own.name} has no bytes of the SHA-256 {sha256}")
        self.pin(sha256)
        length = min(length, MAX_PIECE_BYTES, max(0, size - offset))
        piece = b""
        if sha256 not in self._damaged and self._disk.size(sha256) is not None:
            piece = self._disk.read(sha256, offset, length)
        if len(piece) < length:
            raise FileChanged(
                f"the bytes of {sha256} on {self._services.own.name} are damaged: its disk may be failing; "
                "put the file there anew"
            )
        return piece

    def read_whole(self, blob: BlobRef) -> bytes:
        """All of it at once: an envelope. Raises Unknown, TooLarge, FileChanged."""
        if blob.size_bytes > MAX_ENVELOPE_BYTES:
            raise TooLarge(f"an envelope of {blob.size_bytes:,} bytes is over the limit of {MAX_ENVELOPE_BYTES:,}")
        pieces = range(0, blob.size_bytes, MAX_PIECE_BYTES)
        return b"".join(self.read(blob.sha256, offset, MAX_PIECE_BYTES) for offset in pieces)

    def path(self, sha256: str) -> str:
        return self._disk.path(sha256)

    def require_blobs(self, tx: Tx, wanted: tuple[BlobRef, ...]) -> None:
        """Raises Conflict naming the first of these that is not."""
        lacking = [blob.sha256 for blob in blobs.missing(tx, (check_blob(blob) for blob in wanted))]
        if lacking:
            text = f"{self._services.own.name} has not the bytes of {lacking[0]}: send them first"
            raise Conflict(text, missing=lacking)

    def _has_all(self, sha256: str, size_bytes: int) -> bool:
        return self._disk.size(sha256) == size_bytes and sha256 not in self._damaged

    def _row(self, sha256: str) -> int | None:
        return self._services.store.read(lambda tx: blobs.size(tx, sha256))

    # Taking.

    def take(self, blob: BlobRef, offset: int, piece: bytes) -> BlobState:
        """The next piece of a blob. Raises Conflict (details: the `offset` that is right), NoRoom, FileChanged."""
        check_blob(blob)
        if len(piece) > MAX_PIECE_BYTES or offset + len(piece) > blob.size_bytes:
            raise TooLarge(f"{len(piece)} bytes at {offset} are more than a piece of {blob.size_bytes} bytes")
        with self._locks.of(blob.sha256):
            self.pin(blob.sha256)
            whole = self._sound(blob)
            if whole is not None:
                return self._is_whole(whole, blob.sha256)
            there = self._disk.partial(blob.sha256)
            if there != offset:
                raise Conflict(f"{there} bytes of {blob.sha256} are here, not {offset}", offset=there)
            return self._add(blob, offset, piece)

    def _sound(self, blob: BlobRef) -> BlobRef | None:
        """The whole blob, where the disk has one that may be right; another file in its place is removed."""
        row, size = self._row(blob.sha256), self._disk.size(blob.sha256)
        expected = blob.size_bytes if row is None else row
        if size is not None and (size != expected or blob.sha256 in self._damaged):
            self._disk.remove(blob.sha256)
            size = None
        self._damaged.discard(blob.sha256)
        return None if size is None else BlobRef(sha256=blob.sha256, size_bytes=size)

    def _add(self, blob: BlobRef, offset: int, piece: bytes) -> BlobState:
        self._room.reserve(blob.sha256, blob.size_bytes, lambda: self._disk.partial(blob.sha256))
        try:
            there = self._disk.append(blob.sha256, offset, piece)
            if there < blob.size_bytes:
                return BlobState(sha256=blob.sha256, offset=there, complete=False)
            self._disk.finish(blob)
        except Exception:
            self._room.give_up(blob.sha256)
            raise
        return self._is_whole(blob, blob.sha256)

    def staging(self, staged: str, size_bytes: int, token: str, *, on_disk: bool = False) -> str:
        """Where the run of that token may write a file of that name and size, or rename one to. Raises NoRoom,
        Invalid."""
        check_file_name(staged)
        self._room.reserve(staged, size_bytes, lambda: self._disk.staged(staged), token, on_disk=on_disk)
        return self._disk.staging()

    def publish(self, staged: str, blob: BlobRef) -> None:
        """A staged file becomes a blob; the same once more changes nothing. Raises Unknown, Invalid, NoRoom."""
        check_blob(blob)
        with self._locks.of(blob.sha256):
            self.pin(blob.sha256)
            whole = self._sound(blob)
            if whole is None:
                self._room.check(staged, blob.size_bytes)
            try:
                self._disk.adopt(staged, blob)
            except Unknown:
                # It was adopted, and its row could not be stored: it is asked again when the disk has room.
                if whole != blob:
                    raise
            self._is_whole(blob, staged)

    def put(self, data: bytes) -> BlobRef:
        """Bytes at hand. Raises NoRoom."""
        blob = BlobRef(sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))
        with self._locks.of(blob.sha256):
            self.pin(blob.sha256)
            if self._sound(blob) is None:
                self._room.reserve(blob.sha256, blob.size_bytes, lambda: 0)
                try:
                    self._disk.put(data)
                except Exception:
                    self._room.give_up(blob.sha256)
                    raise
            self._is_whole(blob, blob.sha256)
        return blob

    def _is_whole(self, blob: BlobRef, came_as: str) -> BlobState:
        """Its bytes are safe on the disk; its lock is held."""
        now = self._services.clock.wall()
        with self._room.settled(came_as):
            self._services.store.write(lambda tx: blobs.add(tx, blob, now))
        return BlobState(sha256=blob.sha256, offset=blob.size_bytes, complete=True)

    # Removing.

    def collect(self) -> bool:
        """A turn of removing what nothing refers to; True where there is more to look at.

        Of bytes that the disk has lost the row goes at once: it would tell others that they need not send them.
        """
        early = self._services.clock.monotonic() < self._collect_at
        self._promises.forget_old()
        after = self._collected
        found = self._services.store.read(lambda tx: blobs.unneeded(tx, after, COLLECT_A_TURN))
        self._collected = found[-1] if len(found) == COLLECT_A_TURN else ""
        for sha256 in found:
            if self._is_lost(sha256) or not (early or self._promises.stands(sha256)):
                self._forget(sha256)
        return bool(self._collected)

    def _is_lost(self, sha256: str) -> bool:
        """Whether somebody removed it from the disk."""
        return self._disk.size(sha256) is None

    def _forget(self, sha256: str) -> None:
        """Unless it was promised, or something refers to it, by now."""

        def forget(tx: Tx) -> bool:
            return (self._is_lost(sha256) or not self._promises.stands(sha256)) and blobs.forget(tx, sha256)

        with self._locks.of(sha256):
            if self._services.store.write(forget):
                self._disk.remove(sha256)
                self._disk.drop_code(sha256)
                self._damaged.discard(sha256)

    def sweep(self) -> None:
        """Remove what lies on the disk without a row and was not touched between two calls of this."""
        left = {each for each in self._disk.all_hashes() if not self._promises.stands(each) and self._row(each) is None}
        for sha256 in sorted(left & self._idle):
            with self._locks.of(sha256):
                if self._row(sha256) is None and not self._promises.stands(sha256):
                    self._disk.drop_partial(sha256)
                    self._disk.remove(sha256)
                    self._disk.drop_code(sha256)
        self._idle = left
        self._disk.drop_staged(self._services.settings.blob_pin_seconds)
