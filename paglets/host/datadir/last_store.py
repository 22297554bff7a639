"""Which store a host of a name had when it started here last: a small file beside its run file.

A data directory that is not there, as that of a disk that is not mounted, looks like that of a new host. Nothing in it
can say otherwise; this file can.
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
    """`folder`: its data directory."""

    store_id: str
    folder: str


def warning_of(home: Path, name: str, folder: DataDirectory) -> str:
    """What its person must hear of a host that begins with nothing, though one of its name had something; else ""."""
    known = _read(_path(home, name))
    if folder.boot_count > 1 or folder.damaged_at or known is None or known.store_id == folder.store_id:
        return ""
    return (
        f"host {name} BEGINS ANEW: {folder.path} was empty, and when it started here last it had the store "
        f"{known.store_id} in {known.folder}. Others take it for a new host. Next: if a disk is not mounted, or this "
        "is the wrong folder, end this host now, mend that, and start it again"
    )


def remember(home: Path, name: str, folder: DataDirectory) -> None:
    """Raises OSError."""
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
