"""Small pieces of Markdown."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Sequence


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [headers, ["---"] * len(headers), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def code(text: object) -> str:
    """Return a text as inline code, also for a cell of a table; "" for an empty text."""
    return f"`{str(text).replace('|', chr(92) + '|')}`" if str(text) else ""


def one_line(text: str) -> str:
    """Return a text as one line for a cell of a table."""
    return re.sub(r"\s+", " ", text).strip().replace("|", "\\|")


def doc_of(thing: object) -> str:
    """Return the docstring, or "" without one. A docstring that Python generates for a dataclass does not count."""
    text = getattr(thing, "__dict__", {}).get("__doc__") or ""
    name = getattr(thing, "__name__", "")
    return "" if text.startswith(f"{name}(") else inspect.cleandoc(text)


def anchor(title: str) -> str:
    """Return the anchor of a heading."""
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
