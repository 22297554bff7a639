"""The program as files: where its code is, its hash, and the commands that start its child processes.

A process started from `paglets.pyz` imports its modules from an unpacked copy (`paglets.core.unpacking`). It
reads nothing from the archive afterwards, so users may replace that file while a host runs. The children of a host
start from the copy, too: they run the code of their host.
"""

from __future__ import annotations

import hashlib
import os
import sys
import sysconfig
import zipimport
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from paglets.core.command import called_archive, interpreter_flags, program_path, python_path
from paglets.core.errors import StartFailed
from paglets.core.unpacked import ARCHIVE_NAME, INSIDE, MANIFEST

PROGRAM_VERSION = "0.1.0"

PROTOCOL = 3
"""The version of the protocol between hosts. Hosts with different versions do not work together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """The code of a running paglets.

    `path` can be an entry of PYTHONPATH: an unpacked copy, an archive, or the folder that has the package in a checkout
    or an installation. `archive` is the archive with the same code, or None if there is none.
    """

    path: Path
    archive: Path | None

    @property
    def is_copy(self) -> bool:
        """Return True for an unpacked copy of an archive."""
        return self.archive is not None and self.archive != self.path

    def read(self, name: str) -> bytes:
        """Return the content of the file `name`, a path with slashes. Raises OSError if the file does not exist."""
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
    """Return the program of the archive that the user started, else `this_program`.

    The archive can still be run after somebody removed the unpacked copy, from which this process imports.
    """
    archive, _ = called_archive()
    return program_at(Path(archive or program_path()))


def program_at(path: Path) -> Program:
    """Return the program of an archive, of an unpacked copy, or of a folder with the package."""
    if path.is_file():
        return Program(path=path, archive=path)
    return Program(path=path, archive=path / ARCHIVE_NAME if (path / MANIFEST).is_file() else None)


def become(command: list[str]) -> None:
    """Replace this process by one that runs `command`. Raises StartFailed."""
    sys.stdout.flush()
    sys.stderr.flush()
    if os.name == "posix":
        try:
            os.execv(command[0], command)  # noqa: S606
        except OSError as error:  # The program does not exist, or it is not executable.
            raise StartFailed(f"{command[0]} cannot be started: {error.strerror}") from error
    # Windows has no real exec: the prompt would return while the program still runs. So this process waits for it.
    import subprocess

    sys.exit(subprocess.run(command, check=False).returncode)


def _source_pieces(package: Path) -> Iterator[bytes]:
    for path in sorted(package.rglob("*")):
        if path.suffix in (".py", ".sql"):
            yield path.relative_to(package).as_posix().encode() + b"\0"
            yield path.read_bytes()


# The functions below start processes with the code of a program.


def child_command(program: Program, *arguments: str, python: str = sys.executable) -> list[str]:
    """Return the command that runs `paglets ARGUMENTS` with the code of `program`, in this interpreter or another.

    Run the command with `child_environment`. The options of this interpreter are not passed to another one.
    """
    flags = interpreter_flags(sys.orig_argv) if python == sys.executable else []
    if program.archive:
        return [python, *flags, str(program.path), *arguments]
    # -P keeps the working folder out of sys.path: it may be a job's, with modules that would hide the program's.
    return [python, *flags, "-P", "-m", "paglets", *arguments]


def is_installed(program: Program) -> bool:
    """Return True if the program is among the packages of this interpreter."""
    return str(program.path) in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}


def child_environment(
    program: Program, environment: Mapping[str, str], *, python: str = sys.executable
) -> dict[str, str]:
    """Return `environment` with a PYTHONPATH by which a child and its own children import paglets from `program`.

    A program that is installed in `python` gets no entry, because that interpreter finds it. An entry would put all
    installed packages before the standard library.
    """
    if python == sys.executable and is_installed(program):
        return dict(environment)
    return {**environment, "PYTHONPATH": python_path(str(program.path), environment.get("PYTHONPATH", ""))}
