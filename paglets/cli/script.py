"""The start of `paglets SCRIPT.py [ARGS...]`: like `python SCRIPT.py ARGS...`, with this program importable.

The process becomes the script's interpreter. If paglets is an archive, the script imports its unpacked copy.

Imports delay the start of each script, so modules that few calls need are imported inside functions.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping

from paglets.core.command import (
    carried_command,
    interpreter_flags,
    on_path,
    program_path,
    python_path,
    this_command,
)
from paglets.core.unpacked import MANIFEST, lock

OPTIONS = ("--at", "--python")
"""The options that can precede a script. Each takes a value."""


def is_script(word: str) -> bool:
    """Return True if `word` names a script. No command has a dot or a slash in its name."""
    return not word.startswith("-") and (word.endswith(".py") or os.sep in word)


def split(arguments: list[str]) -> tuple[dict[str, str], list[str]]:
    """Return the leading OPTIONS with their values, and the words after them."""
    options: dict[str, str] = {}
    words = list(arguments)
    while words and words[0].partition("=")[0] in OPTIONS:
        name, joined, value = words.pop(0).partition("=")
        options[name] = value if joined or not words else words.pop(0)
    return options, words


def start(arguments: list[str]) -> str:
    """Replace this process with the script that the command line names.

    If the script cannot start, return the reason. If the command line names no script, return "".
    """
    options, words = split(arguments)
    if not words or not is_script(words[0]):
        return "--python is for scripts: paglets --python PATH SCRIPT.py" if "--python" in options else ""
    python = _interpreter(options.get("--python", ""))
    problem = _problem_of_script(words[0]) or _problem_of_python(python, options)
    if problem:
        return problem
    environment = _environment(python)
    if not environment:
        return "an installed paglets runs scripts only with its own Python: use paglets.pyz with another interpreter"
    if options.get("--at"):
        os.environ["PAGLETS_AT"] = options["--at"]
    os.environ |= environment
    flags = interpreter_flags(sys.orig_argv) if python == sys.executable else []
    try:
        _become([python, *flags, *words])
    except OSError as error:
        return f"{python} cannot be started: {error.strerror}"
    return ""


def _become(command: list[str]) -> None:
    """Replace this process with the command. Raises OSError."""
    if os.name == "posix":
        os.execv(command[0], command)  # noqa: S606
    importlib.import_module("paglets.program").become(command)


def _problem_of_script(word: str) -> str:
    """Return the reason why the file cannot run, or ""."""
    if os.path.isdir(word):
        return f"{word!r} is a folder, not a script"
    folder, name = os.path.split(word)
    # Accept a pipe, too, such as that of `<(...)`.
    if os.path.exists(word):
        hiding = os.path.join(os.path.dirname(os.path.realpath(word)), "paglets.py")
        is_hidden = not sys.flags.safe_path and os.path.isfile(hiding)
        return f"{hiding!r} hides the package paglets from the script: rename that file" if is_hidden else ""
    try:
        names = [other for other in os.listdir(folder or os.curdir) if other.endswith(".py")]
    except OSError:
        return f"no folder {folder!r} with a script {name!r}"
    near = importlib.import_module("paglets.core.text").did_you_mean(
        word, [os.path.join(folder, other) for other in names]
    )
    return f"no file {word!r}" + ("" if folder else " here") + (f": {near}" if near else "")


def _interpreter(named: str) -> str:
    """Return the path of the interpreter with this path or name, or of the current interpreter for ""."""
    if not named:
        return sys.executable
    found = "" if os.path.dirname(named) else on_path(named, os.environ.get("PATH", ""))
    return found or os.path.expanduser(named)


def _problem_of_python(python: str, options: Mapping[str, str]) -> str:
    """Return the reason why the interpreter cannot run a script, or ""."""
    if "--python" in options and not options["--python"]:
        return "--python needs the path of an interpreter"
    if os.path.isdir(python):
        inner = os.path.join(python, "bin", "python")
        return f"{python!r} is a folder" + (f": did you mean --python {inner}?" if os.path.isfile(inner) else "")
    if not os.access(python, os.X_OK):
        return f"no interpreter {python!r}"
    if python == sys.executable and sys.flags.ignore_environment:
        return "python -I and -E hide paglets from a script: leave them out"
    return ""


def _environment(python: str) -> dict[str, str]:
    """Return the environment variables to add for a script, or {} if that interpreter cannot import this program."""
    program = program_path()
    if os.path.isfile(program) or os.path.isfile(os.path.join(program, MANIFEST)):
        # Hand the lock down to the script, so that the unpacked program is not removed while the script runs.
        lock(program, inherited=True)
        path = {"PYTHONPATH": python_path(program, os.environ.get("PYTHONPATH", ""))}
        return path | carried_command(this_command(), program)
    files = importlib.import_module("paglets.program")
    checkout = files.this_program()
    if python != sys.executable and files.is_installed(checkout):
        # Setting PYTHONPATH would put all packages of this interpreter before the standard library of the other one.
        return {}
    made: dict[str, str] = files.child_environment(checkout, os.environ, python=python)
    return made | carried_command(this_command(), program)
