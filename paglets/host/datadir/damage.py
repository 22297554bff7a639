"""Database damage: detect a missing or outdated database, and move a damaged one aside.

SQLite treats an empty or missing file as a new database. Therefore the file `store.json` beside the database records
that the database exists, and how many starts it has seen. A damaged database moves to `damaged/TIME/`, with the reason
in `why.txt`, and the host exits. The next start creates an empty database. Each start prints a reminder while the
folder exists. During the move its name is `damaged/TIME.part`; a later start finishes an interrupted move.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from paglets.codec.strict_json import dump_bytes, loads
from paglets.core.content import sync_folder, write_all
from paglets.core.errors import PagletsError, StoreMalformed, StoreUndecided
from paglets.core.files import private_folder
from paglets.core.record import from_json, to_json
from paglets.core.text import counted
from paglets.store.inspection import size_of

DATABASE = "paglets.db"
WAL = f"{DATABASE}-wal"
NOTE = "store.json"
FOLDER = "damaged"
WHY = "why.txt"
PART = ".part"

MOVED = (DATABASE, WAL, f"{DATABASE}-shm", "blobs", "work")
"""The names to move to `damaged/` first. Blobs and scratch directories move too, because a host with a new database
would remove them. `store.json` moves last, because it records that there was a database."""
ALL = (*MOVED, NOTE)

TIME_FORMAT = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreNote:
    """The content of `store.json`. `running` stays true after a crash.

    If the host warned the user about an outdated database, `accepted_boots` is the start count of that database, and
    the next start uses the database. 0 means that there was no warning.
    """

    store_id: str = ""
    boot_count: int = 0
    running: bool = False
    accepted_boots: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """An entry of `damaged/`. `at` is its time in UTC, as text. `moved` is True if the entry contains moved files."""

    path: Path
    at: str
    why: str
    moved: bool


def read_note(folder: Path) -> StoreNote | None:
    """Return the content of `store.json`. Return None if there is no such file, as in a new data directory.

    If the file is unreadable, return empty content.
    """
    try:
        return from_json(StoreNote, loads((folder / NOTE).read_bytes()))
    except FileNotFoundError:
        return None
    except (OSError, PagletsError):
        return StoreNote()


def write_note(folder: Path, note: StoreNote) -> None:
    """Replace `store.json` atomically and sync it to disk. Raises OSError."""
    draft = folder / f"{NOTE}.new"
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
        write_all(file.fileno(), dump_bytes(to_json(note)))
        os.fsync(file.fileno())
    os.replace(draft, folder / NOTE)
    sync_folder(folder)


def database_identity(folder: Path) -> tuple[int, int]:
    """Return device and inode of the database file. Raises OSError."""
    found = os.stat(folder / DATABASE)
    return found.st_dev, found.st_ino


def check_there(folder: Path) -> None:
    """Check that a known database still exists before SQLite opens it. Raises StoreMalformed if it is gone or empty."""
    database, wal = folder / DATABASE, folder / WAL
    if size_of(database):
        return
    if read_note(folder) is not None or size_of(wal):
        what = "is empty" if database.exists() else "is missing"
        raise StoreMalformed(f"the database {database} {what}, but this host had one")


def check_filled(folder: Path, note: StoreNote | None, store_id: str) -> None:
    """Check that an opened database is not a new one in place of the previous one. Raises StoreMalformed."""
    if note is not None and note.store_id and not store_id:
        raise StoreMalformed(f"the database {folder / DATABASE} lost its content, and {WAL} is missing")


def wal_is_missing(folder: Path) -> bool:
    """Return True if the previous run crashed and its WAL file, which holds the newest commits, is missing."""
    note = read_note(folder)
    return note is not None and note.running and not (folder / WAL).exists()


def is_outdated(note: StoreNote | None, store_id: str, boot_count: int) -> bool:
    """Return True if the database records fewer starts than `store.json`, so it lost commits or is an old copy."""
    return note is not None and note.store_id == store_id and note.boot_count > boot_count


def move_aside(folder: Path, why: str, now: datetime) -> StoreUndecided:
    """Move the damaged database and its files to `damaged/`. Return the error that the caller must raise."""
    try:
        place = _place_to_move(folder, why, now)
        why = _why(place) or why
        left = _move(folder, place)
        if not left:
            place = _finish(folder, place)
        moved = [each.name for each in sorted(place.iterdir()) if each.name != WHY]
    except OSError as error:
        return StoreUndecided(
            f"{why}; it could not be moved aside: {error}",
            hint=[
                "fix this error and start the host again",
                f"or move {', '.join(ALL)} out of {folder} yourself; the next start then creates an empty database",
            ],
        )
    text = f"{why}; moved to {place}: {', '.join(moved) or 'nothing'}"
    if left:
        return StoreUndecided(
            f"{text}; not moved: {', '.join(f'{name} ({error})' for name, error in left.items())}",
            hint=[f"move the content of {', '.join(left)} to {place} yourself, and start the host again"],
        )
    return StoreUndecided(
        text,
        hint=[
            f"restore a backup of the whole folder {folder}",
            "or start the host again: it starts empty, as a new host; its paglets, jobs and results are lost",
        ],
    )


def refuse_older(folder: Path, note: StoreNote, boot_count: int, now: datetime) -> StoreUndecided:
    """Record that the user was warned about an outdated database. Return the error that the caller must raise.

    The database is not moved, and the next start uses it.
    """
    why = (
        f"the database {folder / DATABASE} is outdated: it records {counted(boot_count, 'start')}, "
        f"and this host has had {note.boot_count}"
    )
    with suppress(OSError):
        write_note(folder, replace(note, running=False, accepted_boots=boot_count))
        _explain(folder, why, now)
    return StoreUndecided(
        why,
        hint=[
            f"{WAL} was removed, or an old copy was restored: put the newest files back",
            "or start the host again: it uses this database, and everything stored later is lost",
        ],
    )


def damages(folder: Path) -> tuple[Damage, ...]:
    """Return the entries of `damaged/`, the oldest first: moved databases and warnings. Raises OSError."""
    place = folder / FOLDER
    if not place.is_dir():
        return ()
    # Skip an empty folder, because the user has moved its files back.
    return tuple(_read(each) for each in sorted(place.iterdir()) if not each.is_dir() or any(each.iterdir()))


def reminder(damage: Damage) -> str:
    """Return the warning that each start prints while this entry of `damaged/` exists."""
    return f"database damage on {damage.at}: {damage.why}; see {damage.path}, and remove it when no longer needed"


def _move(folder: Path, place: Path) -> dict[str, OSError]:
    """Move each name of `MOVED` to `place`. Return the errors by name, such as that of a non-empty mount point."""
    left = {}
    for name in MOVED:
        try:
            if _is_to_move(folder / name):
                os.rename(folder / name, place / name)
        except OSError as error:
            left[name] = error
    return left


def _finish(folder: Path, place: Path) -> Path:
    """Finish the move: move `store.json` to `place`, then drop the suffix `.part` of `place`. Return its new path."""
    if os.path.lexists(folder / NOTE):
        os.rename(folder / NOTE, place / NOTE)
    sync_folder(place)
    whole = _free(place.with_name(place.name.removesuffix(PART)))
    os.rename(place, whole)
    for each in (whole.parent, folder):
        sync_folder(each)
    return whole


def _is_to_move(path: Path) -> bool:
    """Return True if the path exists. Return False for an empty mount point, which cannot be moved and has no files."""
    return os.path.lexists(path) and not (os.path.ismount(path) and not any(path.iterdir()))


def _place_to_move(folder: Path, why: str, now: datetime) -> Path:
    """Return the folder of an unfinished move, or a new folder.

    A new folder is needed if no move is unfinished, or if the move would replace a file in the old folder.
    """
    unfinished = sorted((folder / FOLDER).glob(f"*{PART}"))
    if unfinished and not any(_is_to_move(folder / name) and os.path.lexists(unfinished[-1] / name) for name in ALL):
        return unfinished[-1]
    return _explain(folder, why, now, PART)


def _explain(folder: Path, why: str, now: datetime, suffix: str = "") -> Path:
    """Create an entry of `damaged/` with the reason in `why.txt`. Return its path."""
    name = f"{now.astimezone(UTC).strftime(TIME_FORMAT)}{suffix}"
    place = _free(private_folder(folder / FOLDER) / name)
    place.mkdir(mode=0o700)
    with suppress(OSError):  # On a full disk, `why.txt` is lost, but the files can still be moved.
        (place / WHY).write_text(f"{why}\n")
    for each in (place, place.parent, folder):
        sync_folder(each)
    return place


def _free(first: Path) -> Path:
    place, number = first, 1
    while os.path.lexists(place):
        number += 1
        place = first.with_name(f"{first.stem}-{number}{first.suffix}")
    return place


def _read(place: Path) -> Damage:
    at = place.name
    with suppress(ValueError):
        when = datetime.strptime(place.name.removesuffix(PART).partition("-")[0], TIME_FORMAT)
        at = f"{when:%Y-%m-%d %H:%M:%S} UTC"
    why = _why(place) or "its reason is not recorded"
    moved = any(each.name != WHY for each in place.iterdir()) if place.is_dir() else False
    return Damage(path=place, at=at, why=why, moved=moved)


def _why(place: Path) -> str:
    with suppress(OSError):
        return (place / WHY).read_text(errors="replace").strip()
    return ""
