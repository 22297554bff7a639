"""What is printed: tables fitted to the terminal, JSON, amounts in words. Nothing from outside is printed raw."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO

from paglets.core.record import to_json
from paglets.core.text import command_name, printable

SHORTEST_COLUMN = 8
GAP = "  "


def say(message: object) -> None:
    """One line on stderr."""
    print(f"paglets: {advised(printable(message))}", file=sys.stderr)


def advised(text: str) -> str:
    """`text` with what the user must type where it says `paglets ...`."""
    return text.replace("`paglets ", f"`{command_name()} ")


def print_json(value: Any) -> None:
    """A record or JSON tree on stdout, ASCII only so that no terminal can be tricked."""
    print(json.dumps(to_json(value), indent=2, allow_nan=False))


def print_table(headers: Sequence[str], rows: Iterable[Sequence[object]], *, out: TextIO | None = None) -> None:
    """A table: on a terminal no wider than it and with bold headers, elsewhere whole and plain."""
    out = out or sys.stdout
    cells = [[printable(cell) for cell in row] for row in rows]
    width = shutil.get_terminal_size().columns if out.isatty() else None
    widths = column_widths([list(headers), *cells], width)
    print(_styled(_line(headers, widths), out), file=out)
    for row in cells:
        print(_line(row, widths), file=out)


def print_fields(fields: Mapping[str, object]) -> None:
    """`name  value` lines on stdout; empty values are left out."""
    shown = {name: printable(value) for name, value in fields.items() if value not in ("", None)}
    width = max((len(name) for name in shown), default=0)
    for name, value in shown.items():
        print(f"{name:<{width}}{GAP}{value}")


def column_widths(rows: Sequence[Sequence[str]], most: int | None) -> list[int]:
    """The width of each column; where all together are over `most`, the widest give way first."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    while most is not None and sum(widths) + len(GAP) * (len(widths) - 1) > most:
        widest = max(range(len(widths)), key=lambda index: widths[index])
        if widths[widest] <= SHORTEST_COLUMN:
            break
        widths[widest] -= 1
    return widths


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return GAP.join(_fitted(cell, width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _fitted(cell: str, width: int) -> str:
    return f"{cell:<{width}}" if len(cell) <= width else cell[: width - 1] + "…"


def _styled(line: str, out: TextIO) -> str:
    plain = not out.isatty() or bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
    return line if plain else f"\x1b[1m{line}\x1b[0m"


def duration_text(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3 min 20 s`, `2 h 5 min`, `4 d 3 h`."""
    if seconds < 10:
        return f"{max(0.0, seconds):.1f} s"
    whole = int(seconds)
    for size, unit, small, small_unit in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // small
            return f"{whole // size} {unit} {rest} {small_unit}" if rest else f"{whole // size} {unit}"
    return f"{whole} s"


def numbers_text(numbers: Sequence[int]) -> str:
    """`0-3,8` of 0, 1, 2, 3, 8."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1][-1:] = [runs[-1][-1], number] if len(runs[-1]) == 1 else [number]
        else:
            runs.append([number])
    return ",".join("-".join(str(end) for end in run) for run in runs)
