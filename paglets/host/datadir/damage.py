"""Damage of a host's database: how a missing or older one is told from none, and how a damaged one is moved aside.

SQLite takes an empty or missing file for a new database. So a note beside it, `store.json`, says that there is one, and
of how many starts it knew. What is damaged goes into `damaged/TIME/`, with the reason in `why.txt`, and the host ends.
Started again it begins anew, and says so at each start for as long as that folder is there. Until all has been moved
the folder is `damaged/TIME.part`, and later starts go on with it.
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
from paglets.store.inspection import size_of

DATABASE = "paglets.db"
WAL = f"{DATABASE}-wal"
NOTE = "store.json"
FOLDER = "damaged"
WHY = "why.txt"
PART = ".part"

MOVED = (DATABASE, WAL, f"{DATABASE}-shm", "blobs", "work")
"""Blobs and scratch directories go along, as a new database names none of them and they would be removed. The note is
the last to go: until then the next start knows that there was a database."""
ALL = (*MOVED, NOTE)

TIME_FORMAT = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreNote:
    """What is known of the database beside it. `running`: a host has it, or was cut off. `accepted_boots`: its person
    was told that it is of an earlier moment, that of so many starts, and the next start goes on with it; 0: was not."""

    store_id: str = ""
    boot_count: int = 0
    running: bool = False
    accepted_boots: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """What a folder in `damaged/` tells. `at`: when, in words, UTC. `moved`: whether anything was moved there."""

    path: Path
    at: str
    why: str
    moved: bool


def read_note(folder: Path) -> StoreNote | None:
    """None where there was never a database. A note that cannot be read says only that there was one."""
    try:
        return from_json(StoreNote, loads((folder / NOTE).read_bytes()))
    except FileNotFoundError:
        return None
    except (OSError, PagletsError):
        return StoreNote()


def write_note(folder: Path, note: StoreNote) -> None:
    """In one step, and on the disk when this returns. Raises OSError."""
    draft = folder / f"{NOTE}.new"
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
        write_all(file.fileno(), dump_bytes(to_json(note)))
        os.fsync(file.fileno())
    os.replace(draft, folder / NOTE)
    sync_folder(folder)


def database_identity(folder: Path) -> tuple[int, int]:
    """Which file its database is. Raises OSError."""
    found = os.stat(folder / DATABASE)
    return found.st_dev, found.st_ino


def check_there(folder: Path) -> None:
    """Before SQLite sees it: raises StoreMalformed where a database that was there is gone or empty."""
    database, wal = folder / DATABASE, folder / WAL
    if size_of(database):
        return
    if read_note(folder) is not None or size_of(wal):
        what = "is empty" if database.exists() else "is not there"
        raise StoreMalformed(f"the database {database} {what}, and there was one")


def check_filled(folder: Path, note: StoreNote | None, store_id: str) -> None:
    """Of one that could be opened: raises StoreMalformed where it is new, in the place of the one that was there."""
    if note is not None and note.store_id and not store_id:
        raise StoreMalformed(
            f"the database {folder / DATABASE} has nothing in it, and there was one; {WAL} was removed"
        )


def wal_is_missing(folder: Path) -> bool:
    """Whether the last start was cut off, and the file with what was stored last is not there as it should be."""
    note = read_note(folder)
    return note is not None and note.running and not (folder / WAL).exists()


def is_of_earlier_moment(note: StoreNote | None, store_id: str, boot_count: int) -> bool:
    """Whether the database knows of fewer starts than there were: its last changes were lost, or it is an old copy."""
    return note is not None and note.store_id == store_id and note.boot_count > boot_count


def move_aside(folder: Path, why: str, now: datetime) -> StoreUndecided:
    """Move the damaged database with what belongs to it; gives the error that ends this start, for the person."""
    try:
        place = _place_to_move(folder, why, now)
        why = _why(place) or why
        left = _move(folder, place)
        if not left:
            place = _finish(folder, place)
        moved = [each.name for each in sorted(place.iterdir()) if each.name != WHY]
    except OSError as error:
        return StoreUndecided(
            f"{why}. It could not be moved aside: {error}. The host did not start; next: mend that and start again, or "
            f"move {', '.join(ALL)} out of {folder} yourself; the start after that begins anew"
        )
    said = f"{why}. The host did not start. Moved to {place}: {', '.join(moved) or 'nothing'}"
    if left:
        return StoreUndecided(
            f"{said}. Not moved: {', '.join(f'{name} ({error})' for name, error in left.items())}. Next: move what is "
            f"in there to {place} yourself, and start the host again"
        )
    return StoreUndecided(
        f"{said}. Lost to this host are the paglets, jobs, results and messages that it held; what other hosts hold is "
        "not touched. Next: put a backup of the whole folder in its place, or start the host again: it begins anew, "
        "empty, and is a new host to the others"
    )


def refuse_older(folder: Path, note: StoreNote, boot_count: int, now: datetime) -> StoreUndecided:
    """The same for a database that is whole but of an earlier moment: it stays, and the next start goes on with it."""
    why = (
        f"the database {folder / DATABASE} is of an earlier moment: it knows of {boot_count} starts of this host, and "
        f"there were {note.boot_count}; {WAL} was removed, or an old copy was put there"
    )
    with suppress(OSError):
        write_note(folder, replace(note, running=False, accepted_boots=boot_count))
        _explain(folder, why, now)
    return StoreUndecided(
        f"{why}. What was stored since is lost to this host. It did not start, and nothing was moved. Next: put the "
        "right files there, or start it again: it goes on with what there is"
    )


def damages(folder: Path) -> tuple[Damage, ...]:
    """What was moved aside in this data directory, or told, and is still there; the oldest first. Raises OSError."""
    place = folder / FOLDER
    if not place.is_dir():
        return ()
    # An empty folder is left when its person has moved everything back.
    return tuple(_read(each) for each in sorted(place.iterdir()) if not each.is_dir() or any(each.iterdir()))


def reminder(damage: Damage) -> str:
    """One line for each start, for as long as the folder is there."""
    return f"damage of {damage.at}: {damage.why}. See {damage.path}; remove that folder when you need it no more"


def _move(folder: Path, place: Path) -> dict[str, OSError]:
    """Move all that can be moved; gives what could not be, as it is the root of a file system, and is not empty."""
    left = {}
    for name in MOVED:
        try:
            if _is_to_move(folder / name):
                os.rename(folder / name, place / name)
        except OSError as error:
            left[name] = error
    return left


def _finish(folder: Path, place: Path) -> Path:
    """The note goes last, and with it what says that the move is not finished. Gives the folder's name from now on."""
    if os.path.lexists(folder / NOTE):
        os.rename(folder / NOTE, place / NOTE)
    sync_folder(place)
    whole = _free(place.with_name(place.name.removesuffix(PART)))
    os.rename(place, whole)
    for each in (whole.parent, folder):
        sync_folder(each)
    return whole


