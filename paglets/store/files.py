"""Files that travel with paglets, and the sources that go once these have arrived."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass

from paglets.codec.strict_json import dumps
from paglets.core.refs import FileRef
from paglets.store.db import Tx


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSource:
    """The file from which the bytes of a registered one were read, as it was then."""

    path: str
    mtime_ns: int
    inode: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """A source to be removed if it is still the same."""

    number: int
    path: str
    size_bytes: int
    mtime_ns: int
    inode: int


def add(tx: Tx, agent_id: str, files: Iterable[FileRef]) -> None:
    """Files that came with a paglet, or were given to it when it was made."""
    tx.run_many(
        "INSERT OR REPLACE INTO files (agent_id, name, sha256, size_bytes, mode, attempt, registered)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            (agent_id, file.name, file.sha256, file.size_bytes, file.mode, file.attempt, int(file.registered))
            for file in files
        ),
    )


def register(tx: Tx, agent_id: str, file: FileRef, source: FileSource) -> None:
    """One of that name takes the place of an earlier one."""
    tx.run(
        "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 1)",
        agent_id,
        file.name,
        file.sha256,
        file.size_bytes,
        file.mode,
        file.attempt,
        source.path,
        source.mtime_ns,
        source.inode,
    )


def of(tx: Tx, agent_id: str) -> tuple[FileRef, ...]:
    rows = tx.all("SELECT * FROM files WHERE agent_id = ? ORDER BY name", agent_id)
    return tuple(_file(row) for row in rows)


def _file(row: sqlite3.Row) -> FileRef:
    return FileRef(
        name=row["name"],
        sha256=row["sha256"],
        size_bytes=row["size_bytes"],
        mode=row["mode"],
        attempt=row["attempt"],
        registered=bool(row["registered"]),
    )


def with_sources(tx: Tx, agent_id: str) -> list[tuple[FileRef, FileSource | None]]:
    """The files of a paglet, each with its source where it was registered on this host."""
    rows = tx.all("SELECT * FROM files WHERE agent_id = ? ORDER BY name", agent_id)
    return [(_file(row), _source(row)) for row in rows]


def _source(row: sqlite3.Row) -> FileSource | None:
    if row["source_path"] is None:
        return None
    return FileSource(path=row["source_path"], mtime_ns=row["source_mtime_ns"], inode=row["source_inode"])


def begin_attempt(tx: Tx, agent_id: str) -> None:
    """A further attempt begins without what earlier ones registered."""
    tx.run("DELETE FROM files WHERE agent_id = ? AND attempt > 0", agent_id)


def checkpoint(tx: Tx, agent_id: str) -> None:
    """A further attempt begins with what is registered now."""
    tx.run("UPDATE files SET attempt = 0 WHERE agent_id = ?", agent_id)


def release_sources(tx: Tx, agent_id: str) -> None:
    """A target has the paglet: its files are no longer of this host, and sources that were to move may go."""
    moved = tx.run(
        "INSERT INTO removals (path, size_bytes, mtime_ns, inode)"
        " SELECT source_path, size_bytes, source_mtime_ns, source_inode FROM files"
        " WHERE agent_id = ? AND mode = 'move' AND source_path IS NOT NULL ORDER BY name",
        agent_id,
    )
    if moved:
        tx.wake("garbage")
    remove(tx, agent_id)


def remove(tx: Tx, agent_id: str) -> None:
    tx.run("DELETE FROM files WHERE agent_id = ?", agent_id)


def removals(tx: Tx, most: int, skip: Iterable[int] = ()) -> list[Removal]:
    """The oldest, without those of the numbers in `skip`."""
    rows = tx.all(
        "SELECT * FROM removals WHERE id NOT IN (SELECT value FROM json_each(?)) ORDER BY id LIMIT ?",
        dumps(list(skip)),
        most,
    )
    return [
        Removal(
            number=row["id"],
            path=row["path"],
            size_bytes=row["size_bytes"],
            mtime_ns=row["mtime_ns"],
            inode=row["inode"],
        )
        for row in rows
    ]


def delete_removals(tx: Tx, numbers: Iterable[int]) -> None:
    tx.run_many("DELETE FROM removals WHERE id = ?", ((number,) for number in numbers))
