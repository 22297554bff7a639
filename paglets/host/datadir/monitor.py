"""The data-directory monitor: check the data directory, its folders and the copy of the program at intervals.

A person or a program may remove them while the host runs. The monitor recreates a missing file or folder, and reports
this to the user. If the database is gone, or another host owns the directory, the host exits. While a folder is
missing, the host starts no processes (`Disk.blocked_reason`), so that no job fails.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from paglets.core.errors import PagletsError, StoreUndecided
from paglets.host.datadir.damage import DATABASE, database_identity
from paglets.slots.eligibility import Reason

CHECK_SECONDS = 1.0

CHECKS_UNTIL_GONE = 2
"""The number of checks in a row that must miss the database before the host exits.

One check is not enough, because a directory that someone replaces is missing for a moment.
"""

HINTS_OF_GONE = [
    "put the folder back, or mount its disk, and start the host again",
    "without the folder the host starts empty, as a new host; its paglets, jobs and results are lost",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """A check and repair of one thing, such as a folder or the URL, which `what` names in messages.

    `repair` returns a message if it changed something, else "". It raises OSError if it fails, and StoreUndecided if
    the host must exit.
    """

    what: str
    repair: Callable[[], str]


class DataDirectoryMonitor:
    """The monitor of one data directory. One thread calls `check` every CHECK_SECONDS.

    `report` receives messages for the user. `fatal` receives the error for which the host must exit.
    """

    def __init__(
        self,
        folder: Path,
        repairs: tuple[Repair, ...],
        blocked_reason: Callable[[], Reason | None],
        report: Callable[[str], None],
        fatal: Callable[[PagletsError], None],
    ) -> None:
        self._folder = folder
        self._repairs = repairs
        self._blocked_reason = blocked_reason
        self._report = report
        self._fatal = fatal
        self._database = database_identity(folder)
        self._checks_without = 0
        self._ended = False
        self._reported: dict[str, str] = {}

    def check(self) -> None:
        """Recreate missing files and folders, and report if the host cannot start processes.

        Pass an error to `fatal` if the database is gone or another host owns the directory.
        """
        if self._ended:
            return
        why = self._why_gone()
        self._checks_without = self._checks_without + 1 if why else 0
        if self._checks_without >= CHECKS_UNTIL_GONE:
            self._end(StoreUndecided(f"{why} while this host ran", hint=HINTS_OF_GONE))
        if why:
            return
        try:
            for repair in self._repairs:
                self._repair(repair)
        except StoreUndecided as error:
            self._end(error)
            return
        reason = self._blocked_reason()
        self._report_once("blocked", "" if reason is None else f"this host starts no processes: {reason.text}")

    def _end(self, error: StoreUndecided) -> None:
        self._ended = True
        self._fatal(error)

    def _why_gone(self) -> str:
        """Return the reason why the database is gone, or "". If the folder cannot be inspected, return "" too."""
        try:
            now = database_identity(self._folder)
        except (FileNotFoundError, NotADirectoryError):
            place = self._folder / DATABASE if self._folder.is_dir() else self._folder
            return f"{place} was removed or unmounted"
        except OSError:
            return ""
        return "" if now == self._database else f"another file replaced the database {self._folder / DATABASE}"

    def _repair(self, repair: Repair) -> None:
        try:
            made = repair.repair()
        except OSError as error:
            self._report_once(repair.what, f"{repair.what} cannot be recreated: {error}")
            return
        self._reported.pop(repair.what, None)
        if made:
            self._report(made)

    def _report_once(self, subject: str, text: str) -> None:
        before = self._reported.get(subject, "")
        if text != before:
            self._reported[subject] = text
            self._report(text or "this host starts processes again")
