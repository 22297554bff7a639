"""The map of SQLite's errors: their effect on a host, and advice for the user.

`kind_of` classifies an error. `to_paglets_error` converts it, with the file and the next step.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from paglets.core.errors import PagletsError, StoreDamaged, StoreFull, StoreLocked, StoreMalformed, StoreTransient


class ErrorKind(Enum):
    """A class of SQLite errors.

    FULL and LOCKED are transient. MALFORMED: the content is damaged. NOT_WRITABLE: the file must not be written.
    IO_ERROR: the disk failed. OTHER: the error says nothing about the file.
    """

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
    """The handling of one kind of SQLite error.

    `cls`: the error to raise. `ends`: the whole transaction fails, and the host stops.
    """

    cls: type[PagletsError]
    advice: str
    ends: bool = False


ERROR_RULES = {
    ErrorKind.FULL: ErrorRule(cls=StoreFull, advice="its disk is full: free some space and start the host again"),
    ErrorKind.LOCKED: ErrorRule(
        cls=StoreLocked,
        advice="another program holds it (a backup, an sqlite3 shell): stop that and start the host again",
    ),
    ErrorKind.MALFORMED: ErrorRule(cls=StoreMalformed, advice="its content is damaged", ends=True),
    ErrorKind.NOT_WRITABLE: ErrorRule(
        cls=StoreDamaged, advice="make it and its folder writable for this user and start the host again", ends=True
    ),
    ErrorKind.IO_ERROR: ErrorRule(
        cls=StoreDamaged,
        advice="the disk or its file system failed: see the system's log, repair it and start the host again",
        ends=True,
    ),
    ErrorKind.OTHER: ErrorRule(cls=StoreDamaged, advice="nothing was changed; is it a database of paglets?"),
}


def kind_of(error: BaseException) -> ErrorKind:
    """Return the class of an error. Extended codes of SQLite count as their primary code."""
    return _KINDS.get(getattr(error, "sqlite_errorcode", 0) & 0xFF, ErrorKind.OTHER)


def is_store_error(error: BaseException) -> bool:
    """Return True if the store itself failed, so that the error says nothing about the processed row."""
    of_row = (sqlite3.IntegrityError, sqlite3.DataError)
    return isinstance(error, (sqlite3.Error, StoreTransient)) and not isinstance(error, of_row)


def to_paglets_error(path: Path, error: BaseException, kind: ErrorKind | None = None) -> PagletsError:
    """Return the error for users, of the class in ERROR_RULES. `kind` overrides the class of the error."""
    meaning = ERROR_RULES[kind or kind_of(error)]
    return meaning.cls(f"the database {path} cannot be used: {error}; {meaning.advice}")
