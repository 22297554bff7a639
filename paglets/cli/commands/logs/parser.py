"""The parser of `paglets logs` and `paglets jobs logs`."""

from __future__ import annotations

import argparse
import re

from paglets.cli.options import Parser, add_common, lazy_handler

STREAMS = ("out", "err")


def parser() -> Parser:
    made = Parser(prog="paglets logs", description="Show the output of a job, whichever host of the mesh ran it.")
    add_logs(made)
    return made


def add_logs(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `paglets logs`, which is also available as `paglets jobs logs`."""
    add = parser.add_argument
    add(
        "job",
        metavar="GROUP|GROUP/JOBKEY|ID",
        help="show the output of this job, or the last lines of each job of this group",
    )
    add("-f", "--follow", action="store_true", help="follow one job until it has ended, through all its attempts")
    add("--attempt", type=_attempt, metavar="N|G.N", help="show attempt N, or N of generation G (default: newest)")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--stdout", action="store_const", const=("out",), dest="streams", help="show only stdout")
    only.add_argument("--stderr", action="store_const", const=("err",), dest="streams", help="show only stderr")
    add("--tail", type=_lines, metavar="N", help="show only the last N lines of each stream (default for a group: 20)")
    add("--raw", action="store_true", help="write escape sequences to a terminal unchanged, as to a pipe or file")
    add_common(parser, lazy_handler("paglets.cli.commands.logs.reader", "logs"), asks_all=True)
    parser.set_defaults(streams=STREAMS)


def _attempt(text: str) -> tuple[int | None, int]:
    if not re.fullmatch(r"([0-9]{1,9}\.)?[0-9]{1,9}", text):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not an attempt such as 2, or 1.2 for generation 1")
    generation, _, number = text.rpartition(".")
    return (int(generation) if generation else None, int(number))


def _lines(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a number of lines")
    return int(text)
