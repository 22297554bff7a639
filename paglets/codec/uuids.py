"""The type UUID and its reader. No other codec module may import `uuid`, which can create random values."""

from __future__ import annotations

from typing import Any
from uuid import UUID

__all__ = ["UUID", "read_uuid"]


def read_uuid(content: Any) -> UUID:
    """Return the UUID with the text `content`. Raises ValueError or TypeError if that is not in canonical form."""
    if type(content) is not str:
        raise TypeError("expected a string")
    made = UUID(content)
    if str(made) != content:
        raise ValueError("expected 32 hexadecimal digits in five groups")
    return made
