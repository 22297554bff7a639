"""`paglets host`: run a host on this machine, in the foreground or background."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

from paglets.cli.host_flags import BACKGROUND_FLAG, add_settings, flags_of, options_of
from paglets.cli.options import Parser


def parser() -> Parser:
    made = Parser(prog="paglets host", description="Run a host on this machine. Flags override the configuration file.")
    add_settings(made)
    made.add_argument(
        BACKGROUND_FLAG,
        action="store_true",
        help="run the host detached from this terminal; return when it is ready or has failed",
    )
    made.set_defaults(handler=_host)
    return made


def _host(given: argparse.Namespace) -> int:
    """Run a host until it is stopped, or start one in the background, and return the exit code."""
    # With --background, the new process prints the warnings.
    options = options_of(given, Path.cwd(), re_enters=given.background)
    # Import the host only now, so that wrong flags are reported at once.
    if given.background:
        background = importlib.import_module("paglets.cli.background")
        return int(background.start(options, sys.argv[1:], has_settings=bool(flags_of(given))))
    app = importlib.import_module("paglets.host.app")
    return int(app.run_host(options))
