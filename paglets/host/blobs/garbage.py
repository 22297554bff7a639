"""Remove expired artifacts, sources of files that have moved, and blobs that nothing refers to."""

from __future__ import annotations

from paglets.host.blobs.blob_store import BlobStore
from paglets.host.datadir.disk import CLOSED_SECONDS, is_unusable
from paglets.host.runtime.services import HostServices
from paglets.store import artifacts, files
from paglets.store.files import Removal

COLLECT_SECONDS = 60.0
COLLECTS_A_PIN = 4
"""The minimum number of garbage collections during the life of one pin."""

NEXT_TURN_SECONDS = 0.1
LONGEST_WAIT_SECONDS = 3600.0
"""The longest wait between checks, because artifacts expire by the wall clock, which may be set at any time."""

EXPIRE_A_TURN = 500
REMOVALS_A_TURN = 100
RETRY_SECONDS = (60.0, 600.0, 3600.0, 6 * 3600.0)
"""The seconds to wait before each retry of a failed removal. A disk may be read-only for a while, or a file server
unreachable. If the last retry fails, the source file is kept."""


class GarbageCollector:
    """The runner part `garbage`, which removes what nothing needs any more."""

    name = "garbage"

    def __init__(self, services: HostServices, blob_store: BlobStore) -> None:
        self._services = services
        self._blob_store = blob_store
        self._collect_seconds = min(COLLECT_SECONDS, services.settings.blob_pin_seconds / COLLECTS_A_PIN)
        self._collect_at = 0.0
        self._sweep_at = 0.0
        self._removing = False
        # Maps the number of a removal to its count of failed tries and the monotonic time of its next try.
        self._failed: dict[int, tuple[int, float]] = {}

    def tick(self, now: float) -> float | None:
        if is_unusable(self._services.disk):
            return now + CLOSED_SECONDS
        self._remove_sources(now)
        wall = self._services.clock.wall()
        end = self._services.store.read(artifacts.next_expiry)
        if end is not None and end <= wall:
            self._services.store.write(lambda tx: artifacts.expire(tx, wall, EXPIRE_A_TURN))
        if now >= self._collect_at:
            more = self._blob_store.collect()
            self._collect_at = now + (NEXT_TURN_SECONDS if more else self._collect_seconds)
        if now >= self._sweep_at:
            self._sweep_at = now + self._services.settings.blob_pin_seconds
            self._services.disk.run_later(self._blob_store.sweep)
        retries = (due for _, due in self._failed.values() if due > now)
        return min(self._collect_at, self._next_end(now, wall), *retries)

    def _next_end(self, now: float, wall: float) -> float:
        end = self._services.store.read(artifacts.next_expiry)
        return now + LONGEST_WAIT_SECONDS if end is None else now + min(LONGEST_WAIT_SECONDS, max(0.1, end - wall))

    def _remove_sources(self, now: float) -> None:
        if self._removing:
            return
        waiting = [number for number, (_, due) in self._failed.items() if due > now]
        found = self._services.store.read(lambda tx: files.removals(tx, REMOVALS_A_TURN, waiting))
        if found:
            self._removing = True
            # Users choose these paths, so one may be on a network mount that blocks; the runner must not wait for it.
            self._services.disk.run_later(lambda: self._remove(found))

    def _remove(self, found: list[Removal]) -> None:
        tried = [(removal, self._try_to_remove(removal)) for removal in found]
        self._services.runner.call_soon(lambda: self._removed(tried))

    def _try_to_remove(self, removal: Removal) -> str | Exception:
        try:
            return self._services.disk.remove_source(removal)
        except (OSError, ValueError) as error:
            return error

    def _removed(self, tried: list[tuple[Removal, str | Exception]]) -> None:
        """Delete the records of removals that are complete or have no retries left. Schedule retries of the others."""
        self._removing = False
        over = []
        for removal, problem in tried:
            if isinstance(problem, Exception) and self._try_again(removal.number):
                continue
            self._failed.pop(removal.number, None)
            over.append(removal.number)
            if problem:
                text = f"{removal.path} has moved with its paglet; the source was not removed: {problem}"
                self._services.logger(self.name).warning(text)
        if over:
            self._services.store.write(lambda tx: files.delete_removals(tx, over))
        self._services.runner.wake(self.name)

    def _try_again(self, number: int) -> bool:
        """Schedule a retry of a removal. Return False if no retries are left."""
        tries, _ = self._failed.get(number, (0, 0.0))
        if tries == len(RETRY_SECONDS):
            return False
        self._failed[number] = (tries + 1, self._services.clock.monotonic() + RETRY_SECONDS[tries])
        return True
