"""`paglets version`: print the version of this program."""

from __future__ import annotations

import argparse
import platform

from paglets.cli.options import Parser, add_json
from paglets.cli.output import print_fields, print_json
from paglets.core.errors import EXIT_DONE
from paglets.program import PROGRAM_VERSION, PROTOCOL, called_program


def parser() -> Parser:
    made = Parser(prog="paglets version", description="Print the version of this program.")
    add_json(made)
    made.set_defaults(handler=_version)
    return made


def _version(options: argparse.Namespace) -> int:
    program = called_program()
    found = {
        "paglets": PROGRAM_VERSION,
        "protocol": PROTOCOL,
        "python": platform.python_version(),
        "program": str(program.path),
        "sha256": program.sha256(),
    }
    if options.json:
        print_json(found)
        return EXIT_DONE
    print(f"paglets {PROGRAM_VERSION}")
    print_fields({name: value for name, value in found.items() if name != "paglets"})
    return EXIT_DONE
