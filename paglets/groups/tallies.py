"""Tallies: how many rows of a collector have the same values in some fields.

A host counts the rows of a collector inside SQLite, because a group may have 100,000 of them. A collector in a process
of its own counts them with the functions of this module.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """The number of rows with the same `values`. `first`: the lowest of their keys."""

    values: tuple[Any, ...]
    count: int
    first: str


@runtime_checkable
class TallyingStorage(Protocol):
    """A storage that counts its rows itself."""

    def tally(self, prefix: str, fields: Sequence[str], unless: str, most: int) -> list[Tally]:
        """Return the tallies of the rows whose key starts with `prefix`, as `tally` does.

        Leave out the rows whose field `unless` is true. Return at most `most` tallies (-1: all).
        """
        ...


def tally(rows: Iterable[tuple[str, Any]], fields: Sequence[str]) -> list[Tally]:
    """Return the tallies of rows with keys, the most frequent first, then by the first key.

    `fields`: names of fields such as `cause`, or `sighting.host.name` for a nested one. A missing field counts as None.
    """
    counts: dict[tuple[Any, ...], int] = {}
    first: dict[tuple[Any, ...], str] = {}
    for key, row in rows:
        values = tuple(_field(row, name) for name in fields)
        counts[values] = counts.get(values, 0) + 1
        first.setdefault(values, key)
    found = [Tally(values=values, count=count, first=first[values]) for values, count in counts.items()]
    return sorted(found, key=lambda each: (-each.count, each.first))


def _field(row: Any, name: str) -> Any:
    for part in name.split("."):
        row = row.get(part) if isinstance(row, dict) else None
    return row
