"""What SQLite's errors mean for a host, and what its person can do: one table.

`kind_of` sorts an error; `told` puts it into words with the file and the next step.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from paglets.core.errors import PagletsError, StoreDamaged, StoreFull, StoreLocked, StoreMalformed, StoreTransient


class ErrorKind(Enum):
    """FULL and LOCKED pass by themselves; MALFORMED: the content is damaged; NOT_WRITABLE: it may not be written;
    IO_ERROR: the disk itself failed; OTHER says nothing of the file."""

    FULL = "full"
    LOCKED = "locked"
    MALFORMED = "malformed"
    NOT_WRITABLE = "not_writable"
    IO_ERROR = "io_error"
    OTHER = "other"


_KINDS = {
    sqlite3.SQLITE_FULL: ErrorKind.FULL,
    sqlite3.SQLITE_BUSY: ErrorKind.LOCKED,
    sqlite3.SQLITE_CORRUPT: ErrorKind.MALFORMED,
    sqlite3.SQLITE_NOTADB: ErrorKind.MALFORMED,
    sqlite3.SQLITE_PERM: ErrorKind.NOT_WRITABLE,
    sqlite3.SQLITE_READONLY: ErrorKind.NOT_WRITABLE,
    sqlite3.SQLITE_CANTOPEN: ErrorKind.NOT_WRITABLE,
    sqlite3.SQLITE_IOERR: ErrorKind.IO_ERROR,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorRule:
    """`cls`: the error of ours. `ends`: a change, or a whole host, must not go on as if nothing had been."""

    cls: type[PagletsError]
    advice: str
    ends: bool = False


ERROR_RULES = {
    ErrorKind.FULL: ErrorRule(cls=StoreFull, advice="its disk is full: free some, and start again"),
    ErrorKind.LOCKED: ErrorRule(
        cls=StoreLocked, advice="another program holds it: end that (a backup, an sqlite3 shell), and start again"
    ),
    ErrorKind.MALFORMED: ErrorRule(cls=StoreMalformed, advice="its content is damaged", ends=True),
    ErrorKind.NOT_WRITABLE: ErrorRule(
        cls=StoreDamaged, advice="make it and its folder this user's and writable, and start again", ends=True
    ),
    ErrorKind.IO_ERROR: ErrorRule(
        cls=StoreDamaged,
        advice="the disk or its file system failed: look at the system's log; when it is well again, start again",
        ends=True,
    ),
    ErrorKind.OTHER: ErrorRule(cls=StoreDamaged, advice="nothing was moved; is it a database of paglets?"),
}


def kind_of(error: BaseException) -> ErrorKind:
    """What an error says of the file. SQLite's extended codes count as the primary one that they belong to."""
    return _KINDS.get(getattr(error, "sqlite_errorcode", 0) & 0xFF, ErrorKind.OTHER)


def is_store_error(error: BaseException) -> bool:
    """Whether it is trouble of the store's own, which says nothing of the row that was being worked on."""
    of_row = (sqlite3.IntegrityError, sqlite3.DataError)
    return isinstance(error, (sqlite3.Error, StoreTransient)) and not isinstance(error, of_row)


def to_paglets_error(path: Path, error: BaseException, kind: ErrorKind | None = None) -> PagletsError:
    """The error for people, of the class that ERROR_RULES names; `kind` where more is known than the error says."""
    meaning = ERROR_RULES[kind or kind_of(error)]
    return meaning.cls(f"the database {path} cannot be used: {error}; {meaning.advice}")
