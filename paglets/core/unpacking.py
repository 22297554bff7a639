"""Unpack an archive into a copy that processes import from, and remove copies that no process uses.

Importing from an archive is slow, because Python keeps no bytecode of modules in a zip file. It also fails after the
file was replaced. So the first start unpacks the archive into `PAGLETS_HOME/cache/app/CONTENT/`, and all processes
import from there. The first start of each version of Python adds the bytecode for that version.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import py_compile
import shutil
import tempfile
import zipfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from paglets.core.files import private_folder
from paglets.core.unpacked import ARCHIVE_NAME, FIRST, INSIDE, MANIFEST, bytecode_of, lock, refuse_foreign

GRACE_SECONDS = 3600
"""A copy that was used within this time is not removed. Otherwise, two programs used in turn would be unpacked again
each time."""

GOING = ".going"
"""The suffix of the name of a copy that is being removed."""

SYNCED_AT_ONCE = 16

NEW = "new-"
"""The prefix of the name of a copy that is being written."""


def content_of(files: dict[str, bytes]) -> str:
    """Return the hash that names a copy with these files, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(f"{name}\0{len(files[name])}\0".encode())
        digest.update(files[name])
    return digest.hexdigest()


def unpack(archive: str, content: str, copies: str) -> str:
    """Unpack the archive into the folder `copies`, remove old copies there, and return the new copy, locked.

    Many processes may do this at once. Raises OSError if nothing can be written or read there, or if another user could
    change it, and zipfile.BadZipFile if the archive is damaged or is being replaced.
    """
    data = Path(archive).read_bytes()
    refuse_foreign(copies)
    copy = unpack_bytes(data, content, Path(copies))
    # Check again: in a folder such as /tmp, another user could have created the missing folders before this process.
    refuse_foreign(str(copy))
    if not lock(str(copy)):
        raise FileNotFoundError(f"{copy} was removed")
    compile_all(copy)
    remove_unused(Path(copies), content)
    return str(copy)


def compile_all(copy: Path) -> None:
    """Add the bytecode of all modules for this interpreter. Raises OSError.

    Python itself compiles a module at its first import, but keeps no bytecode if PYTHONDONTWRITEBYTECODE is set.
    """
    first = copy / FIRST
    paths = sorted(path for path in copy.rglob("*.py") if path != first)
    # Many first starts at once share the work: each begins at another module and skips what others have compiled.
    begin = os.getpid() % max(1, len(paths))
    _sync(filter(None, [_compiled(path) for path in (*paths[begin:], *paths[:begin])]))
    _compiled(first)


def _compiled(path: Path) -> Path | None:
    bytecode = bytecode_of(str(path))
    if bytecode and not os.path.isfile(bytecode):
        # Python need not check the source: the name of the copy is the hash of its content.
        unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
        py_compile.compile(str(path), bytecode, doraise=True, invalidation_mode=unchecked)
    return Path(bytecode) if bytecode else None


def unpack_bytes(data: bytes, content: str, copies: Path) -> Path:
    """Write a copy, unless it exists with all its files, and return its path. Raises the errors of `unpack`."""
    files = _files(data, content) | {ARCHIVE_NAME: data}
    copy = copies / content
    if is_whole(copy, {name: len(data) for name, data in files.items()}):
        return copy
    temporary = Path(tempfile.mkdtemp(dir=private_folder(copies), prefix=NEW))
    try:
        _write(temporary, files)
        _put_in_place(temporary, copy, files)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return copy


def is_whole(copy: Path, sizes: dict[str, int]) -> bool:
    """Return True if a copy has all files of `sizes` (name -> size in bytes), each with its size."""
    try:
        return all(os.stat(copy / name).st_size == size for name, size in sizes.items())
    except OSError:
        return False


def sizes_of(data: bytes) -> dict[str, int]:
    """Return name and size in bytes of each file of a copy made from an archive with these bytes."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = {entry.filename.removeprefix(INSIDE): entry.file_size for entry in archive.infolist() if _in(entry)}
    return entries | {ARCHIVE_NAME: len(data)}


def _in(entry: zipfile.ZipInfo) -> bool:
    return entry.filename.startswith(INSIDE)


def _files(data: bytes, content: str) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        files = {entry.filename.removeprefix(INSIDE): archive.read(entry) for entry in archive.infolist() if _in(entry)}
    if content_of(files) != content:
        raise zipfile.BadZipFile("the archive is damaged, or is being replaced")
    return files


def _write(folder: Path, files: dict[str, bytes]) -> None:
    """Write and sync the files, so that a copy under its final name is complete even after a power failure."""
    folders = {folder}
    for name, data in files.items():
        path = folder / name
        folders.add(private_folder(path.parent))
        with open(path, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(data)
    _sync([*(folder / name for name in files), *folders])


def _sync(paths: Iterable[Path]) -> None:
    """Sync files and folders in parallel. This takes a tenth of a second, and syncing one by one takes seconds."""
    with ThreadPoolExecutor(SYNCED_AT_ONCE) as threads:
        list(threads.map(_sync_one, paths))


def _sync_one(path: Path) -> None:
    if os.name != "posix" and path.is_dir():
        return  # Windows cannot open folders
    handle = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _put_in_place(temporary: Path, copy: Path, files: dict[str, bytes]) -> None:
    """Rename the new copy to `copy`. Keep a complete copy of another process; replace one that lacks files."""
    for _ in range(3):
        with contextlib.suppress(OSError):  # `rename` fails if `copy` exists already.
            temporary.rename(copy)
            return
        if is_whole(copy, {name: len(data) for name, data in files.items()}):
            return
        harmed = Path(tempfile.mkdtemp(dir=copy.parent, suffix=GOING))
        with contextlib.suppress(OSError):  # `rename` fails if another process has moved `copy` away.
            copy.rename(harmed)
        shutil.rmtree(harmed, ignore_errors=True)
    raise FileExistsError(f"{copy} is incomplete and cannot be replaced")


def remove_unused(copies: Path, own: str) -> list[str]:
    """Remove old copies, but not `own` and those that a process has locked. Return the names of the removed ones."""
    removed: list[str] = []
    with contextlib.suppress(OSError):
        os.utime(copies / own)
        # Use the clock of the file system, which can be on another machine.
        now = (copies / own).stat().st_mtime
        for folder in sorted(copies.iterdir()):
            with contextlib.suppress(FileNotFoundError):  # `stat` fails if another process has removed the copy.
                old = folder.stat().st_mtime < now - GRACE_SECONDS
                if folder.name != own and old and folder.is_dir() and _remove(folder):
                    removed.append(folder.name)
    return removed


def _remove(folder: Path) -> bool:
    """Remove a copy if no process has a lock on it. Return True if it was removed."""
    going = folder
    try:
        if os.name == "posix":
            import fcntl

            handle = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Rename the copy while it is locked: a process that gets the lock next sees that the name is gone.
                going = folder.rename(folder.with_suffix(GOING))
            finally:
                os.close(handle)
        else:
            (folder / MANIFEST).unlink(missing_ok=True)  # On Windows, this fails while a process has the file open.
    except OSError:
        return False
    shutil.rmtree(going, ignore_errors=True)
    return True
