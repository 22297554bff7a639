"""The command line: finds the command, imports only its module, turns errors into a line and an exit code."""

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
    "artifacts": ("paglets.cli.commands.artifacts", "result files and others that hosts keep: fetch, send, delete"),
    "completion": ("paglets.cli.commands.completion", "completion of commands and names for bash, zsh and fish"),
    "config": ("paglets.cli.commands.config", "check a configuration file; show each setting and where it comes from"),
    "demo": ("paglets.cli.commands.demo", "see the whole story work on this machine, in half a minute"),
    "doctor": ("paglets.cli.commands.doctor", "look at what commonly stands in the way, and say what to do"),
    "host": ("paglets.cli.commands.host", "run a host on this machine, with --background away from this terminal"),
    "init": ("paglets.cli.commands.init", "write a configuration file, or add a host to one"),
    "jobs": ("paglets.cli.commands.jobs.parser", "groups, queues and hosts: what runs, what waits, and why"),
    "key": ("paglets.cli.commands.key", "the mesh key of this machine"),
    "list": ("paglets.cli.commands.list", "all paglets on the hosts of the mesh"),
    "logs": ("paglets.cli.commands.logs.parser", "what a job printed, from whichever host ran it"),
    "mesh": ("paglets.cli.commands.mesh", "the hosts that know each other"),
    "notes": ("paglets.cli.commands.notes", "what paglets and jobs told their user"),
    "stop": ("paglets.cli.commands.stop", "end a host that runs on this machine"),
    "version": ("paglets.cli.commands.version", "the version of this program"),
}
"""Command -> module with `parser() -> Parser`, and what it is for."""

SHARED = {"--at": 2, "--timeout": 2, "--json": 1}
"""Options that (almost) all commands have, and how many words each takes."""

USAGE = "\n".join(
    [
        "usage: paglets COMMAND ...    (paglets COMMAND --help says more)",
        "       paglets [--python PATH] SCRIPT.py [ARGS...]    runs a script that imports paglets",
        "",
        *(f"  {name:<12}{purpose}" for name, (_, purpose) in COMMANDS.items()),
        "",
        "  --at NAME|URL   speak to that host (or set PAGLETS_AT); by default the one that runs here",
        "  --json          data as JSON       --debug   tracebacks with errors",
        "",
        "exit codes: 0 done, 1 failed or not so, 2 wrong usage, 3 can never be placed, 4 host not reachable,",
        "  5 not allowed, 6 time ran out, 7 cancelled, 8 versions differ, 9 a host's data: a person must decide,",
        "  130 interrupted",
    ]
)


def main(arguments: list[str], refused: str = "") -> int:
    """Run the command in `arguments` (without the program's name); gives the exit code.

    `refused`: why a script that they name cannot be started.
    """
    debug = "--debug" in arguments
    _open_closed()
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
        # Who read our output has seen enough. Python must not try to write the rest when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except SystemExit as leaving:  # argparse, after --help
        return leaving.code if isinstance(leaving.code, int) else EXIT_DONE
    except Exception as error:
        advice = "" if debug else " (a fault of paglets: --debug shows where)"
        return _fail(f"{type(error).__name__}: {error}{advice}", EXIT_FAILED, debug)


def _open_closed() -> None:
    """Who closed our stdout or stderr wants nothing of it; Python gives None then."""
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
        raise Invalid("only --at and --python can stand before a script; its own options follow its name")
    if name not in COMMANDS:
        if os.path.isfile(name):
            here = f"paglets {shlex.quote(f'./{name}')} runs the file of that name"
            raise Invalid(f"no command {name!r}", hint=[here])
        raise (
            flag_before_command("", arguments, COMMANDS)
            if name.startswith("-")
            else unknown_command("", name, COMMANDS)
        )
    return run(parser_of(name), arguments[1:])


def parser_of(name: str) -> Parser:
    """The parser of one of COMMANDS. Raises KeyError."""
    made: Parser = importlib.import_module(COMMANDS[name][0]).parser()
    return made


def move_shared_options(arguments: list[str]) -> list[str]:
    """Options that commands share may stand in front of these: `--at NAME jobs ps` is `jobs ps --at NAME`."""
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
