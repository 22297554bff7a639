"""The entry point of the command line. It imports only the module of the command, and maps errors to exit codes."""

from __future__ import annotations

import importlib
import os
import shlex
import sys
import traceback

from paglets.cli.hints import flag_before_command, unknown_command
from paglets.cli.options import Parser, run
from paglets.cli.output import say
from paglets.cli.script import is_script
from paglets.core.errors import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, Invalid, PagletsError

COMMANDS = {
    "artifacts": ("paglets.cli.commands.artifacts", "list, fetch, send and delete files that hosts keep"),
    "completion": ("paglets.cli.commands.completion", "print completion code for bash, zsh or fish"),
    "config": ("paglets.cli.commands.config", "check a configuration file, or show each setting and its source"),
    "demo": ("paglets.cli.commands.demo", "run a demonstration with three hosts on this machine, in half a minute"),
    "doctor": ("paglets.cli.commands.doctor", "find common problems on this machine and in the mesh, with advice"),
    "host": ("paglets.cli.commands.host", "run a host on this machine, in the foreground or background"),
    "init": ("paglets.cli.commands.init", "write a configuration file, or add a host to one"),
    "jobs": ("paglets.cli.commands.jobs.parser", "list, explain, watch and cancel jobs and groups"),
    "key": ("paglets.cli.commands.key", "show or create the mesh key of this machine"),
    "list": ("paglets.cli.commands.list", "list all paglets on the hosts of the mesh"),
    "logs": ("paglets.cli.commands.logs.parser", "show the output of a job, whichever host ran it"),
    "mesh": ("paglets.cli.commands.mesh", "list the hosts of the mesh, or remove a lost one"),
    "notes": ("paglets.cli.commands.notes", "show messages that jobs and paglets sent to their user"),
    "stop": ("paglets.cli.commands.stop", "stop hosts that run on this machine"),
    "version": ("paglets.cli.commands.version", "print the version of this program"),
}
"""The module and the purpose of each command. The module defines `parser() -> Parser`."""

SHARED = {"--at": 2, "--timeout": 2, "--json": 1}
"""The options that most commands share, with the number of words that each takes on the command line."""

USAGE = "\n".join(
    [
        "usage: paglets COMMAND ...    (details: paglets COMMAND --help)",
        "       paglets [--python PATH] SCRIPT.py [ARGS...]    (run a script that imports paglets)",
        "",
        *(f"  {name:<12}{purpose}" for name, (_, purpose) in COMMANDS.items()),
        "",
        "  --at NAME|URL   connect to this host (or set PAGLETS_AT); default: the host on this machine",
        "  --json          print JSON         --debug   print tracebacks of errors",
        "",
        "exit codes: 0 done, 1 failed or false, 2 wrong usage, 3 can never be placed, 4 host unreachable,",
        "  5 not allowed, 6 timed out, 7 cancelled, 8 versions differ, 9 data of a host needs a decision,",
        "  130 interrupted",
    ]
)


def main(arguments: list[str], refused: str = "") -> int:
    """Run the command in `arguments` (without the program's name) and return the exit code.

    `refused`: the reason why the script in `arguments` cannot start, or "".
    """
    debug = "--debug" in arguments
    _open_closed_streams()
    try:
        if refused:
            raise Invalid(refused)
        code = _run([word for word in arguments if word != "--debug"])
        sys.stdout.flush()
        return code
    except PagletsError as error:
        return _fail(error, error.exit_code, debug)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader has closed the pipe. Redirect stdout, or Python would flush its buffer at exit and fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except SystemExit as leaving:  # argparse raises SystemExit after it has printed the help
        return leaving.code if isinstance(leaving.code, int) else EXIT_DONE
    except Exception as error:
        advice = "" if debug else " (a bug in paglets: --debug prints the traceback)"
        return _fail(f"{type(error).__name__}: {error}{advice}", EXIT_FAILED, debug)


def _open_closed_streams() -> None:
    """Replace a closed stdout or stderr, which Python represents as None, with the null device."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115


def _run(arguments: list[str]) -> int:
    if arguments[:1] == ["_complete"]:
        complete = importlib.import_module("paglets.cli.commands.completion").complete
        return int(complete(arguments[1:], parser_of, COMMANDS))
    arguments = move_shared_options(arguments)
    name = arguments[0] if arguments else ""
    if name == "help" and arguments[1:]:
        return _run([*arguments[1:], "--help"])
    if name in ("", "-h", "--help", "help"):
        print(USAGE)
        return EXIT_DONE
    name = "version" if name in ("--version", "-V") else name
    if is_script(name):
        raise Invalid("only --at and --python can precede a script", hint=["put the script's options after its name"])
    if name not in COMMANDS:
        if os.path.isfile(name):
            here = f"paglets {shlex.quote(f'./{name}')} runs the file {name}"
            raise Invalid(f"no command {name!r}", hint=[here])
        raise (
            flag_before_command("", arguments, COMMANDS)
            if name.startswith("-")
            else unknown_command("", name, COMMANDS)
        )
    return run(parser_of(name), arguments[1:])


def parser_of(name: str) -> Parser:
    """Return the parser of a command. Raises KeyError if COMMANDS lacks it."""
    made: Parser = importlib.import_module(COMMANDS[name][0]).parser()
    return made


def move_shared_options(arguments: list[str]) -> list[str]:
    """Move shared options before and after the first word to the end: `--at NAME jobs ps` -> `jobs ps --at NAME`."""
    words, last = list(arguments), []
    for place in (0, 1):
        while len(words) > place and words[place].partition("=")[0] in SHARED:
            takes = SHARED[words[place].partition("=")[0]] if "=" not in words[place] else 1
            last += words[place : place + takes]
            del words[place : place + takes]
    return [*words, *last]


def _fail(message: object, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    say(message)
    return code
