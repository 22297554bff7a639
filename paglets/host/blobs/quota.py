"""Reservations of disk space, each within the size limit of a file, the quota of the host and its free disk space.

A transfer in progress counts as if it were complete.
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
"""Bytes of the disk kept free for the database and the logs."""

RESERVED_SECONDS = 600.0
"""Seconds for which a transfer keeps its reservation after its last piece. Afterwards, only the received bytes count.
The time is longer than the pauses between the tries of a sender."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reservation:
    """A file that is being received or written.

    `there` returns the number of its bytes on the disk. `new_bytes` is the number of bytes that the file adds to the
    disk, 0 if it is only renamed. `until` is monotonic. `token` is that of the run that writes the file, or "" for a
    transfer.
    """

    size_bytes: int
    new_bytes: int
    there: Callable[[], int]
    until: float
    token: str = ""


class QuotaReservations:
    """Reservations of disk space by name: the hash of a blob, or a staged file.

    The methods may be called from any thread.
    """

    def __init__(self, services: HostServices) -> None:
        self._services = services
        self._lock = Mutex()
        self._coming: dict[str, _Reservation] = {}

    def reserve(
        self, name: str, size_bytes: int, there: Callable[[], int], token: str = "", *, on_disk: bool = False
    ) -> None:
        """Reserve disk space until the reservation is ended or RESERVED_SECONDS pass. A repeated call extends it.

        `there` and `token` are as in `_Reservation`. `on_disk` means that the file is on the disk already and is only
        renamed. Raises NoRoom or Invalid.
        """
        if size_bytes < 0:
            raise Invalid(f"the size of {name} is {size_bytes} bytes: it must be 0 or more")
        now = self._services.clock.monotonic()
        until, new_bytes = now + RESERVED_SECONDS, 0 if on_disk else size_bytes
        coming = _Reservation(size_bytes=size_bytes, new_bytes=new_bytes, there=there, until=until, token=token)
        with self._lock:
            known = self._coming.get(name)
            is_same = known is not None and (known.size_bytes, known.new_bytes) == (size_bytes, new_bytes)
            if known is None or known.until <= now or not is_same:
                self._check_limits(name, size_bytes, now)
                self._check_disk(name, coming, now)
            self._coming[name] = coming

    def check(self, name: str, size_bytes: int) -> None:
        """Check a file that is already on the disk against the size limit and the quota. Raises NoRoom."""
        with self._lock:
            self._check_limits(name, size_bytes, self._services.clock.monotonic())

    def give_up(self, name: str) -> None:
        """End the reservation of a failed transfer, if it has one. From now on, only its bytes on the disk count."""
        with self._lock:
            if name in self._coming:
                self._give_up(name)

    def run_ended(self, token: str) -> None:
        """End all reservations of the run `token`."""
        with self._lock:
            for name in [name for name, each in self._coming.items() if each.token == token]:
                self._give_up(name)

    def _give_up(self, name: str) -> None:
        self._coming[name] = replace(self._coming[name], until=self._services.clock.monotonic())

    @contextmanager
    def settled(self, name: str) -> Iterator[None]:
        """Lock all reservations while the file becomes a blob, then end its own, so that its bytes count only once."""
        with self._lock:
            yield
            self._coming.pop(name, None)

    def _others(self, name: str, now: float) -> list[_Reservation]:
        """Return all reservations but that of `name`. Remove expired reservations that left no bytes on the disk."""
        gone = [key for key, each in self._coming.items() if each.until <= now and not each.there()]
        for key in gone:
            del self._coming[key]
        return [each for key, each in self._coming.items() if key != name]

    def _check_limits(self, name: str, size_bytes: int, now: float) -> None:
        own, settings = self._services.own.name, self._services.settings
        most, quota = settings.artifact_max_bytes, settings.artifact_quota_bytes
        if most and size_bytes > most:
            raise NoRoom(
                f"{own} accepts no file over {bytes_text(most)} (artifact_max_size); "
                f"this one has {bytes_text(size_bytes)}",
                never=True,
            )
        if quota and size_bytes > quota:
            raise NoRoom(
                f"{own} keeps at most {bytes_text(quota)} of files (artifact_storage_quota); "
                f"this one has {bytes_text(size_bytes)}",
                never=True,
            )
        if quota:
            used = self._services.store.read(blobs.total_bytes)
            used += sum(each.size_bytes if each.until > now else each.there() for each in self._others(name, now))
            if used + size_bytes > quota:
                raise NoRoom(
                    f"{bytes_text(size_bytes)} do not fit on {own}: "
                    f"{bytes_text(used)} of {bytes_text(quota)} are used (artifact_storage_quota)",
                    hint="delete artifacts, or raise the quota",
                )

    def _check_disk(self, name: str, coming: _Reservation, now: float) -> None:
        more_bytes = _lacking(coming)
        others = [each for each in self._others(name, now) if each.until > now]
        reserved = FREE_BYTES + sum(map(_lacking, others))
        if more_bytes and (free := self._services.blobs.free()) < more_bytes + reserved:
            raise NoRoom(
                f"the disk of {self._services.own.name} has {bytes_text(free)} free: {bytes_text(more_bytes)} more do "
                f"not fit ({bytes_text(reserved)} are reserved)"
            )


def _lacking(coming: _Reservation) -> int:
    """Return the number of bytes that the file will still add to the disk."""
    return max(0, coming.new_bytes - coming.there())
