"""Lines for people on stderr: one that is drawn again and again on a terminal, and those that take its place."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TextIO

from paglets.core.text import as_advice, printable

GAP = "  "
CLEAR = "\r\x1b[K"
"""Wipes the line where the cursor is."""

MOST_BAR_CELLS = 20
FEWEST_BAR_CELLS = 5
MOST_NAME_CHARACTERS = 30


def draws_on(out: TextIO) -> bool:
    """Return True if a line can be drawn again and again there."""
    return out.isatty() and os.environ.get("TERM") != "dumb"


def put_line(text: object) -> None:
    """Print one line on stderr, in the place of a bar that may stand there."""
    clear = CLEAR if draws_on(sys.stderr) else ""
    print(f"{clear}{printable(text)}", file=sys.stderr, flush=True)


def put_hint(text: str) -> None:
    """Print on stderr what may help."""
    put_line(f"hint: {as_advice(text)}")


def put_next(text: str) -> None:
    """Print on stderr what to do next."""
    put_line(f"next: {as_advice(text)}")


def fitted(name: str, words: str, part: float, width: int | None = None) -> str:
    """Return a line of `width` (by default the terminal's): the words, and as much name and bar as there is room."""
    room = (shutil.get_terminal_size().columns - 1 if width is None else width) - len(words)
    name = name[: max(0, min(MOST_NAME_CHARACTERS, room - len(GAP)))]
    cells = min(MOST_BAR_CELLS, room - len(name) - 2 * len(GAP) - len("[]"))
    filled = round(part * cells)
    bar = f"[{'#' * filled}{' ' * (cells - filled)}]" if cells >= FEWEST_BAR_CELLS else ""
    return GAP.join(each for each in (name, bar, words) if each)[: room + len(words)]
