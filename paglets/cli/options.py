"""Arguments that commands share."""

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
from paglets.core.text import meant
from paglets.settings import parse_bytes, parse_property

if TYPE_CHECKING:
    from paglets.client.host_client import HostClient
    from paglets.client.mesh_client import MeshClient

ANSWER_SECONDS = 30.0
LOOK_SECONDS = 5.0
"""For the answer of each host to a command that asks all and only looks."""

AMOUNT_FLAGS = (("--cores", "--cpu-cores"), ("--mem", "--memory"), ("--disk", "--temp-storage"))
"""Flags of amounts, alike in all commands: cores, memory, temporary disk. The second of each is the older spelling."""

Handler = Callable[[argparse.Namespace], int]


class Parser(argparse.ArgumentParser):
    """Errors are raised, so that there is one place that prints them, and say where help is."""

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
        """The command without the program, such as `jobs ps`."""
        return self.prog.removeprefix("paglets ")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Of a command that is not there, say what may be meant. Raises Invalid for that, else ArgumentError."""
        if isinstance(action, argparse._SubParsersAction) and value not in action.choices:
            raise unknown_command(self.words, value, action.choices)
        if action.choices is not None and value not in action.choices:
            raise argparse.ArgumentError(action, f"there is no {value!r}: {nearest(value, list(action.choices))}")

    def refuse(self, unknown: list[str]) -> NoReturn:
        """What stands on the command line and is no argument. Raises Invalid."""
        flag = unknown[0].partition("=")[0]
        if not flag.startswith("-"):
            told = f"unexpected {' '.join(unknown)!r}"
            hint = unexpected_word_hints(self.words, unknown[0])
            raise Invalid(told if hint else f"{told}; see `{self.prog} --help`", hint=hint)
        flags = [name for action in self._actions for name in action.option_strings if name.startswith("--")]
        words = [name.removeprefix("--") for name in flags]  # the hyphens would make any two alike
        near = difflib.get_close_matches(flag.lstrip("-"), words, 1)  # of all flags there are too many for a line
        self.error(f"there is no {flag}" + (f": did you mean '--{near[0]}'?" if near else ""))


def nearest(word: str, known: list[str]) -> str:
    """`did you mean X?`, or all that there are."""
    return meant(word, known) or f"there are {', '.join(known)}"


Commands: TypeAlias = "argparse._SubParsersAction[Parser]"


def add_commands(parser: Parser) -> Commands:
    """Room for commands below that of `parser`."""
    return parser.add_subparsers(metavar="COMMAND", parser_class=Parser)


def add_command(commands: Commands, name: str, purpose: str, *examples: str) -> Parser:
    """One of them. `examples` are shown with its help, each a command line after `paglets`."""
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
    """`--at`, `--timeout`, `--json`, and what runs the command. One that `waits` for jobs does so without a limit; one
    that `asks_all` hosts bounds the wait for each of them itself."""
    usual = "as long as it takes" if waits else f"{LOOK_SECONDS:g} for each host" if asks_all else f"{ANSWER_SECONDS:g}"
    parser.add_argument(
        "--at", metavar="NAME|URL", help="the host to ask; default PAGLETS_AT, else the one running here"
    )
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=None if waits or asks_all else ANSWER_SECONDS,
        metavar="SECONDS",
        help=f"how long to wait (default {usual})",
    )
    parser.add_argument("--json", action="store_true", help="data as JSON")
    parser.set_defaults(handler=handler)


def lazy_handler(module: str, name: str) -> Handler:
    """The handler `name` of a module that is loaded only when it is called: the other commands start faster."""
    return lambda options: int(getattr(importlib.import_module(module), name)(options))


def run(parser: argparse.ArgumentParser, arguments: list[str]) -> int:
    """Parse and run what `add_common` or `set_defaults(handler=...)` named.

    argparse gives an optional argument up at the first option: that of `get ID --force TARGET` is left over. A parser
    whose last argument is optional names it as the default `last`.
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
        options.parser.refuse(further)
    if not hasattr(options, "handler"):
        parser.error("a command is missing")
    handler: Handler = options.handler
    return handler(options)


def client_of(options: argparse.Namespace, *, of_one: bool = False) -> HostClient:
    """A client for `--at`. Where there was a choice it is said on stderr if the answer is `of_one` host only."""
    _say_broken_run_files()
    from paglets.client.host_client import (
        HostClient,  # here, as commands that ask nobody start in half the time without it
    )

    client = HostClient(options.at, timeout=options.timeout or ANSWER_SECONDS)
    if client.note and of_one:
        say(client.note)
    return client


@contextmanager
def mesh_client_of(options: argparse.Namespace, *, of_one: bool = False) -> Iterator[MeshClient]:
    """What `client_of` speaks through, for commands that only look: it loads half as much."""
    from paglets.client.connect import connect, open_mesh_client

    _say_broken_run_files()
    link, note = open_mesh_client(options.at, connect(None, os.environ), os.environ)
    if note and of_one:
        say(note)
    try:
        yield link
    finally:
        link.close()


def _say_broken_run_files() -> None:
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
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return value


def count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def amount_of_bytes(text: str) -> int:
    try:
        return parse_bytes(text)
    except Invalid as error:
        raise argparse.ArgumentTypeError(error.message) from error


def names_and_urls(hosts: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Split hosts given as names or as URLs (`http://gpu-a:8765`, `gpu-a:8765`)."""
    given = tuple(hosts)
    return tuple(each for each in given if ":" not in each), tuple(each for each in given if ":" in each)


def key_and_value(text: str) -> tuple[str, str]:
    try:
        return parse_property(text)
    except Invalid as error:
        raise argparse.ArgumentTypeError(error.message) from error
