"""A full disk that user code met: the host's own, which is no fault of the code, or another one."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT)

LEAST_BYTES = 1 << 20
LEAST_FILES = 16
"""With less a file system counts as full."""


def is_of_host(number: int | None, device: int | None, own: frozenset[int], is_full: bool) -> bool:
    """Return True if an error of that number means that a file system of the host is full.

    `device`: of the file that the error names, None if it names none. `own`: the devices of the host. `is_full`: one
    of these is full just now. A quota does not show there, so such an error is believed without a file.
    """
    if number not in FULL:
        return False
    return is_full or number == errno.EDQUOT if device is None else device in own


def met_full_disk(errors: Iterable[BaseException], work_dir: str) -> bool:
    """Return True if one of these errors of user code means that the host's disk is full."""
    full = [error for error in errors if isinstance(error, OSError) and error.errno in FULL]
    if not full:
        return False
    places = _places(work_dir)
    own = frozenset(device for device in map(_device, places) if device is not None)
    is_full = any(map(_is_full, places))
    return any(is_of_host(error.errno, _named_device(error), own, is_full) for error in full)


def make_room(work_dir: str) -> None:
    """Empty the scratch directory of an attempt that has failed.

    The host may need this room to store how the attempt ended: before that its process does not end.
    """
    if os.path.islink(work_dir):
        return
    with suppress(OSError):
        for entry in list(os.scandir(work_dir)):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                with suppress(OSError):
                    os.unlink(entry.path)


def _places(work_dir: str) -> tuple[Path, ...]:
    """The scratch directory, the host's data directory above it, and the folder of temporary files."""
    scratch = Path(work_dir)
    return scratch, scratch.parent.parent, Path(tempfile.gettempdir())


def _named_device(error: OSError) -> int | None:
    """The device of the file that an error names; of one that could not be made, that of its folder."""
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
    return found.f_bavail * found.f_frsize < LEAST_BYTES or bool(found.f_files and found.f_favail < LEAST_FILES)
