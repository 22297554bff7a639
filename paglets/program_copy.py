"""The unpacked copy of the program that a host runs from: its repair, and the removal of copies that nobody uses."""

from __future__ import annotations

import itertools
import os
import zipfile
from collections.abc import Callable, Mapping

from paglets.core.command import called_archive, program_path
from paglets.core.unpacked import ARCHIVE_NAME, MANIFEST, copies_folder, find, is_compiled
from paglets.core.unpacking import is_whole, remove_unused, sizes_of, unpack, unpack_bytes
from paglets.program import Program

READ_BYTES = 1 << 20


def unpack_problem(environment: Mapping[str, str]) -> str:
    """Return why this process imports its modules from the archive itself; "" if unknown, or if it uses a copy.

    To find the reason, this function tries again to unpack the archive.
    """
    archive, content = called_archive()
    if archive != program_path():
        return ""
    try:
        copies = copies_folder(environment)
        copy = find(content, copies)
        if (copy and is_compiled(copy)) or unpack(archive, content, copies):
            return f"{copies} could not be used when this process began"
    except (OSError, zipfile.BadZipFile) as error:
        return str(error)
    return ""


class KeptCopy:
    """The unpacked copy that a host runs from. The archive in the copy is held open, to recreate the copy from it.

    If the program is not an unpacked copy, both methods return "".
    """

    def __init__(self, program: Program) -> None:
        self._path = program.path
        self._file: int | None = None
        if program.archive and program.is_copy:
            self._file = os.open(program.archive, os.O_RDONLY)
            self._sizes = sizes_of(program.archive.read_bytes())
            self._few = {name: self._sizes[name] for name in (ARCHIVE_NAME, MANIFEST)}

    def lacks(self) -> str:
        """Return a message if the copy was removed or changed, else "". This is cheap: it checks two files."""
        if self._file is None or is_whole(self._path, self._few):
            return ""
        return f"its copy of the program, {self._path}, was removed or changed: restart it with its {ARCHIVE_NAME}"

    def restore(self) -> str:
        """Recreate the copy if it lacks files, and return a message about that, else "". Raises OSError."""
        if self._file is None or is_whole(self._path, self._sizes):
            return ""
        data = b"".join(iter(_reader(self._file), b""))
        try:
            unpack_bytes(data, self._path.name, self._path.parent)
        except zipfile.BadZipFile:
            return ""  # The open archive was overwritten, so only a restart can recreate the copy.
        return f"the copy of the program in {self._path} lacked files and has been recreated"


def _reader(file: int) -> Callable[[], bytes]:
    """Return a function that returns the next piece of an open file at each call, from the start; at its end b""."""
    places = itertools.count(0, READ_BYTES)
    return lambda: os.pread(file, READ_BYTES, next(places))


def remove_unused_copies(program: Program) -> list[str]:
    """Remove old unpacked copies that no process uses, except that of `program`, and return their names."""
    return remove_unused(program.path.parent, program.path.name) if program.is_copy else []
