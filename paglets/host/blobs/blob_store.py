"""The blob store of a host. It receives blobs in pieces and keeps each while a row refers to it or a pin holds it.

A row in `blobs` is inserted after the bytes are synced to the disk. When nothing refers to a blob and no pin holds it,
its row and then its file are deleted. Both happen under the lock of the hash. Methods that pin a blob and report if it
is complete take the same lock. A file that differs from its row counts as missing and is replaced.
"""

from __future__ import annotations

import hashlib
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
    """The pins that protect blobs from removal. A timed pin lasts `seconds`; a pin of a run lasts until it is released.

    The methods may be called from any thread.
    """

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
        """Pin the blob for the run `token`, until `release` is called."""
        with self._lock:
            self._held.setdefault(token, set()).add(sha256)

    def held(self, token: str) -> tuple[str, ...]:
        with self._lock:
            return tuple(self._held.get(token, ()))

    def release(self, token: str, sha256s: Iterable[str]) -> None:
        with self._lock:
            held = self._held.get(token, set())
            held.difference_update(sha256s)
            if not held:
                self._held.pop(token, None)

    def is_pinned(self, sha256: str) -> bool:
        with self._lock:
            by_clock = self._until.get(sha256, 0.0) > self._monotonic()
            return by_clock or any(sha256 in held for held in self._held.values())

    def expire(self) -> None:
        with self._lock:
            now = self._monotonic()
            for sha256 in [sha256 for sha256, until in self._until.items() if until <= now]:
                del self._until[sha256]


T = TypeVar("T")

COLLECT_A_TURN = 200


