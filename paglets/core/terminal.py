"""Print lines on stderr, where a terminal may show a progress line that is redrawn."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TextIO

from paglets.core.text import as_advice, printable

GAP = "  "
CLEAR = "\r\x1b[K"
"""The control sequence that clears the current line."""

MOST_BAR_CELLS = 20
FEWEST_BAR_CELLS = 5
MOST_NAME_CHARACTERS = 30


def draws_on(out: TextIO) -> bool:
    """Return True if `out` is a terminal on which a line can be redrawn."""
    return out.isatty() and os.environ.get("TERM") != "dumb"


def put_line(text: object) -> None:
    """Print one line on stderr, which overwrites the progress line if there is one."""
    clear = CLEAR if draws_on(sys.stderr) else ""
    print(f"{clear}{printable(text)}", file=sys.stderr, flush=True)


def put_hint(text: str) -> None:
    """Print a line `hint: ...` on stderr."""
    put_line(f"hint: {as_advice(text)}")


def put_next(text: str) -> None:
    """Print a line `next: ...` on stderr, for a next step."""
    put_line(f"next: {as_advice(text)}")


def fitted(name: str, words: str, part: float, width: int | None = None) -> str:
    """Return a progress line of at most `width` characters: as much of the name and the bar as fits, and `words`.

    The default of `width` is the width of the terminal. `part`, from 0 to 1, is the filled part of the bar.
    """
    room = (shutil.get_terminal_size().columns - 1 if width is None else width) - len(words)
    name = name[: max(0, min(MOST_NAME_CHARACTERS, room - len(GAP)))]
    cells = min(MOST_BAR_CELLS, room - len(name) - 2 * len(GAP) - len("[]"))
    filled = round(part * cells)
    bar = f"[{'#' * filled}{' ' * (cells - filled)}]" if cells >= FEWEST_BAR_CELLS else ""
    return GAP.join(each for each in (name, bar, words) if each)[: room + len(words)]
