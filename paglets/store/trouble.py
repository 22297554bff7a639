"""What SQLite's errors mean for a host, and what its person can do: one table.

`kind_of` sorts an error; `told` puts it into words with the file and the next step.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from paglets.core.errors import PagletsError, StoreDamaged, StoreFull, StoreLocked, StoreMalformed, StorePassing


class Kind(Enum):
    """FULL and LOCKED pass by themselves; MALFORMED: the content is damaged; CLOSED: it may not be written;
    BROKEN: the disk itself failed; OTHER says nothing of the file."""

    FULL = "full"
    LOCKED = "locked"
    MALFORMED = "malformed"
    CLOSED = "closed"
    BROKEN = "broken"
    OTHER = "other"


_KINDS = {
    sqlite3.SQLITE_FULL: Kind.FULL,
    sqlite3.SQLITE_BUSY: Kind.LOCKED,
    sqlite3.SQLITE_CORRUPT: Kind.MALFORMED,
    sqlite3.SQLITE_NOTADB: Kind.MALFORMED,
    sqlite3.SQLITE_PERM: Kind.CLOSED,
    sqlite3.SQLITE_READONLY: Kind.CLOSED,
    sqlite3.SQLITE_CANTOPEN: Kind.CLOSED,
    sqlite3.SQLITE_IOERR: Kind.BROKEN,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """`cls`: the error of ours. `ends`: a change, or a whole host, must not go on as if nothing had been."""

    cls: type[PagletsError]
    advice: str
    ends: bool = False


MEANINGS = {
    Kind.FULL: Meaning(cls=StoreFull, advice="its disk is full: free some, and start again"),
    Kind.LOCKED: Meaning(
        cls=StoreLocked, advice="another program holds it: end that (a backup, an sqlite3 shell), and start again"
    ),
    Kind.MALFORMED: Meaning(cls=StoreMalformed, advice="its content is damaged", ends=True),
    Kind.CLOSED: Meaning(
        cls=StoreDamaged, advice="make it and its folder this user's and writable, and start again", ends=True
    ),
    Kind.BROKEN: Meaning(
        cls=StoreDamaged,
        advice="the disk or its file system failed: look at the system's log; when it is well again, start again",
        ends=True,
    ),
    Kind.OTHER: Meaning(cls=StoreDamaged, advice="nothing was moved; is it a database of paglets?"),
}


def kind_of(error: BaseException) -> Kind:
    """What an error says of the file. SQLite's extended codes count as the primary one that they belong to."""
    return _KINDS.get(getattr(error, "sqlite_errorcode", 0) & 0xFF, Kind.OTHER)


def is_of_store(error: BaseException) -> bool:
    """Whether it is trouble of the store's own, which says nothing of the row that was being worked on."""
    of_row = (sqlite3.IntegrityError, sqlite3.DataError)
    return isinstance(error, (sqlite3.Error, StorePassing)) and not isinstance(error, of_row)


def told(path: Path, error: BaseException, kind: Kind | None = None) -> PagletsError:
    """The error for people, of the class that MEANINGS names; `kind` where more is known than the error says."""
    meaning = MEANINGS[kind or kind_of(error)]
    return meaning.cls(f"the database {path} cannot be used: {error}; {meaning.advice}")
