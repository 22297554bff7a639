"""`paglets logs` and `paglets jobs logs`: what a job printed, from whichever host ran it."""

from __future__ import annotations

import argparse
import re

from paglets.cli.options import Parser, add_common, lazy_handler

STREAMS = ("out", "err")


def parser() -> Parser:
    made = Parser(prog="paglets logs", description="What a job printed, from whichever host of the mesh ran it.")
    add_logs(made)
    return made


def add_logs(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command, which has two names."""
    add = parser.add_argument
    add(
        "job",
        metavar="GROUP|GROUP/JOBKEY|ID",
        help="a group: the last lines of each of its jobs; a job of a group, or a job's id",
    )
    add("-f", "--follow", action="store_true", help="of one job: go on until it has ended, through all its attempts")
    add("--attempt", type=_attempt, metavar="N|G.N", help="attempt N (of generation G); default the newest")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--stdout", action="store_const", const=("out",), dest="streams", help="only its stdout")
    only.add_argument("--stderr", action="store_const", const=("err",), dest="streams", help="only its stderr")
    add("--tail", type=_lines, metavar="N", help="only the last N lines of each stream (of a group by default 20)")
    add("--raw", action="store_true", help="write escape sequences to a terminal too (to a pipe or file: always)")
    add_common(parser, lazy_handler("paglets.cli.commands.logs.reader", "logs"), asks_all=True)
    parser.set_defaults(streams=STREAMS)


def _attempt(text: str) -> tuple[int | None, int]:
    if not re.fullmatch(r"([0-9]{1,9}\.)?[0-9]{1,9}", text):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not an attempt: 2, or 1.2 with its generation")
    generation, _, number = text.rpartition(".")
    return (int(generation) if generation else None, int(number))


def _lines(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a number of lines")
    return int(text)
