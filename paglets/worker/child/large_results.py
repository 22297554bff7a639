"""Results that are too large for a record: their JSON is published as artifacts, and tags name them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from paglets.codec.encoder import looks_like_tag
from paglets.codec.tagged_json import dump_bytes
from paglets.core.errors import Invalid

MAX_INLINE_BYTES = 1 << 20
"""Of a result that stands in its record: a page of a group's records holds eight of these."""

MOST_PARTS = 16
"""Artifacts of one result. A result that is still too large without its 16 largest values is stored as a whole."""

MOST_ENTRIES = 10_000
"""Of a dict whose values are looked at one by one."""

Store = Callable[[bytes], Any]


def shrink(tree: Any, store: Store, *, has_file: bool = False) -> Any:
    """Return `tree` with so many large parts replaced by what `store` gives for them that the rest is small.

    Values of a dict are parts, so that small values beside large ones stay readable. `has_file`: the entry `artifact`
    names a file and must stay where it is. Raises Invalid if that is not possible.
    """
    whole = dump_bytes(tree)
    if len(whole) <= MAX_INLINE_BYTES:
        return tree
    large = _large_parts(tree, len(whole))
    if large:
        return {name: store(dump_bytes(part)) if name in large else part for name, part in tree.items()}
    if has_file:
        raise Invalid("the result beside the file is too large and cannot be divided; put it into the file")
    return store(whole)


def _large_parts(tree: Any, size_bytes: int) -> frozenset[str]:
    """Return the names of the values that must go for the rest to be small; none if that is not possible."""
    if type(tree) is not dict or looks_like_tag(tree) or len(tree) > MOST_ENTRIES:
        return frozenset()
    sizes = {name: len(dump_bytes(part)) for name, part in tree.items() if name != "artifact"}
    largest = sorted(sizes, key=lambda name: -sizes[name])
    for count, name in enumerate(largest[:MOST_PARTS], 1):
        size_bytes -= sizes[name]
        if size_bytes <= MAX_INLINE_BYTES:
            return frozenset(largest[:count])
    return frozenset()
