"""UUIDs to and from their text. None is made here by chance."""

from __future__ import annotations

from typing import Any
from uuid import UUID

__all__ = ["UUID", "read_uuid"]


def read_uuid(content: Any) -> UUID:
    """Return the UUID with that text. Raises ValueError or TypeError for any other spelling."""
    if type(content) is not str:
        raise TypeError("expected a string")
    made = UUID(content)
    if str(made) != content:
        raise ValueError("expected 32 hexadecimal digits in five groups")
    return made
