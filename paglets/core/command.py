"""The command with which the user can run this program in the current folder, as text to paste into a shell.

Each script imports this module at its start. So it imports little.
"""

from __future__ import annotations

import functools
import os
import sys

NAME = "paglets"

COMMAND_VARIABLE = "PAGLETS_COMMAND"
"""The environment variable that contains the command to print in hints, a tab, and the path of the program.

It is set for scripts, for background hosts that run from an archive, and for the processes of paglets. Only the program
at that path uses the command, and nothing executes it.
"""

MOST_CHARACTERS = 4096
"""The maximum length of a command from the environment, equal to the maximum length of a path on Linux."""

OLDEST_PYTHON = 11
"""The oldest minor version of Python 3 that runs this program."""

COMPARED_BYTES = 1 << 18
"""The number of bytes at the end of two archives that are compared, instead of whole archives.

They include the table of contents, which has a checksum of each file.
"""

OPTIONS_WITH_VALUE = ("-X", "-W", "--check-hash-based-pycs")


def this_command() -> str:
    """Return the command that runs this program in the current folder."""
    archive, _ = called_archive()
    return command_for(
        archive or program_path(),
        is_archive=bool(archive) or _is_copy(program_path()),
        typed="".join(sys.orig_argv[:1]),
        called="".join(sys.argv[:1]),
        executable=sys.executable,
        in_venv=sys.prefix != sys.base_prefix,
        folder=_folder(),
        path=os.environ.get("PATH", ""),
        carried=os.environ.get(COMMAND_VARIABLE, ""),
    )


def called_archive() -> tuple[str, str]:
    """Return the path of the archive that the user started and the hash of its content, or two empty strings.

    The first module of an archive, `archive_root/paglets/__init__.py`, sets both.
    """
    noted: tuple[str, str] = getattr(sys.modules["paglets"], "__archive__", ("", ""))
    return noted


def program_path() -> str:
    """Return the absolute path that this program is imported from: a folder with the package, or an archive."""
    archive = getattr(__spec__.loader, "archive", "") if __spec__ else ""
    return os.path.abspath(archive or os.path.join(os.path.dirname(__file__), os.pardir, os.pardir))


def carried_command(command: str, of_program: str) -> dict[str, str]:
    """Return the environment variable that passes the user's command to the program at the path `of_program`."""
    return {COMMAND_VARIABLE: f"{command}\t{of_program}"}


def command_for(
    program: str,
    *,
    is_archive: bool,
    typed: str,
    called: str,
    executable: str,
    in_venv: bool,
    folder: str,
    path: str,
    carried: str = "",
) -> str:
    """Return the shortest command that runs `program` if the working directory is `folder` and PATH is `path`.

    `typed` is the first word of the command line, the interpreter's name; `called` is sys.argv[0]; `carried` is the
    value of COMMAND_VARIABLE.
    """
    command, _, of_program = carried.partition("\t")
    if of_program == program and command.isprintable() and 0 < len(command) <= MOST_CHARACTERS:
        return command
    python = _python(typed, executable, in_venv, folder, path)
    if not is_archive:
        return _package_command(program, called, python, executable, folder, path)
    if _is_copy(program):  # a user never types the path of an unpacked copy
        return NAME
    for name in (NAME, os.path.basename(program)):
        found = on_path(name, path)
        if found and _same_archive(found, program) and _starts_on_path(path):
            return quoted(name)
    return f"{python} {quoted(_near(program, folder))}"


def _package_command(program: str, called: str, python: str, executable: str, folder: str, path: str) -> str:
    """Return the command that runs an installed program or a checkout of the repository."""
    if os.path.abspath(called) == os.path.join(program, NAME, "__main__.py"):
        return f"{python} -m {NAME}"
    own = called if os.path.basename(called) == NAME else os.path.join(os.path.dirname(executable), NAME)
    found = on_path(NAME, path)
    if not os.path.isfile(own) or (found and os.path.realpath(found) == os.path.realpath(own)):
        return NAME
    return quoted(_near(os.path.abspath(own), folder))


