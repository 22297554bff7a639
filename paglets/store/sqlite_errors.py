"""Classify the errors of SQLite by their effect on a host, and convert them to errors with advice for the user."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from paglets.core.errors import PagletsError, StoreDamaged, StoreFull, StoreLocked, StoreMalformed, StoreTransient


class ErrorKind(Enum):
    """A kind of SQLite error.

    FULL and LOCKED are transient. MALFORMED means that the content is damaged, NOT_WRITABLE that the file cannot be
    opened or written, and IO_ERROR that the disk failed. OTHER errors say nothing about the file.
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
    """The handling of one kind of SQLite error. `cls` is the class of the error to raise.

    If `ends` is True, the whole transaction fails and the host stops.
    """

    cls: type[PagletsError]
    advice: str
    ends: bool = False


ERROR_RULES = {
    ErrorKind.FULL: ErrorRule(cls=StoreFull, advice="the disk is full: free some space and start the host again"),
    ErrorKind.LOCKED: ErrorRule(
        cls=StoreLocked,
        advice="another program has locked it (a backup, an sqlite3 shell): stop that and start the host again",
    ),
    ErrorKind.MALFORMED: ErrorRule(cls=StoreMalformed, advice="the content of the file is damaged", ends=True),
    ErrorKind.NOT_WRITABLE: ErrorRule(
        cls=StoreDamaged, advice="make the file and its folder writable for you and start the host again", ends=True
    ),
    ErrorKind.IO_ERROR: ErrorRule(
        cls=StoreDamaged,
        advice="the disk or its file system failed: see the system's log, repair them and start the host again",
        ends=True,
    ),
    ErrorKind.OTHER: ErrorRule(cls=StoreDamaged, advice="nothing was changed; is the file a database of paglets?"),
}


def kind_of(error: BaseException) -> ErrorKind:
    """Return the kind of an error. An extended error code of SQLite counts as its primary code."""
    return _KINDS.get(getattr(error, "sqlite_errorcode", 0) & 0xFF, ErrorKind.OTHER)


def is_store_error(error: BaseException) -> bool:
    """Return True if the store itself failed. False: the row that the caller processed may have caused the error."""
    of_row = (sqlite3.IntegrityError, sqlite3.DataError)
    return isinstance(error, (sqlite3.Error, StoreTransient)) and not isinstance(error, of_row)


def to_paglets_error(path: Path, error: BaseException, kind: ErrorKind | None = None) -> PagletsError:
    """Return an error with advice for users. `kind`, by default that of `error`, selects the rule in ERROR_RULES."""
    meaning = ERROR_RULES[kind or kind_of(error)]
    return meaning.cls(f"the database {path} cannot be used: {error}; {meaning.advice}")
