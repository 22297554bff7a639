"""This program as files: where its code is, its hash, the copy that a host runs from, and how its children are started.

A running process imports modules late, and zipimport fails when the archive was replaced or deleted meanwhile; new
children would even run the new version. So a host first keeps a copy of its archive in
`PAGLETS_HOME/cache/app/<sha256>/paglets.pyz` and goes on in it (`enter_copy`): from then on nothing of the process, nor
of its children, reads the file that the user started.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipimport
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from paglets.core.command import carried_command, interpreter_flags, is_archive, program_path, python_path, this_command
from paglets.core.copies import ARCHIVE_NAME, ORIGINS, lock, origin, origins
from paglets.core.errors import StartFailed

PROGRAM_VERSION = "0.1.0"

PROTOCOL = 1
"""The number of what hosts speak with each other: they mix where it is equal."""

COPY_GRACE_SECONDS = 3600
"""A copy used more recently is never collected: its host may be between making it and locking it."""

GOING = ".going"
"""Ends the name of a copy's folder that is just being removed."""

READ_BYTES = 1 << 20

MOST_ORIGINS = 16

SETTLED_SECONDS = 2.0
"""A file that changed more recently may change again within one tick of its clock, unseen: it is not noted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """The code of a running paglets: an archive, or the folder that holds the package."""

    path: Path
    is_archive: bool

    def read(self, name: str) -> bytes:
        """A file of the archive (name with slashes) or of the folder. Raises OSError where it is not there."""
        if not self.is_archive:
            return (self.path / name).read_bytes()
        return zipimport.zipimporter(str(self.path)).get_data(os.path.join(self.path, *name.split("/")))

    def sha256(self) -> str:
        """The archive's SHA-256; of a folder, that of the names and bytes of its source files."""
        digest = hashlib.sha256()
        for piece in [self.path.read_bytes()] if self.is_archive else _source_pieces(self.path / "paglets"):
            digest.update(piece)
        return digest.hexdigest()


def this_program() -> Program:
    """The program whose code this process runs."""
    return Program(path=Path(program_path()), is_archive=is_archive())


def private_folder(path: Path) -> Path:
    """Make `path` and what is missing above it, for this user only. Raises OSError."""
    if not path.is_dir():
        private_folder(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)
    return path


# The copy


def keep_copy(program: Program, home: Path) -> Program:
    """The same archive under `home`, whole and with the same bytes; safe where many processes do it at once.

    Raises OSError where it cannot be written, StartFailed where the archive is being replaced right now.
    """
    data = _steady_bytes(program.path)
    folder = home.absolute() / "cache" / "app" / hashlib.sha256(data).hexdigest()
    copy = private_folder(folder) / ARCHIVE_NAME
    os.utime(copy.parent)
    if not copy.is_file() or copy.read_bytes() != data:
        write_private(copy, data)
    return Program(path=copy, is_archive=True)


def keep_noted(archive: str, seen: os.stat_result, home: str) -> str:
    """Keep a copy for a script, and note that the archive equals it; return its path, locked, or "" if there is none.

    `seen`: the archive from before. Raises OSError.
    """
    try:
        copy = keep_copy(Program(path=Path(archive), is_archive=True), Path(home))
    except StartFailed:  # the archive is being replaced right now
        return ""
    path = str(copy.path)
    if not lock(path, inherited=True):
        return ""
    collect_copies(Path(home), copy)
    if seen.st_ctime < copy.path.parent.stat().st_mtime - SETTLED_SECONDS:  # the folder was touched just now
        noted = copy.path.with_name(ORIGINS)
        lines = [*origins(str(noted))[1 - MOST_ORIGINS :], origin(seen, path)]
        write_private(noted, "\n".join([*lines, ""]).encode())
    return path


def write_private(path: Path, data: bytes) -> None:
    """Write a whole file, for this user only, in the place of what was there. Raises OSError."""
    handle, temporary = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except OSError as error:
        error.filename = error.filename or str(path)  # a full disk names no place
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def enter_copy(home: Path, arguments: list[str]) -> str:
    """Go on in the kept copy of this archive: call it first in a command that lives long.

    From an archive elsewhere the process becomes (on Windows: waits for) the same interpreter with the copy and
    `arguments`, the command line without the program's name. In the copy it locks that against `collect_copies` and
    returns "". Otherwise returns a sentence that says why the process stays where it is; "" for a source folder.
    """
    program = this_program()
    if not program.is_archive:
        return ""
    try:
        copy = keep_copy(program, home)
    except OSError as error:
        return f"no copy of {program.path} could be kept in {home}: {error}. Do not replace that file while this runs"
    if os.path.realpath(copy.path) == os.path.realpath(program.path):
        lock(str(copy.path))
        return ""
    os.environ |= carried_command(this_command(), str(copy.path))
    become([sys.executable, *interpreter_flags(sys.orig_argv), str(copy.path), *arguments])
    return ""


