"""The last store of each host name on this machine, kept in a small file beside the run file.

If the disk of a data directory is not mounted, the empty mount point looks like the directory of a new host. This file
is outside the data directory, so that the host can detect the difference.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from paglets.codec.strict_json import dump_bytes, loads
from paglets.core.errors import PagletsError
from paglets.core.files import private_folder, write_private
from paglets.core.record import from_json, to_json
from paglets.host.datadir.data_directory import DataDirectory


@dataclass(frozen=True, slots=True, kw_only=True)
class LastStore:
    """The store id and the data directory of the last start of a host."""

    store_id: str
    folder: str


def warning_of(home: Path, name: str, folder: DataDirectory) -> str:
    """Return a warning if this host starts empty, but a host of this name had a store on this machine, else ""."""
    known = _read(_path(home, name))
    if folder.boot_count > 1 or folder.damaged_at or known is None or known.store_id == folder.store_id:
        return ""
    return (
        f"host {name} STARTS EMPTY, as a new host: {folder.path} has no data\n"
        f"hint: at its last start it had store {known.store_id} in {known.folder}\n"
        "hint: if that disk is not mounted, or this is the wrong folder, stop this host and start it with the right one"
    )


def remember(home: Path, name: str, folder: DataDirectory) -> None:
    """Store the store id and the data directory of this start. Raises OSError."""
    path = _path(home, name)
    known = LastStore(store_id=folder.store_id, folder=str(folder.path))
    if _read(path) != known:
        private_folder(path.parent)
        write_private(path, dump_bytes(to_json(known)))


def _path(home: Path, name: str) -> Path:
    return home / "run" / f"{name}.store"


def _read(path: Path) -> LastStore | None:
    with suppress(OSError, PagletsError):
        return from_json(LastStore, loads(path.read_bytes()))
    return None
