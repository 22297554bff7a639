"""Pages of waiting rows, limited in number and bytes, so that no transaction grows with the number of waiting rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

Place = tuple[float, str]
"""The position of an item in its queue: a time or a number, and an id that decides between equal ones."""

FIRST_PLACE: Place = (float("-inf"), "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """The maximum size of a page, in items and in bytes."""

    items: int
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[T]):
    """Items in the order of their queue. `after` is the position of the last one if others follow, else None."""

    items: list[T]
    after: Place | None = None


def page_of(items: Iterable[T], budget: Budget, size_bytes: Callable[[T], int], place: Callable[[T], Place]) -> Page[T]:
    """Return the first items that fit in the budget, but at least one. Stop at the first item that does not fit.

    The query behind `items` needs one item more than the budget, which shows that there are more.
    """
    chosen: list[T] = []
    total = 0
    for item in items:
        total += size_bytes(item)
        if chosen and (len(chosen) == budget.items or total > budget.size_bytes):
            return Page(items=chosen, after=place(chosen[-1]))
        chosen.append(item)
    return Page(items=chosen)
