"""Arguments that commands share."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

from paglets.cli.output import say
from paglets.config import parse_bytes, parse_property
from paglets.core.errors import Invalid

if TYPE_CHECKING:
    from paglets.remote.client import HostClient

Handler = Callable[[argparse.Namespace], int]


class Parser(argparse.ArgumentParser):
    """Errors are raised, so that there is one place that prints them, and say where help is."""

    def __init__(self, *, prog: str, description: str | None = None, **further: object) -> None:
        super().__init__(prog=prog, description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        raise Invalid(f"{message}; see `{self.prog} --help`")


def add_common(parser: argparse.ArgumentParser, handler: Handler) -> None:
    """`--at`, `--timeout`, `--json`, and what runs the command."""
    parser.add_argument(
        "--at", metavar="NAME|URL", help="the host to ask; default PAGLETS_AT, else the one running here"
    )
    parser.add_argument(
        "--timeout", type=seconds, default=30.0, metavar="SECONDS", help="how long to wait (default 30)"
    )
    parser.add_argument("--json", action="store_true", help="data as JSON")
    parser.set_defaults(handler=handler)


def run(parser: argparse.ArgumentParser, arguments: list[str]) -> int:
    """Parse and run what `add_common` or `set_defaults(handler=...)` named."""
    options, further = parser.parse_known_args(arguments)
    # argparse gives an optional argument up at the first option: that of `get ID --force TARGET` is left over.
    if len(further) == 1 and not further[0].startswith("-") and getattr(options, "target", "") is None:
        options.target, further = further[0], []
    if further:
        parser.error(f"unrecognized arguments: {' '.join(further)}")
    if not hasattr(options, "handler"):
        parser.error("a command is missing")
    handler: Handler = options.handler
    return handler(options)


def client_of(options: argparse.Namespace) -> HostClient:
    """A client for `--at`; where there was a choice it is said on stderr."""
    from paglets.remote.client import HostClient  # here, as commands that ask nobody start in half the time without it

    client = HostClient(options.at, timeout=options.timeout)
    if client.note:
        say(client.note)
    return client


def seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return value


def amount_of_bytes(text: str) -> int:
    try:
        return parse_bytes(text)
    except Invalid as error:
        raise argparse.ArgumentTypeError(error.message) from error


def key_and_value(text: str) -> tuple[str, str]:
    try:
        return parse_property(text)
    except Invalid as error:
        raise argparse.ArgumentTypeError(error.message) from error