class KeptCopy:
    """The bytes of the copy that this process runs from, held open: so it can be made anew when somebody removes it.

    `program` is left alone where it is no copy of `keep_copy`'s.
    """

    def __init__(self, program: Program) -> None:
        self._path = program.path
        self._file: int | None = None
        if program.is_archive and program.path.parent.name == program.sha256():
            self._file = os.open(program.path, os.O_RDONLY)
            self._size = os.fstat(self._file).st_size

    def lacks(self) -> str:
        """What to say of a copy that is not there as it was; "" where it is."""
        if self._file is None:
            return ""
        try:
            if os.stat(self._path).st_size == self._size:
                return ""
        except OSError:
            pass
        return f"its copy of the program, {self._path}, is gone or was changed: restart it with its {ARCHIVE_NAME}"

    def restore(self) -> str:
        """Make it anew where it lacks; gives what to say of that. Raises OSError."""
        if self._file is None or not self.lacks():
            return ""
        data = b"".join(iter(_reader(self._file), b""))
        if hashlib.sha256(data).hexdigest() != self._path.parent.name:
            return ""  # it was written to where it lies: only a restart helps
        private_folder(self._path.parent)
        write_private(self._path, data)
        lock(str(self._path))
        return f"the copy of the program in {self._path.parent} was removed: it was made anew"


def _reader(file: int) -> Callable[[], bytes]:
    """Gives piece after piece of an open file, from its beginning."""
    places = itertools.count(0, READ_BYTES)
    return lambda: os.pread(file, READ_BYTES, next(places))


def collect_copies(home: Path, own: Program) -> list[str]:
    """Remove the copies under `home` that no process runs from; gives the hashes of what was removed.

    `own` is never removed. Where that is no copy under `home`, nothing is.
    """
    removed: list[str] = []
    copies = home / "cache" / "app"
    if not own.is_archive or not copies.is_dir() or not own.path.parent.parent.samefile(copies):
        return removed
    folders = sorted(copies.iterdir())
    os.utime(own.path.parent)
    # The file system's own clock says now: it may be another machine's.
    now = own.path.parent.stat().st_mtime
    for folder in folders:
        with contextlib.suppress(FileNotFoundError):  # another host collects at the same time
            old = folder.stat().st_mtime < now - COPY_GRACE_SECONDS
            if not folder.samefile(own.path.parent) and old and _remove_unused(folder):
                removed.append(folder.name)
    return removed


def _steady_bytes(path: Path) -> bytes:
    before = path.stat()
    data = path.read_bytes()
    after = path.stat()
    if (before.st_ino, before.st_size, before.st_mtime_ns) != (after.st_ino, after.st_size, after.st_mtime_ns):
        raise StartFailed(f"{path} is being replaced; start again when that is done")
    return data


def become(command: list[str]) -> None:
    """Go on as that command. Raises StartFailed."""
    sys.stdout.flush()
    sys.stderr.flush()
    if os.name == "posix":
        try:
            os.execv(command[0], command)  # noqa: S606
        except OSError as error:  # it names no file
            raise StartFailed(f"{command[0]} cannot be started: {error.strerror}") from error
    # Windows has no exec: the console would come back while the program still runs. Nothing more is imported here.
    sys.exit(subprocess.run(command, check=False).returncode)


def _remove_unused(folder: Path) -> bool:
    """Remove a copy's folder if no process holds the lock (Windows: has the file open)."""
    archive, going = folder / ARCHIVE_NAME, folder
    if not folder.is_dir():
        return False
    try:
        with open(archive, "rb") if archive.exists() else contextlib.nullcontext() as file:
            if os.name == "posix":
                import fcntl

                if file is not None:
                    fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Under the lock: who gets it next finds nothing under the old name, and who makes a new copy has a
                # folder of its own.
                going = folder.rename(folder.with_suffix(GOING))
        (going / ARCHIVE_NAME).unlink(missing_ok=True)
    except OSError:
        return False
    shutil.rmtree(going, ignore_errors=True)
    return True


def _source_pieces(package: Path) -> Iterator[bytes]:
    for path in sorted(package.rglob("*")):
        if path.suffix in (".py", ".sql"):
            yield path.relative_to(package).as_posix().encode() + b"\0"
            yield path.read_bytes()


# Children


def child_command(program: Program, *arguments: str, python: str = sys.executable) -> list[str]:
    """The command that runs `paglets ARGUMENTS` with the code of `program`, in this interpreter or another.

    Use it with `child_environment`. Another interpreter gets none of this one's options.
    """
    flags = interpreter_flags(sys.orig_argv) if python == sys.executable else []
    if program.is_archive:
        return [python, *flags, str(program.path), *arguments]
    # -P: the working folder may be a job's own, and must not come before the program.
    return [python, *flags, "-P", "-m", "paglets", *arguments]


def is_installed(program: Program) -> bool:
    """Return True if the program is among the packages of this interpreter."""
    return str(program.path) in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}


def child_environment(
    program: Program, environment: Mapping[str, str], *, python: str = sys.executable
) -> dict[str, str]:
    """`environment` with a PYTHONPATH by which a child, and what it starts, imports paglets from `program`.

    An installed program is found by its own interpreter as it is; its folder on PYTHONPATH would put every installed
    package before the standard library.
    """
    if python == sys.executable and is_installed(program):
        return dict(environment)
    return {**environment, "PYTHONPATH": python_path(str(program.path), environment.get("PYTHONPATH", ""))}
