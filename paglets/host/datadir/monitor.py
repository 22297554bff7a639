"""What a host stands on, looked at again and again: its data directory, the folders in it, its copy of the program.

Somebody may remove them under a running host. What holds nothing that is lost is made anew, and told; without its
database, or where another host has its folder by now, the host ends. What cannot be made anew is an obstacle
(`services.Disk`): nothing is started, so nothing fails.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from paglets.core.errors import PagletsError, StoreUndecided
from paglets.host.datadir.damage import DATABASE, database_identity
from paglets.slots.eligibility import Reason

CHECK_SECONDS = 1.0

LOOKS_UNTIL_GONE = 2
"""A directory that is replaced as a whole may be away for a moment."""

NEXT_OF_GONE = (
    "Lost to this host is what only it had. Next: put the folder back, or mount its disk, and start the host again; "
    "started without it, it begins anew, empty, and is a new host to the others"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """`mend` makes anew what is not there, and gives what to say of it, "" where all is there.

    Raises OSError, and StoreUndecided where the host must end.
    """

    what: str
    repair: Callable[[], str]


class DataDirectoryMonitor:
    """`look` is called each CHECK_SECONDS by one thread. `gone` gets the error that ends the host."""

    def __init__(
        self,
        folder: Path,
        repairs: tuple[Repair, ...],
        obstacle: Callable[[], Reason | None],
        tell: Callable[[str], None],
        gone: Callable[[PagletsError], None],
    ) -> None:
        self._folder = folder
        self._repairs = repairs
        self._obstacle = obstacle
        self._tell = tell
        self._gone = gone
        self._database = database_identity(folder)
        self._looks_without = 0
        self._ended = False
        self._told: dict[str, str] = {}

    def check(self) -> None:
        if self._ended:
            return
        why = self._why_gone()
        self._looks_without = self._looks_without + 1 if why else 0
        if self._looks_without >= LOOKS_UNTIL_GONE:
            self._end(StoreUndecided(f"{why} while this host ran. {NEXT_OF_GONE}"))
        if why:
            return
        try:
            for repair in self._repairs:
                self._repair(repair)
        except StoreUndecided as error:
            self._end(error)
            return
        obstacle = self._obstacle()
        self._say_once("obstacle", "" if obstacle is None else f"this host starts nothing: {obstacle.text}")

    def _end(self, error: StoreUndecided) -> None:
        self._ended = True
        self._gone(error)

    def _why_gone(self) -> str:
        """Of what cannot be looked at nothing is concluded."""
        try:
            now = database_identity(self._folder)
        except (FileNotFoundError, NotADirectoryError):
            place = self._folder / DATABASE if self._folder.is_dir() else self._folder
            return f"{place} was removed, or its disk unmounted,"
        except OSError:
            return ""
        return "" if now == self._database else f"another database was put in the place of {self._folder / DATABASE}"

    def _repair(self, repair: Repair) -> None:
        try:
            made = repair.repair()
        except OSError as error:
            self._say_once(repair.what, f"{repair.what} cannot be made anew: {error}")
            return
        self._told.pop(repair.what, None)
        if made:
            self._tell(made)

    def _say_once(self, subject: str, text: str) -> None:
        before = self._told.get(subject, "")
        if text != before:
            self._told[subject] = text
            self._tell(text or "this host starts processes again")
