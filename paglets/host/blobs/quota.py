"""Whether bytes fit: the bound of one file, the quota of a host, its disk.

What is on its way counts as if it were here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from paglets.core.clock import Mutex
from paglets.core.errors import Invalid, NoRoom
from paglets.host.runtime.services import HostServices
from paglets.slots.amounts import bytes_text
from paglets.store import blobs

FREE_BYTES = 64 << 20
"""What is left of the disk for the database and the logs."""

RESERVED_SECONDS = 600.0
"""So long after its last sign of life a transfer has its room; then only what lies there of it counts. Longer than
the pauses between the tries of whoever sends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Coming:
    """`there`: how much of it lies on the disk, where it takes `new_bytes`: none for a file that is only renamed.
    `token`: of the run that writes it, "": a transfer."""

    size_bytes: int
    new_bytes: int
    there: Callable[[], int]
    until: float
    token: str = ""


class QuotaReservations:
    """Any thread. What comes has a name: the hash of a blob, or the staged file that is to become one."""

    def __init__(self, services: HostServices) -> None:
        self._services = services
        self._lock = Mutex()
        self._coming: dict[str, _Coming] = {}

    def reserve(
        self, name: str, size_bytes: int, there: Callable[[], int], token: str = "", *, on_disk: bool = False
    ) -> None:
        """For a while, or until it is `settled`; again and again while it comes. `on_disk`: it lies on that disk
        already, and is to be renamed. Raises NoRoom, Invalid."""
        if size_bytes < 0:
            raise Invalid(f"the size of {name} is {size_bytes} bytes: it must be 0 or more")
        now = self._services.clock.monotonic()
        until, new_bytes = now + RESERVED_SECONDS, 0 if on_disk else size_bytes
        coming = _Coming(size_bytes=size_bytes, new_bytes=new_bytes, there=there, until=until, token=token)
        with self._lock:
            known = self._coming.get(name)
            is_same = known is not None and (known.size_bytes, known.new_bytes) == (size_bytes, new_bytes)
            if known is None or known.until <= now or not is_same:
                self._check_limits(name, size_bytes, now)
                self._check_disk(name, coming, now)
            self._coming[name] = coming

    def check(self, name: str, size_bytes: int) -> None:
        """May a file be kept that lies there already? Raises NoRoom."""
        with self._lock:
            self._check_limits(name, size_bytes, self._services.clock.monotonic())

    def give_up(self, name: str) -> None:
        """Perhaps nothing more comes: from now on only what lies there counts."""
        with self._lock:
            if name in self._coming:
                self._give_up(name)

    def run_ended(self, token: str) -> None:
        """The same for all that this run was to write."""
        with self._lock:
            for name in [name for name, each in self._coming.items() if each.token == token]:
                self._give_up(name)

    def _give_up(self, name: str) -> None:
        self._coming[name] = replace(self._coming[name], until=self._services.clock.monotonic())

    @contextmanager
    def settled(self, name: str) -> Iterator[None]:
        """Around what makes it count as a blob: it is never counted twice, nor not at all."""
        with self._lock:
            yield
            self._coming.pop(name, None)

    def _others(self, name: str, now: float) -> list[_Coming]:
        """What comes beside that; without what has not come for long and left nothing."""
        gone = [key for key, each in self._coming.items() if each.until <= now and not each.there()]
        for key in gone:
            del self._coming[key]
        return [each for key, each in self._coming.items() if key != name]

    def _check_limits(self, name: str, size_bytes: int, now: float) -> None:
        own, settings = self._services.own.name, self._services.settings
        most, quota = settings.artifact_max_bytes, settings.artifact_quota_bytes
        if most and size_bytes > most:
            raise NoRoom(
                f"{own} takes no file over {bytes_text(most)} (artifact_max_size), this has {bytes_text(size_bytes)}",
                never=True,
            )
        if quota and size_bytes > quota:
            raise NoRoom(
                f"{own} keeps no more than {bytes_text(quota)} of files (artifact_storage_quota), "
                f"and this one alone has {bytes_text(size_bytes)}",
                never=True,
            )
        if quota:
            used = self._services.store.read(blobs.total_bytes)
            used += sum(each.size_bytes if each.until > now else each.there() for each in self._others(name, now))
            if used + size_bytes > quota:
                raise NoRoom(
                    f"{own} keeps {bytes_text(used)} of the {bytes_text(quota)} that it may "
                    f"(artifact_storage_quota): {bytes_text(size_bytes)} more do not fit; delete some, or raise it"
                )

    def _check_disk(self, name: str, coming: _Coming, now: float) -> None:
        more_bytes = _lacking(coming)
        others = [each for each in self._others(name, now) if each.until > now]
        reserved = FREE_BYTES + sum(map(_lacking, others))
        if more_bytes and (free := self._services.blobs.free()) < more_bytes + reserved:
            raise NoRoom(
                f"the disk of {self._services.own.name} has {bytes_text(free)} free: {bytes_text(more_bytes)} more do "
                f"not fit ({bytes_text(reserved)} stay free, or are for files that are on their way)"
            )


def _lacking(coming: _Coming) -> int:
    """What of it the disk must still take."""
    return max(0, coming.new_bytes - coming.there())