def _is_to_move(path: Path) -> bool:
    """The root of a file system stays; it counts as moved when its person has emptied it."""
    return os.path.lexists(path) and not (os.path.ismount(path) and not any(path.iterdir()))


def _place_to_move(folder: Path, why: str, now: datetime) -> Path:
    """The folder of a move that an earlier start did not finish, else a new one: nothing there is ever replaced."""
    begun = sorted((folder / FOLDER).glob(f"*{PART}"))
    if begun and not any(_is_to_move(folder / name) and os.path.lexists(begun[-1] / name) for name in ALL):
        return begun[-1]
    return _explain(folder, why, now, PART)


def _explain(folder: Path, why: str, now: datetime, suffix: str = "") -> Path:
    """A new folder below `damaged/` that says why."""
    name = f"{now.astimezone(UTC).strftime(TIME_FORMAT)}{suffix}"
    place = _free(private_folder(folder / FOLDER) / name)
    place.mkdir(mode=0o700)
    with suppress(OSError):  # Where the disk is full a rename has room all the same.
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
    why = _why(place) or "no reason is written down there"
    moved = any(each.name != WHY for each in place.iterdir()) if place.is_dir() else False
    return Damage(path=place, at=at, why=why, moved=moved)


def _why(place: Path) -> str:
    with suppress(OSError):
        return (place / WHY).read_text(errors="replace").strip()
    return ""
