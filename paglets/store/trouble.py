"""What SQLite's errors mean for a host, and what its person can do: one table.

`kind_of` sorts an error; `told` puts it into words with the file and the next step.
"""

from __future__ import annotations

import sqlite3
from enum import Enum
from pathlib import Path

from paglets.core.errors import PagletsError, StoreDamaged, StoreMalformed


class StoreFull(PagletsError):
    """The disk is full: nothing of this change was stored, and nothing else is harmed."""

    code, status = "disk_full", 507


class StoreLocked(StoreFull):
    """Another program holds the database: nothing of this change was stored. It goes on when that lets go."""

    code, status = "store_locked", 503


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

_ADVICE = {
    Kind.FULL: "its disk is full: free some, and start again",
    Kind.LOCKED: "another program holds it: end that (a backup, an sqlite3 shell), and start again",
    Kind.MALFORMED: "its content is damaged",
    Kind.CLOSED: "make it and its folder this user's and writable, and start again",
    Kind.BROKEN: "the disk or its file system failed: look at the system's log; when it is well again, start again",
    Kind.OTHER: "nothing was moved; is it a database of paglets?",
}


def kind_of(error: BaseException) -> Kind:
    """What an error says of the file. SQLite's extended codes count as the primary one that they belong to."""
    return _KINDS.get(getattr(error, "sqlite_errorcode", 0) & 0xFF, Kind.OTHER)


def told(path: Path, error: BaseException) -> PagletsError:
    """The error for people: StoreMalformed where the content is damaged, StoreFull, StoreLocked, else StoreDamaged."""
    kind = kind_of(error)
    kinds: dict[Kind, type[PagletsError]] = {
        Kind.MALFORMED: StoreMalformed,
        Kind.FULL: StoreFull,
        Kind.LOCKED: StoreLocked,
    }
    return kinds.get(kind, StoreDamaged)(f"the database {path} cannot be used: {error}; {_ADVICE[kind]}")
