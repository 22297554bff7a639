"""Files that move with paglets, and the originals of registered files, which may be removed after the move."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass

from paglets.codec.strict_json import dumps
from paglets.core.refs import FileRef
from paglets.store.db import Tx


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredSource:
    """The original of a registered file, with its mtime and inode at the time when the content was captured."""

    path: str
    mtime_ns: int
    inode: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """A scheduled removal of the original of a moved file. An original that has changed is not removed."""

    number: int
    path: str
    size_bytes: int
    mtime_ns: int
    inode: int


def add(tx: Tx, agent_id: str, files: Iterable[FileRef]) -> None:
    """Add files that arrived with a paglet, or inputs that it got at its creation."""
    tx.run_many(
        "INSERT OR REPLACE INTO files (agent_id, name, sha256, size_bytes, mode, attempt, registered)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            (agent_id, file.name, file.sha256, file.size_bytes, file.mode, file.attempt, int(file.registered))
            for file in files
        ),
    )


def register(tx: Tx, agent_id: str, file: FileRef, source: RegisteredSource) -> None:
    """Register a file of a paglet. It replaces an earlier file with the same name."""
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


def with_sources(tx: Tx, agent_id: str) -> list[tuple[FileRef, RegisteredSource | None]]:
    """Return the files of a paglet, each with its original, or with None if it was not registered on this host."""
    rows = tx.all("SELECT * FROM files WHERE agent_id = ? ORDER BY name", agent_id)
    return [(_file(row), _source(row)) for row in rows]


def _source(row: sqlite3.Row) -> RegisteredSource | None:
    if row["source_path"] is None:
        return None
    return RegisteredSource(path=row["source_path"], mtime_ns=row["source_mtime_ns"], inode=row["source_inode"])


def begin_attempt(tx: Tx, agent_id: str) -> None:
    """Delete the files that earlier attempts registered after the last checkpoint, before the next attempt."""
    tx.run("DELETE FROM files WHERE agent_id = ? AND attempt > 0", agent_id)


def checkpoint(tx: Tx, agent_id: str) -> None:
    """Mark the files registered so far as part of the checkpoint, so that later attempts do not delete them."""
    tx.run("UPDATE files SET attempt = 0 WHERE agent_id = ?", agent_id)


def release_sources(tx: Tx, agent_id: str) -> None:
    """Delete the file rows of a paglet that has left. Schedule the removal of the originals with the mode "move"."""
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
    """Return the oldest scheduled removals, except those whose numbers are in `skip`."""
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
