"""The parser class, the options that commands share, and the clients that commands open."""

from __future__ import annotations

import argparse
import difflib
import importlib
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from paglets.cli.hints import flag_before_command, unexpected_word_hints, unknown_command
from paglets.cli.output import say
from paglets.core.errors import Invalid
from paglets.core.text import did_you_mean
from paglets.settings import parse_bytes, parse_property

if TYPE_CHECKING:
    from paglets.client.host_client import HostClient
    from paglets.client.mesh_client import MeshClient

ANSWER_SECONDS = 30.0
LOOK_SECONDS = 5.0
"""The timeout for each host's answer to a read-only command that asks all hosts."""

AMOUNT_FLAGS = (("--cores", "--cpu-cores"), ("--mem", "--memory"), ("--disk", "--temp-storage"))
"""The flags for cores, memory and temporary disk in all commands. The second of each pair is an alias."""

Handler = Callable[[argparse.Namespace], int]


class Parser(argparse.ArgumentParser):
    """An argument parser that raises Invalid, with a pointer to `--help`, instead of printing errors and exiting."""

    def __init__(self, *, prog: str, description: str | None = None, epilog: str | None = None) -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=epilog,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

        self.set_defaults(parser=self)

    def error(self, message: str) -> NoReturn:
        raise Invalid(f"{message}; see `{self.prog} --help`")

    @property
    def words(self) -> str:
        """The command without the program's name, such as `jobs ps`."""
        return self.prog.removeprefix("paglets ")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Check a value against its choices. Raises Invalid for an unknown command, ArgumentError for another value."""
        if isinstance(action, argparse._SubParsersAction) and value not in action.choices:
            raise unknown_command(self.words, value, action.choices)
        if action.choices is not None and value not in action.choices:
            raise argparse.ArgumentError(action, f"unknown value {value!r}: {nearest(value, list(action.choices))}")

    def reject(self, unknown: list[str]) -> NoReturn:
        """Raise Invalid for words that are no argument of this command."""
        flag = unknown[0].partition("=")[0]
        if not flag.startswith("-"):
            message = f"unexpected {' '.join(unknown)!r}"
            hint = unexpected_word_hints(self.words, unknown[0])
            raise Invalid(message if hint else f"{message}; see `{self.prog} --help`", hint=hint)
        flags = [name for action in self._actions for name in action.option_strings if name.startswith("--")]
        # Compare without hyphens: a common `--` would make short flags look similar.
        words = [name.removeprefix("--") for name in flags]
        near = difflib.get_close_matches(flag.lstrip("-"), words, 1)
        self.error(f"unknown option {flag}" + (f": did you mean '--{near[0]}'?" if near else ""))


def nearest(word: str, known: list[str]) -> str:
    """Return `did you mean X?`, or a list of all known words."""
    return did_you_mean(word, known) or f"choose from {', '.join(known)}"


Commands: TypeAlias = "argparse._SubParsersAction[Parser]"


def add_commands(parser: Parser) -> Commands:
    """Let `parser` have subcommands, and return the object to which `add_command` adds them."""
    return parser.add_subparsers(metavar="COMMAND", parser_class=Parser)


def add_command(commands: Commands, name: str, purpose: str, *examples: str) -> Parser:
    """Add a subcommand. Each example is a command line without `paglets`; the command's help lists them."""
    lines = "\n".join(f"  paglets {example}" for example in examples)
    return commands.add_parser(
        name,
        help=purpose,
        description=f"{purpose[0].upper()}{purpose[1:]}.",
        epilog=f"examples:\n{lines}" if examples else None,
    )


def add_common(
    parser: argparse.ArgumentParser, handler: Handler, *, waits: bool = False, asks_all: bool = False
) -> None:
    """Add `--at`, `--timeout` and `--json` to the parser of a command, and set its handler.

    `waits`: the command waits for jobs, so it has no default timeout. `asks_all`: the command asks all hosts, and the
    timeout applies to the answer of each host.
    """
    usual = "no limit" if waits else f"{LOOK_SECONDS:g} for each host" if asks_all else f"{ANSWER_SECONDS:g}"
    parser.add_argument(
        "--at", metavar="NAME|URL", help="connect to this host (default: PAGLETS_AT, else the host on this machine)"
    )
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=None if waits or asks_all else ANSWER_SECONDS,
        metavar="SECONDS",
        help=f"wait at most this long (default: {usual})",
    )
    add_json(parser)
    parser.set_defaults(handler=handler)


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def lazy_handler(module: str, name: str) -> Handler:
    """Return a handler that imports its module when it is called, so that other commands start faster."""
    return lambda options: int(getattr(importlib.import_module(module), name)(options))


def run(parser: argparse.ArgumentParser, arguments: list[str]) -> int:
    """Parse the arguments, run the handler of the command and return the exit code.

    argparse does not fill an optional argument that follows an option, such as TARGET in `get ID --force TARGET`.
    A parser with such a last argument stores its name as the default `last`, and this function fills it.
    """
    commands = next((each.choices for each in parser._actions if isinstance(each, argparse._SubParsersAction)), None)
    if commands and arguments and arguments[0].startswith("-") and arguments[0] not in ("-h", "--help"):
        raise flag_before_command(parser.prog.removeprefix("paglets "), arguments, commands)
    options, further = parser.parse_known_args(arguments)
    last = getattr(options, "last", None)
    if last and len(further) == 1 and not further[0].startswith("-") and getattr(options, last) is None:
        setattr(options, last, further[0])
        further = []
    if further:
        options.parser.reject(further)
    if not hasattr(options, "handler"):
        parser.error("missing command")
    handler: Handler = options.handler
    return handler(options)


def client_of(options: argparse.Namespace, *, of_one: bool = False) -> HostClient:
    """Return a client of the host that `--at` names. The default is PAGLETS_AT, else the host on this machine.

    `of_one`: the command is about one host. If several hosts run on this machine and `--at` is missing, print the name
    of the chosen host on stderr.
    """
    _warn_of_broken_run_files()
    # Import the client only here: commands without a client then start in half the time.
    from paglets.client.host_client import HostClient

    client = HostClient(options.at, timeout=options.timeout or ANSWER_SECONDS)
    if client.note and of_one:
        say(client.note)
    return client


@contextmanager
def mesh_client_of(options: argparse.Namespace, *, of_one: bool = False) -> Iterator[MeshClient]:
    """Open a MeshClient to the host that `client_of` would choose. Read-only commands use it, to import less code."""
    from paglets.client.connect import connect, open_mesh_client

    _warn_of_broken_run_files()
    link, note = open_mesh_client(options.at, connect(None, os.environ), os.environ)
    if note and of_one:
        say(note)
    try:
        yield link
    finally:
        link.close()


def _warn_of_broken_run_files() -> None:
    from paglets.wire.keys import paglets_home
    from paglets.wire.local_hosts import broken_run_files

    for problem in broken_run_files(paglets_home(os.environ)):
        say(f"warning: {problem}")


def seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number of seconds")
    return value


def count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)


def amount_of_bytes(text: str) -> int:
    try:
        return parse_bytes(text)
    except Invalid as error:
        raise argparse.ArgumentTypeError(error.message) from error


def names_and_urls(hosts: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Split hosts into names and URLs, such as `http://gpu-a:8765` or `gpu-a:8765`."""
    given = tuple(hosts)
    return tuple(each for each in given if ":" not in each), tuple(each for each in given if ":" in each)


def key_and_value(text: str) -> tuple[str, str]:
    try:
        return parse_property(text)
    except Invalid as error:
        raise argparse.ArgumentTypeError(error.message) from error
