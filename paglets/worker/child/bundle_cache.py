"""The cache of unpacked bundles. A bundle is unpacked once on a host, for all processes that import from it.

A bundle may come from another host and is not trusted. None of its files is visible before all of them are checked.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from paglets.codec.bundle import MAX_BUNDLE_FILES, first_clash
from paglets.core.content import sync_folder
from paglets.core.errors import ImportFailed
from paglets.core.files import rename_unless_there
from paglets.core.refs import BlobRef, check_blob
from paglets.core.text import placed
from paglets.worker.protocol import GoCode

MAX_UNPACKED_BYTES = 64 << 20
MAX_RATIO = 200
"""Maximum compression ratio of a file. Source code has a ratio of 5 to 10; a far larger ratio means a zip bomb."""

MAX_PATH_BYTES = 500
MAX_ENTRY_BYTES = 46 + MAX_PATH_BYTES + 200
"""Maximum size of an entry in the central directory of the archive: fixed part, path, and extra fields."""

MAX_PACKED_BYTES = MAX_UNPACKED_BYTES + 2 * MAX_BUNDLE_FILES * MAX_ENTRY_BYTES

_TEMPORARY = frozenset(
    (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.EIO)
)
"""Error codes of problems with the host's disk, not with the bundle. The bundle can be unpacked once they are fixed."""

_END = b"PK\x05\x06"
_END_BYTES = 22
_LONG_END = b"PK\x06\x07"
_LONG_END_BYTES = 20
_ALLOWED_FLAGS = 0x0800 | 0x0008 | 0x0006
"""Allowed zip flags: UTF-8 names, data descriptors, and deflate levels. Others, such as encryption, are refused."""


def unpack_once(code: GoCode) -> str:
    """Return the folder with the modules of the bundle. Unpack the bundle first, unless this host has done so before.

    Several processes may unpack the same bundle at once; one of their folders is kept. Raises ImportFailed if the bytes
    do not match the bundle's hash, if the archive has anything but source files, or if the folder cannot be written.
    """
    folder = Path(code.folder) / check_blob(code.bundle).sha256
    with _as_import_failed(code.bundle):
        if not folder.is_dir():
            _unpack(Path(code.path), code.bundle, folder)
    return str(folder)


@contextmanager
def _as_import_failed(bundle: BlobRef) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        passes = {"passes": True} if error.errno in _TEMPORARY else {}
        text = f"the code bundle {bundle.sha256[:8]} cannot be unpacked: {placed(error)}"
        raise ImportFailed(text, **passes) from error
    except (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError, RuntimeError, zlib.error) as error:
        raise ImportFailed(f"the code bundle {bundle.sha256[:8]} is not valid: {error}") from error


def _unpack(path: Path, bundle: BlobRef, folder: Path) -> None:
    files = read_bundle(_verified(path, bundle))
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{bundle.sha256[:8]}-", dir=folder.parent))
    try:
        for name, data in files.items():
            _write(beside / name, data)
        for place, _, _ in os.walk(beside, topdown=False):
            sync_folder(Path(place))
        rename_unless_there(beside, folder)
        sync_folder(folder.parent)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _verified(path: Path, bundle: BlobRef) -> bytes:
    if bundle.size_bytes > MAX_PACKED_BYTES:
        raise ValueError(f"a bundle of {bundle.size_bytes:,} bytes is over the limit of {MAX_PACKED_BYTES:,}")
    with path.open("rb") as file:
        data = file.read(bundle.size_bytes + 1)
    if len(data) != bundle.size_bytes or hashlib.sha256(data).hexdigest() != bundle.sha256:
        raise ValueError("the bytes of the bundle do not match its hash")
    return data


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        # An existing folder is used without a check. So its files must be on disk before the folder gets its name.
        os.fsync(file.fileno())


# The functions below check untrusted archives.


def read_bundle(data: bytes) -> dict[str, bytes]:
    """Return the source files of a bundle, by path. Raises ValueError or an error of `zipfile` for a bad archive."""
    _check_end(data)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = archive.infolist()
        _check_entries(entries)
        return {entry.filename: _content(archive, entry) for entry in entries}


def _check_end(data: bytes) -> None:
    """Check that this is a plain zip archive with a small central directory, before zipfile reads it.

    Raises ValueError otherwise.
    """
    end = data[-_END_BYTES:]
    if end[:4] != _END or end[-2:] != b"\0\0" or data[-_END_BYTES - _LONG_END_BYTES :].startswith(_LONG_END):
        raise ValueError("the bundle is not a plain zip archive")
    count, directory_bytes = int.from_bytes(end[10:12], "little"), int.from_bytes(end[12:16], "little")
    if count > MAX_BUNDLE_FILES or directory_bytes > MAX_BUNDLE_FILES * MAX_ENTRY_BYTES:
        raise ValueError(f"the archive has more than {MAX_BUNDLE_FILES:,} files")


def _check_entries(entries: list[zipfile.ZipInfo]) -> None:
    if not 0 < len(entries) <= MAX_BUNDLE_FILES:
        raise ValueError(f"the archive has {len(entries):,} files, not 1 to {MAX_BUNDLE_FILES:,}")
    total = 0
    names: set[str] = set()
    spellings: dict[str, str] = {}
    for entry in entries:
        problem = _problem(entry)
        if problem:
            raise ValueError(f"{entry.orig_filename[:100]!a} {problem}")
        if entry.filename in names:
            raise ValueError(f"{entry.filename} is in the archive twice")
        names.add(entry.filename)
        clash = first_clash(entry.filename, spellings)
        if clash:
            raise ValueError(f"{clash} differ only in case")
        total += entry.file_size
    if total > MAX_UNPACKED_BYTES:
        raise ValueError(f"the files have {total:,} bytes; at most {MAX_UNPACKED_BYTES:,} are allowed")


def _problem(entry: zipfile.ZipInfo) -> str:
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if entry.filename != entry.orig_filename or not _is_source_path(entry.filename):
        return "is not the path of a Python module"
    if kind not in (0, stat.S_IFREG):
        return "is not a regular file"
    if entry.flag_bits & ~_ALLOWED_FLAGS:
        return "is encrypted or has unsupported flags"
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "has an unsupported compression"
    if entry.file_size > MAX_RATIO * max(1, entry.compress_size):
        return f"would grow from {entry.compress_size:,} to {entry.file_size:,} bytes"
    return ""


def _is_source_path(path: str) -> bool:
    *folders, file = path.split("/")
    stem, dot, suffix = file.rpartition(".")
    fits = len(path.encode("utf-8", "surrogatepass")) <= MAX_PATH_BYTES
    return fits and dot + suffix == ".py" and all(part.isidentifier() for part in (*folders, stem))


def _content(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """Return the bytes of an entry. Raises ValueError if the size in the directory is wrong; zipfile checks the CRC."""
    with archive.open(entry) as file:
        data = file.read(entry.file_size)
        if len(data) != entry.file_size or file.read(1):
            raise ValueError(f"{entry.filename} does not have the {entry.file_size:,} bytes of its directory entry")
    return data