class BlobStore:
    """The blob store of a host. Its methods may be called from any thread.

    The runner calls methods that may wait for the disk through `run_in_background`. A pin that no run holds lasts
    `Settings.blob_pin_seconds`.
    """

    def __init__(self, services: HostServices) -> None:
        self._services = services
        self._log = services.logger("blobs")
        self._disk = services.blobs
        self._locks = KeyedLocks()
        self._pins = BlobPins(services.settings.blob_pin_seconds, services.clock.monotonic)
        self._quota = QuotaReservations(services)
        # Hashes of files that have the right size but failed a hash check.
        self._damaged: set[str] = set()
        # Pins are lost when a host stops, so no blob is collected before all pins of the previous run have expired.
        self._collect_at = services.clock.monotonic() + services.settings.blob_pin_seconds
        self._collected = ""
        self._idle: set[str] = set()

    def run_in_background(self, act: Callable[[], T], done: Callable[[T | BaseException], None]) -> None:
        """Run `act` on a thread that may wait for the disk. Then call `done` on the runner with the result or error."""

        def perform() -> None:
            try:
                result: T | BaseException = act()
            except Exception as error:
                if not isinstance(error, PagletsError):
                    self._log.exception("internal error in a background task of the blob store")
                result = error
            self._services.runner.call_soon(lambda: done(result))

        self._disk.run_in_background(perform)

    # Methods that read blobs and pin them.

    def pin(self, sha256: str) -> None:
        """Keep the blob for `blob_pin_seconds`, even if nothing refers to it."""
        self._pins.pin(sha256)

    def hold(self, token: str, sha256: str) -> None:
        """Pin the blob until the run `token` has stored a row that refers to the blob, or has ended."""
        self._pins.hold(token, sha256)

    def committed(self, token: str) -> None:
        """Release those pins of a run whose blobs a committed row now refers to."""
        held = self._pins.held(token)
        if held:
            needed = self._services.store.read(lambda tx: [sha256 for sha256 in held if blobs.is_needed(tx, sha256)])
            self._pins.release(token, needed)

    def run_ended(self, token: str) -> None:
        self._pins.release(token, self._pins.held(token))
        self._quota.run_ended(token)

    def state(self, sha256: str) -> BlobState:
        """Pin the blob, and return how many of its bytes this host has."""
        check_sha256(sha256)
        with self._locks.of(sha256):
            self.pin(sha256)
            size = self._row(sha256)
            if size is not None and self._has_all(sha256, size):
                return BlobState(sha256=sha256, offset=size, complete=True)
            return BlobState(sha256=sha256, offset=self._disk.partial(sha256), complete=False)

    def check(self, sha256: str) -> BlobState:
        """Check the hash of the blob, mark a wrong blob as damaged, and return its state.

        Called after another host has received wrong bytes from this host.
        """
        with self._locks.of(check_sha256(sha256)):
            size = self._row(sha256)
            if size is not None and not self._disk.is_intact(BlobRef(sha256=sha256, size_bytes=size)):
                self._damaged.add(sha256)
                self._log.error(f"blob {sha256} is damaged on the disk of this host: its SHA-256 differs")
        return self.state(sha256)

    def read(self, sha256: str, offset: int, length: int) -> bytes:
        """Pin the blob, and return its bytes from `offset`: at most `length` and at most MAX_PIECE_BYTES.

        Raises Unknown, or FileChanged if the file is missing, too short or damaged.
        """
        size = self._row(check_sha256(sha256))
        if size is None:
            raise Unknown(f"{self._services.own.name} has no blob with the SHA-256 {sha256}")
        self.pin(sha256)
        length = min(length, MAX_PIECE_BYTES, max(0, size - offset))
        piece = b""
        if sha256 not in self._damaged and self._disk.size(sha256) is not None:
            piece = self._disk.read(sha256, offset, length)
        if len(piece) < length:
            raise FileChanged(
                f"the bytes of {sha256} on {self._services.own.name} are damaged: its disk may be failing; "
                "store the file on that host again"
            )
        return piece

    def read_whole(self, blob: BlobRef) -> bytes:
        """Return all bytes of an envelope that is stored as a blob. Raises Unknown, TooLarge or FileChanged."""
        if blob.size_bytes > MAX_ENVELOPE_BYTES:
            raise TooLarge(f"an envelope of {blob.size_bytes:,} bytes is over the limit of {MAX_ENVELOPE_BYTES:,}")
        pieces = range(0, blob.size_bytes, MAX_PIECE_BYTES)
        return b"".join(self.read(blob.sha256, offset, MAX_PIECE_BYTES) for offset in pieces)

    def path(self, sha256: str) -> str:
        return self._disk.path(sha256)

    def require_blobs(self, tx: Tx, wanted: tuple[BlobRef, ...]) -> None:
        """Check that this host has all these blobs. Raises Conflict; its detail `missing` lists the missing ones."""
        lacking = [blob.sha256 for blob in blobs.missing(tx, (check_blob(blob) for blob in wanted))]
        if lacking:
            text = f"{self._services.own.name} lacks the blob {lacking[0]}: send its bytes first"
            raise Conflict(text, missing=lacking)

    def _has_all(self, sha256: str, size_bytes: int) -> bool:
        return self._disk.size(sha256) == size_bytes and sha256 not in self._damaged

    def _row(self, sha256: str) -> int | None:
        return self._services.store.read(lambda tx: blobs.size(tx, sha256))

    # Methods that receive and store blobs.

    def take(self, blob: BlobRef, offset: int, piece: bytes) -> BlobState:
        """Append the next piece to a partial blob, unless the blob is already complete. Return its state.

        Raises TooLarge, NoRoom, FileChanged, or Conflict with the expected offset in its detail `offset`.
        """
        check_blob(blob)
        if len(piece) > MAX_PIECE_BYTES or offset + len(piece) > blob.size_bytes:
            text = f"{len(piece)} bytes at offset {offset} are too large a piece of a blob of {blob.size_bytes} bytes"
            raise TooLarge(text)
        with self._locks.of(blob.sha256):
            self.pin(blob.sha256)
            whole = self._sound(blob)
            if whole is not None:
                return self._store_row(whole, blob.sha256)
            there = self._disk.partial(blob.sha256)
            if there != offset:
                text = f"the next byte of partial blob {blob.sha256} is {there}, not {offset}"
                raise Conflict(text, offset=there)
            return self._add(blob, offset, piece)

    def _sound(self, blob: BlobRef) -> BlobRef | None:
        """Return the blob if its file has the right size and is not known to be damaged.

        Otherwise remove the file and return None.
        """
        row, size = self._row(blob.sha256), self._disk.size(blob.sha256)
        expected = blob.size_bytes if row is None else row
        if size is not None and (size != expected or blob.sha256 in self._damaged):
            self._disk.remove(blob.sha256)
            size = None
        self._damaged.discard(blob.sha256)
        return None if size is None else BlobRef(sha256=blob.sha256, size_bytes=size)

    def _add(self, blob: BlobRef, offset: int, piece: bytes) -> BlobState:
        self._quota.reserve(blob.sha256, blob.size_bytes, lambda: self._disk.partial(blob.sha256))
        try:
            there = self._disk.append(blob.sha256, offset, piece)
            if there < blob.size_bytes:
                return BlobState(sha256=blob.sha256, offset=there, complete=False)
            self._disk.finish(blob)
        except Exception:
            self._quota.give_up(blob.sha256)
            raise
        return self._store_row(blob, blob.sha256)

    def staging(self, staged: str, size_bytes: int, token: str, *, on_disk: bool = False) -> str:
        """Reserve disk space for a file that the run `token` stages. Return the folder for the file.

        `on_disk` is as in `QuotaReservations.reserve`. Raises NoRoom or Invalid.
        """
        check_file_name(staged)
        self._quota.reserve(staged, size_bytes, lambda: self._disk.staged(staged), token, on_disk=on_disk)
        return self._disk.staging()

    def publish(self, staged: str, blob: BlobRef) -> None:
        """Turn a staged file into a blob. A repeated call changes nothing. Raises Unknown, Invalid or NoRoom."""
        check_blob(blob)
        with self._locks.of(blob.sha256):
            self.pin(blob.sha256)
            whole = self._sound(blob)
            if whole is None:
                self._quota.check(staged, blob.size_bytes)
            try:
                self._disk.adopt(staged, blob)
            except Unknown:
                # An earlier call moved the file into the blob store but could not store its row. The caller repeats
                # the call when the disk has space.
                if whole != blob:
                    raise
            self._store_row(blob, staged)

    def put(self, data: bytes) -> BlobRef:
        """Store these bytes as a blob. Raises NoRoom."""
        blob = BlobRef(sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))
        with self._locks.of(blob.sha256):
            self.pin(blob.sha256)
            if self._sound(blob) is None:
                self._quota.reserve(blob.sha256, blob.size_bytes, lambda: 0)
                try:
                    self._disk.put(data)
                except Exception:
                    self._quota.give_up(blob.sha256)
                    raise
            self._store_row(blob, blob.sha256)
        return blob

    def _store_row(self, blob: BlobRef, came_as: str) -> BlobState:
        """Store the row of a blob whose bytes are synced to the disk. The caller holds the lock of its hash."""
        now = self._services.clock.wall()
        with self._quota.settled(came_as):
            self._services.store.write(lambda tx: blobs.add(tx, blob, now))
        return BlobState(sha256=blob.sha256, offset=blob.size_bytes, complete=True)

    # Methods that remove blobs.

    def collect(self) -> bool:
        """Remove some blobs that nothing refers to. Return True if there are more to check.

        A pinned blob is kept. But if its file is missing, its row is deleted all the same, because other hosts do not
        send the bytes again while the row exists.
        """
        early = self._services.clock.monotonic() < self._collect_at
        self._pins.expire()
        after = self._collected
        found = self._services.store.read(lambda tx: blobs.unneeded(tx, after, COLLECT_A_TURN))
        self._collected = found[-1] if len(found) == COLLECT_A_TURN else ""
        for sha256 in found:
            if self._is_lost(sha256) or not (early or self._pins.is_pinned(sha256)):
                self._forget(sha256)
        return bool(self._collected)

    def _is_lost(self, sha256: str) -> bool:
        """Return True if the file of the blob is missing."""
        return self._disk.size(sha256) is None

    def _forget(self, sha256: str) -> None:
        """Remove the blob and its row, unless the blob has been pinned or a row refers to it by now."""

        def forget(tx: Tx) -> bool:
            return (self._is_lost(sha256) or not self._pins.is_pinned(sha256)) and blobs.forget(tx, sha256)

        with self._locks.of(sha256):
            if self._services.store.write(forget):
                self._disk.remove(sha256)
                self._disk.drop_code(sha256)
                self._damaged.discard(sha256)

    def sweep(self) -> None:
        """Remove each unpinned blob file that had no row at the previous call and has none now.

        Also remove old staged files.
        """
        left = {each for each in self._disk.all_hashes() if not self._pins.is_pinned(each) and self._row(each) is None}
        for sha256 in sorted(left & self._idle):
            with self._locks.of(sha256):
                if self._row(sha256) is None and not self._pins.is_pinned(sha256):
                    self._disk.drop_partial(sha256)
                    self._disk.remove(sha256)
                    self._disk.drop_code(sha256)
        self._idle = left
        self._disk.drop_staged(self._services.settings.blob_pin_seconds)
