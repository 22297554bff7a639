"""Damage of a host's database: how a missing or older one is told from none, and how a damaged one is moved aside.

SQLite takes an empty or missing file for a new database. So a note beside it, `store.json`, says that there is one, and
of how many starts it knew. What is damaged goes into `damaged/TIME/`, with the reason in `why.txt`, and the host ends.
Started again it begins anew, and says so at each start for as long as that folder is there.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from paglets.codec.text import dump_bytes, loads
from paglets.core.content import sync_folder, write_all
from paglets.core.errors import PagletsError, StoreDamaged, StoreMalformed
from paglets.core.record import from_json, to_json
from paglets.program import private_folder

DATABASE = "paglets.db"
WAL = f"{DATABASE}-wal"
NOTE = "store.json"
FOLDER = "damaged"
WHY = "why.txt"

MOVED = (DATABASE, WAL, f"{DATABASE}-shm", "blobs", "work", NOTE)
"""In this order: until the last one has gone, the next start knows that there was a database. Blobs and scratch
directories go along, as a new database names none of them and they would be removed."""

TIME_FORMAT = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What is known of the database beside it. `running`: a host has it, or was cut off. `accepted`: its person was
    told that it is of an earlier moment, and the next start goes on with it."""

    store_id: str = ""
    boot_count: int = 0
    running: bool = False
    accepted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """What a folder in `damaged/` tells. `at`: when, in words, UTC."""

    path: Path
    at: str
    why: str


def read_note(folder: Path) -> Note | None:
    """None where there was never a database. A note that cannot be read says only that there was one."""
    try:
        return from_json(Note, loads((folder / NOTE).read_bytes()))
    except FileNotFoundError:
        return None
    except (OSError, PagletsError):
        return Note()


def write_note(folder: Path, note: Note) -> None:
    """In one step, and on the disk when this returns. Raises OSError."""
    draft = folder / f"{NOTE}.new"
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
        write_all(file.fileno(), dump_bytes(to_json(note)))
        os.fsync(file.fileno())
    os.replace(draft, folder / NOTE)
    sync_folder(folder)


def check_there(folder: Path) -> None:
    """Before SQLite sees it: raises StoreMalformed where a database that was there is gone or empty."""
    database, wal = folder / DATABASE, folder / WAL
    if _size(database):
        return
    if read_note(folder) is not None or _size(wal):
        what = "is empty" if database.exists() else "is not there"
        raise StoreMalformed(f"the database {database} {what}, and there was one")


def check_filled(folder: Path, note: Note | None, store_id: str) -> None:
    """Of one that could be opened: raises StoreMalformed where it is new, in the place of the one that was there."""
    if note is not None and note.store_id and not store_id:
        raise StoreMalformed(
            f"the database {folder / DATABASE} has nothing in it, and there was one; {WAL} was removed"
        )


def wal_is_missing(folder: Path) -> bool:
    """Whether the last start was cut off, and the file with what was stored last is not there as it should be."""
    note = read_note(folder)
    return note is not None and note.running and not (folder / WAL).exists()


def is_of_earlier_moment(note: Note | None, store_id: str, boot_count: int) -> bool:
    """Whether the database knows of fewer starts than there were: its last changes were lost, or it is an old copy."""
    return note is not None and note.store_id == store_id and note.boot_count > boot_count


def move_aside(folder: Path, why: str, now: datetime) -> StoreDamaged:
    """Move the damaged database with what belongs to it; gives the error that ends this start, for the person."""
    try:
        place, moved = _move(folder, why, now)
    except OSError as error:
        return StoreDamaged(
            f"{why}. It could not be moved aside: {error}. The host did not start; next: move {', '.join(MOVED)} "
            f"out of {folder} yourself, then start it again: it begins anew"
        )
    return StoreDamaged(
        f"{why}. The host did not start. Moved to {place}: {', '.join(moved)}. Lost to this host are the paglets, "
        "jobs, results and messages that it held; what other hosts hold is not touched. Next: put a backup of the "
        "whole folder in its place, or start the host again: it begins anew, empty, and is a new host to the others"
    )


def say_older(folder: Path, note: Note, boot_count: int, now: datetime) -> StoreDamaged:
    """The same for a database that is whole but of an earlier moment: it stays, and the next start goes on with it."""
    why = (
        f"the database {folder / DATABASE} is of an earlier moment: it knows of {boot_count} starts of this host, and "
        f"there were {note.boot_count}; {WAL} was removed, or an old copy was put there"
    )
    with suppress(OSError):
        _explain(folder, why, now)
        write_note(folder, Note(store_id=note.store_id, boot_count=note.boot_count, accepted=True))
    return StoreDamaged(
        f"{why}. What was stored since is lost to this host. It did not start, and nothing was moved. Next: put the "
        "right files there, or start it again: it goes on with what there is"
    )


def damages(folder: Path) -> tuple[Damage, ...]:
    """What was moved aside in this data directory, or told, and is still there; the oldest first. Raises OSError."""
    place = folder / FOLDER
    return tuple(_read(each) for each in sorted(place.iterdir())) if place.is_dir() else ()


def told(damage: Damage) -> str:
    """One line for each start, for as long as the folder is there."""
    return f"damage of {damage.at}: {damage.why}. See {damage.path}; remove that folder when you need it no more"


def _move(folder: Path, why: str, now: datetime) -> tuple[Path, list[str]]:
    place = _explain(folder, why, now)
    moved = []
    for name in MOVED:
        if os.path.lexists(folder / name):
            os.rename(folder / name, place / name)
            moved.append(name)
    sync_folder(place)
    sync_folder(folder)
    return place, moved


def _explain(folder: Path, why: str, now: datetime) -> Path:
    """A new folder below `damaged/` that says why."""
    first = private_folder(folder / FOLDER) / now.astimezone(UTC).strftime(TIME_FORMAT)
    place, number = first, 1
    while place.exists():
        number += 1
        place = first.with_name(f"{first.name}-{number}")
    place.mkdir(mode=0o700)
    (place / WHY).write_text(f"{why}\n")
    return place


def _read(place: Path) -> Damage:
    at, why = place.name, "no reason is written down there"
    with suppress(ValueError):
        at = f"{datetime.strptime(place.name.partition('-')[0], TIME_FORMAT):%Y-%m-%d %H:%M:%S} UTC"
    with suppress(OSError):
        why = (place / WHY).read_text(errors="replace").strip()
    return Damage(path=place, at=at, why=why)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
