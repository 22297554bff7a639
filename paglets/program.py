"""The program as files: where its code is, its hash, the copy that a host runs from, and the commands of its children.

A process started from `paglets.pyz` imports its modules from an unpacked copy (`paglets.core.unpacking`). It
reads nothing from the archive afterwards, so users may replace that file while a host runs. The children of a host
start from the copy, too: they run the code of their host.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import subprocess
import sys
import sysconfig
import zipfile
import zipimport
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from paglets.core.command import called_archive, interpreter_flags, program_path, python_path
from paglets.core.errors import StartFailed
from paglets.core.unpacked import ARCHIVE_NAME, MANIFEST, copies_folder, find, is_compiled
from paglets.core.unpacking import INSIDE, is_whole, remove_unused, sizes_of, unpack, unpack_bytes

PROGRAM_VERSION = "0.1.0"

PROTOCOL = 2
"""The version of the protocol between hosts. Hosts work together if it is equal."""

READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """The code of a running paglets.

    `path` is what an interpreter runs and what stands on PYTHONPATH: an unpacked copy, an archive, or the folder that
    holds the package of a checkout or an installation. `archive` is the archive with the same code, if there is one.
    """

    path: Path
    archive: Path | None

    @property
    def is_copy(self) -> bool:
        """Return True for an unpacked copy of an archive."""
        return self.archive is not None and self.archive != self.path

    def read(self, name: str) -> bytes:
        """Return a file of the program (name with slashes). Raises OSError if it does not exist."""
        if self.path != self.archive:
            return (self.path / name).read_bytes()
        return zipimport.zipimporter(str(self.path)).get_data(os.path.join(self.path, *(INSIDE + name).split("/")))

    def sha256(self) -> str:
        """Return the SHA-256 of the archive, or of the names and bytes of all source files of a folder."""
        digest = hashlib.sha256()
        for piece in [self.archive.read_bytes()] if self.archive else _source_pieces(self.path / "paglets"):
            digest.update(piece)
        return digest.hexdigest()


def this_program() -> Program:
    """Return the program whose code this process runs."""
    return program_at(Path(program_path()))


def called_program() -> Program:
    """Return the archive that the user called, which stays when its copy is removed; else `this_program`."""
    archive, _ = called_archive()
    return program_at(Path(archive or program_path()))


def program_at(path: Path) -> Program:
    """Return the program of an archive, of an unpacked copy, or of a folder with the package."""
    if path.is_file():
        return Program(path=path, archive=path)
    return Program(path=path, archive=path / ARCHIVE_NAME if (path / MANIFEST).is_file() else None)


def unpack_problem(environment: Mapping[str, str]) -> str:
    """Return why this process imports its modules from the archive itself; "" if it does not."""
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
    """The unpacked copy that a host runs from. Its archive is held open, to make the copy again if it is removed.

    A program that is no unpacked copy is left alone.
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
            return ""  # the open archive was overwritten: only a restart helps
        return f"the copy of the program in {self._path} lacked files and has been recreated"


def _reader(file: int) -> Callable[[], bytes]:
    """Return a function that returns the next piece of an open file at each call, from its beginning."""
    places = itertools.count(0, READ_BYTES)
    return lambda: os.pread(file, READ_BYTES, next(places))


def remove_unused_copies(program: Program) -> list[str]:
    """Remove the copies beside that of `program` that no process uses; return their names."""
    return remove_unused(program.path.parent, program.path.name) if program.is_copy else []


def become(command: list[str]) -> None:
    """Replace this process by one that runs `command`. Raises StartFailed."""
    sys.stdout.flush()
    sys.stderr.flush()
    if os.name == "posix":
        try:
            os.execv(command[0], command)  # noqa: S606
        except OSError as error:  # no such program, or it is not executable
            raise StartFailed(f"{command[0]} cannot be started: {error.strerror}") from error
    # Windows has no real exec: the prompt would return while the program still runs. So this process waits for
    # it, and imports nothing more.
    sys.exit(subprocess.run(command, check=False).returncode)


def _source_pieces(package: Path) -> Iterator[bytes]:
    for path in sorted(package.rglob("*")):
        if path.suffix in (".py", ".sql"):
            yield path.relative_to(package).as_posix().encode() + b"\0"
            yield path.read_bytes()


# Children


def child_command(program: Program, *arguments: str, python: str = sys.executable) -> list[str]:
    """Return the command that runs `paglets ARGUMENTS` with the code of `program`, in this interpreter or another.

    Use it with `child_environment`. Another interpreter gets none of this one's options.
    """
    flags = interpreter_flags(sys.orig_argv) if python == sys.executable else []
    if program.archive:
        return [python, *flags, str(program.path), *arguments]
    # -P: the working folder can be a job's own, and must not come before the program.
    return [python, *flags, "-P", "-m", "paglets", *arguments]


def is_installed(program: Program) -> bool:
    """Return True if the program is among the packages of this interpreter."""
    return str(program.path) in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}


def child_environment(
    program: Program, environment: Mapping[str, str], *, python: str = sys.executable
) -> dict[str, str]:
    """Return `environment` with a PYTHONPATH by which a child, and what it starts, imports paglets from `program`.

    The interpreter of an installed program finds it without PYTHONPATH. The folder of the program there would put all
    installed packages before the standard library.
    """
    if python == sys.executable and is_installed(program):
        return dict(environment)
    return {**environment, "PYTHONPATH": python_path(str(program.path), environment.get("PYTHONPATH", ""))}