def _is_copy(program: str) -> bool:
    """Return True if `program` is an unpacked copy of an archive: a folder named by the hash of its content."""
    name = os.path.basename(program)
    return len(name) == 64 and set(name) <= set("0123456789abcdef")


@functools.lru_cache(maxsize=8)
def _same_archive(one: str, other: str) -> bool:
    """Return True if both paths lead to one file, or to files with equal size and equal last COMPARED_BYTES."""
    if os.path.realpath(one) == os.path.realpath(other):
        return True
    try:
        return _end_of(one) == _end_of(other)
    except OSError:
        return False


def _end_of(path: str) -> tuple[int, bytes]:
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - COMPARED_BYTES))
        return size, file.read()


def _starts_on_path(path: str) -> bool:
    """Return False if an archive cannot be run by its name, which starts the `python3` on PATH.

    `python3` may be missing, or a link to an interpreter whose name shows a version that is too old.
    """
    found = on_path("python3", path)
    version = os.path.basename(os.path.realpath(found)).removeprefix("python3.") if found else "0"
    return not version.isdecimal() or int(version) >= OLDEST_PYTHON


def _python(typed: str, executable: str, in_venv: bool, folder: str, path: str) -> str:
    """Return the name of the interpreter if a shell finds it in PATH under that name, else its path."""
    if typed and not os.path.dirname(typed) and on_path(typed, path):
        return quoted(typed)
    name = os.path.basename(executable)
    found = on_path(name, path)
    if found and _same_interpreter(found, executable, in_venv):
        return quoted(name)
    return quoted(_near(executable, folder)) if executable else "python3"


def _same_interpreter(found: str, executable: str, in_venv: bool) -> bool:
    """Return True if both paths are the same interpreter.

    In a virtual environment only the folders are compared, since the interpreters of all environments link to one file.
    """
    if os.path.realpath(os.path.dirname(found)) == os.path.realpath(os.path.dirname(executable)):
        return True
    return not in_venv and os.path.realpath(found) == os.path.realpath(executable)


def _near(path: str, folder: str) -> str:
    """Return `path` relative to `folder` if it is inside `folder`, else `path` unchanged."""
    if not folder:
        return path
    name = os.path.relpath(path, folder)
    return path if name.startswith(os.pardir) else name


def _folder() -> str:
    try:
        return os.getcwd()
    except OSError:  # the working folder was removed
        return ""


def on_path(name: str, path: str) -> str:
    """Return the file that a shell whose PATH is `path` runs for the command `name`, or "" if there is none."""
    for folder in path.split(os.pathsep):
        file = os.path.join(folder or os.curdir, name)
        if os.path.isfile(file) and os.access(file, os.X_OK):
            return file
    return ""


def quoted(word: str) -> str:
    """Return `word` quoted for a shell."""
    if word and word.isascii() and all(letter.isalnum() or letter in "/._-" for letter in word):
        return word
    import shlex  # Import it only here: shlex loads `re`, and few words need quotes.

    return shlex.quote(word)


def interpreter_flags(original: list[str]) -> list[str]:
    """Return the interpreter's options in a command line such as sys.orig_argv: all before the script, -c or -m."""
    flags: list[str] = []
    words = iter(original[1:])
    for word in words:
        if not word.startswith("-") or word in ("-", "-c", "-m"):
            break
        if word[:2] in ("-X", "-W") or word.startswith("--"):
            flags.append(word)
            if word in OPTIONS_WITH_VALUE:
                flags.append(next(words, ""))
        elif word[-1] in "cm":  # One word can contain several flags, as in -Im.
            return [*flags, word[:-1]]
        else:
            flags.append(word)
    return flags


def python_path(program: str, given: str) -> str:
    """Return the PYTHONPATH `given` with `program` in front. Any other occurrence of `program` is removed."""
    return os.pathsep.join([program, *(entry for entry in given.split(os.pathsep) if entry not in ("", program))])
