"""Detection of errors in user code that were caused by a full disk of the host, not by the code."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT)

MIN_FREE_BYTES = 1 << 20
MIN_FREE_FILES = 16
"""A file system with fewer free inodes, or with less than MIN_FREE_BYTES of free space, counts as full."""


def is_of_host(number: int | None, device: int | None, own: frozenset[int], is_full: bool) -> bool:
    """Return True if an error with errno `number` means that a file system of the host is full.

    If the error names a file, its `device` must be one of `own`, the devices that the host uses. If the error names no
    file (`device` is None), one of these devices must be full now (`is_full`), or the error must be EDQUOT: a user can
    exceed a quota on a device that is not full.
    """
    if number not in FULL:
        return False
    return is_full or number == errno.EDQUOT if device is None else device in own


def met_full_disk(errors: Iterable[BaseException], work_dir: str) -> bool:
    """Return True if one of the errors, which user code raised, means that a disk of the host is full."""
    full = [error for error in errors if isinstance(error, OSError) and error.errno in FULL]
    if not full:
        return False
    places = _places(work_dir)
    own = frozenset(device for device in map(_device, places) if device is not None)
    is_full = any(map(_is_full, places))
    return any(is_of_host(error.errno, _named_device(error), own, is_full) for error in full)


def _places(work_dir: str) -> tuple[Path, ...]:
    """Return the scratch directory, the host's data directory, and the folder for temporary files."""
    scratch = Path(work_dir)
    return scratch, scratch.parent.parent, Path(tempfile.gettempdir())


def _named_device(error: OSError) -> int | None:
    """Return the device of the file that an error names, or of its nearest existing folder if the file is missing.

    Return None if the error names no file.
    """
    name = error.filename
    return _device(Path(os.fsdecode(name))) if isinstance(name, str | bytes) and name else None


def _device(path: Path) -> int | None:
    for place in (path, *path.absolute().parents):
        with suppress(OSError, ValueError):
            return os.stat(place).st_dev
    return None


def _is_full(path: Path) -> bool:
    try:
        found = os.statvfs(path)
    except OSError:
        return False
    return found.f_bavail * found.f_frsize < MIN_FREE_BYTES or bool(found.f_files and found.f_favail < MIN_FREE_FILES)
