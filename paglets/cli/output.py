"""The output of commands: messages, JSON, and tables that fit the terminal. Control characters are escaped."""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import zip_longest
from typing import Any, TextIO

from paglets.core.clock import QUIET_SECONDS, call_if_slow
from paglets.core.errors import PagletsError
from paglets.core.record import to_json
from paglets.core.terminal import GAP, put_line
from paglets.core.text import as_typed, duration_text, printable

SHORTEST_COLUMN = 8

NEVER_CUT = frozenset({"ID", "GROUP", "JOB", "HOST", "FREE CORES", "FREE MEMORY", "FREE DISK", "FREE GPUS"})
"""The columns that are never cut: names that users copy into the next command, and free resources."""


def say(message: object) -> None:
    """Print a line on stderr. For an error, print its hints and next steps, too, each on a line."""
    put_line(f"paglets: {adapt_commands(str(message))}")
    for line in message.advice() if isinstance(message, PagletsError) else ():
        put_line(adapt_commands(line))


def notice_if_slow(text: str, after_seconds: float = QUIET_SECONDS) -> AbstractContextManager[None]:
    """Return a context that prints `text` on stderr if its body takes longer than `after_seconds`."""
    return call_if_slow(say, text, after_seconds)


def waiting_for_all(seconds: float) -> str:
    """Return the notice about a slow request to all hosts. `seconds`: the timeout of the request."""
    return f"waiting up to {seconds:g} s for hosts that have not answered"


def adapt_commands(text: str) -> str:
    """Replace `paglets` in commands with the command that the user types, and `with HostClient(URL)` with `--at`."""
    return as_typed(text).replace("with HostClient(URL)", "with --at URL")


def print_json(value: Any) -> None:
    """Print a dataclass or JSON tree as JSON on stdout, in ASCII so that it cannot control a terminal."""
    print(json.dumps(to_json(value), indent=2, allow_nan=False))


def print_table(
    headers: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    below: Sequence[str] = (),
    out: TextIO | None = None,
) -> None:
    """Print a table. On a terminal, it fits the width and has bold headers; elsewhere it is plain and never cut.

    Columns that are empty in all rows are omitted. Columns in NEVER_CUT stay whole even if the lines become too long.
    `below` has a text for each row, which is printed as a paragraph under the row.
    """
    out = out or sys.stdout
    cells = [[printable(cell) for cell in row] for row in rows]
    used = [index for index in range(len(headers)) if not cells or any(row[index] for row in cells)]
    shown = [[row[index] for index in used] for row in ([*headers], *cells)]
    kept = {place for place, name in enumerate(shown[0]) if name in NEVER_CUT}
    widths = column_widths(shown, terminal_width(out), kept)
    print(_styled(_line(shown[0], widths), out), file=out)
    for row, text in zip_longest(shown[1:], below):
        print(_line(row, widths), file=out)
        if text:
            print_paragraph(text, GAP, out=out)


def terminal_width(out: TextIO) -> int | None:
    """Return the width of a terminal in characters, or None for a pipe or file."""
    return shutil.get_terminal_size().columns if out.isatty() else None


def print_paragraph(text: object, indent: str, *, out: TextIO | None = None) -> None:
    """Print an indented text, wrapped to the width of a terminal, and on one line elsewhere."""
    out = out or sys.stdout
    width = terminal_width(out)
    whole = indent + printable(text)
    if width is not None:
        # A word longer than a line is a path or an id. It stays whole so that users can copy it.
        most = max(width, len(indent) + SHORTEST_COLUMN)
        whole = textwrap.fill(whole, most, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    print(whole, file=out)


def print_fields(fields: Mapping[str, object]) -> None:
    """Print `name  value` lines on stdout, without the empty values."""
    shown = {name: printable(value) for name, value in fields.items() if value not in ("", None)}
    width = max((len(name) for name in shown), default=0)
    for name, value in shown.items():
        print(f"{name:<{width}}{GAP}{value}")


MOST_TEXT_CHARACTERS = 500
"""The maximum length of one text, such as the message of a failure. `--json` prints the whole text."""


def shortened(text: str) -> str:
    """Return `text`. If it is long, replace its middle with the number of omitted characters."""
    if len(text) <= MOST_TEXT_CHARACTERS:
        return text
    half = MOST_TEXT_CHARACTERS // 2
    return f"{text[:half]} ... ({len(text) - 2 * half:,} more characters: --json shows all) ... {text[-half:]}"


def column_widths(rows: Sequence[Sequence[str]], most: int | None, kept: Collection[int] = ()) -> list[int]:
    """Return the width of each column in characters. `most`: the width of the terminal; None: no limit.

    If the table is wider than `most`, shrink the widest columns, except those whose index is in `kept`.
    """
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    giving = [index for index in range(len(widths)) if index not in kept]
    while most is not None and giving and sum(widths) + len(GAP) * (len(widths) - 1) > most:
        widest = max(giving, key=lambda index: (widths[index], index))
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


def ago(then: float | None, now: float) -> str:
    return "never" if then is None else f"{duration_text(now - then)} ago"


def attempt_text(generation: int | None, attempt: int | None) -> str:
    """Return an attempt as `logs --attempt` takes it: `2`, or `3.1` for attempt 1 of generation 3.

    Return "" if no attempt of the first generation has started.
    """
    if not attempt and (generation or 1) == 1:
        return ""
    return str(attempt or 0) if (generation or 1) == 1 else f"{generation}.{attempt or 0}"


def ranges_text(numbers: Sequence[int]) -> str:
    """Return numbers as ranges: `0-3,8` for 0, 1, 2, 3 and 8."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1][-1:] = [runs[-1][-1], number] if len(runs[-1]) == 1 else [number]
        else:
            runs.append([number])
    return ",".join("-".join(str(end) for end in run) for run in runs)
