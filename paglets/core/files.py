"""Folders and files that only this user can enter and read."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path


def private_folder(path: Path) -> Path:
    """Create the folder `path` and its missing parents, all with mode 0700, and return `path`. Raises OSError."""
    if not path.is_dir():
        private_folder(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)
    return path


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only this user can read. An existing file is replaced atomically. Raises OSError."""
    handle, temporary = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except OSError as error:
        error.filename = error.filename or str(path)  # Python sets no file name in the error of a full disk
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def rename_unless_there(folder: Path | str, target: Path) -> None:
    """Rename a folder, unless another process has made `target` first, which then has the same content."""
    try:
        os.rename(folder, target)
    except OSError:
        if not target.is_dir():
            raise
