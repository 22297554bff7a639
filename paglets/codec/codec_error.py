"""Why a value cannot travel, and where in it the trouble lies."""

from __future__ import annotations

from typing import Any

from paglets.core.errors import Invalid
from paglets.core.text import with_article

MAX_PATH_CHARACTERS = 200


class CodecError(Exception):
    """Raised deep in a value; each container on the way out adds a step, so that good values pay nothing."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.steps: list[str] = []

    def at(self, step: str) -> None:
        self.steps.append(step)

    def invalid(self, where: str) -> Invalid:
        """The error for users; `where` names the outermost value."""
        path = where + "".join(reversed(self.steps))
        if len(path) > MAX_PATH_CHARACTERS:
            path = path[:MAX_PATH_CHARACTERS] + "..."
        return Invalid(f"{path}: {self.reason}")


def key_step(key: Any) -> str:
    """How the entry `key` of a dict is written in a path."""
    if isinstance(key, str):
        return f".{key}" if key.isidentifier() and len(key) <= 60 else f"[{key[:60]!a}]"
    return f"[{short_repr(key)}]"


def short_repr(value: Any) -> str:
    """`repr(value)`, cut; a broken `__repr__` must not hide the error that is being told."""
    try:
        return ascii(value)[:60]
    except Exception:
        return f"{with_article(type_name(value))}"


def type_name(value: Any) -> str:
    """The type of `value` as its users know it: `set`, `numpy.int64`."""
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
