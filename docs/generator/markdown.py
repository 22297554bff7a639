"""Small pieces of Markdown."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Sequence


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [headers, ["---"] * len(headers), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def code(text: object) -> str:
    """In the font of code, also within a cell of a table."""
    return f"`{str(text).replace('|', chr(92) + '|')}`" if str(text) else ""


def one_line(text: str) -> str:
    """A text as the cell of a table."""
    return re.sub(r"\s+", " ", text).strip().replace("|", "\\|")


def doc_of(thing: object) -> str:
    """Its docstring, or "" where it has none of its own: dataclasses are given one by Python."""
    text = getattr(thing, "__dict__", {}).get("__doc__") or ""
    name = getattr(thing, "__name__", "")
    return "" if text.startswith(f"{name}(") else inspect.cleandoc(text)


def anchor(title: str) -> str:
    """What a heading is linked by."""
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
