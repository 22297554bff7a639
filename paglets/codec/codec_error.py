"""The error of the encoder and decoder, with the path to the part of a value that causes it."""

from __future__ import annotations

from typing import Any

from paglets.core.errors import Invalid
from paglets.core.text import with_article

MAX_PATH_CHARACTERS = 200


class CodecError(Exception):
    """An error in a part of a value. As it is raised, each container around that part adds a step to the path.

    So values without errors need no paths.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.steps: list[str] = []

    def at(self, step: str) -> None:
        self.steps.append(step)

    def invalid(self, where: str) -> Invalid:
        """Return the error for users, with the path to the bad part. `where`: the name of the outermost value."""
        path = where + "".join(reversed(self.steps))
        if len(path) > MAX_PATH_CHARACTERS:
            path = path[:MAX_PATH_CHARACTERS] + "..."
        return Invalid(f"{path}: {self.reason}")


def key_step(key: Any) -> str:
    """Return the text that stands for the dict key `key` in a path, such as `.name` or `["a b"]`."""
    if isinstance(key, str):
        return f".{key}" if key.isidentifier() and len(key) <= 60 else f"[{key[:60]!a}]"
    return f"[{short_repr(key)}]"


def short_repr(value: Any) -> str:
    """Return the first 60 characters of `ascii(value)`; the type's name, with an article, if `__repr__` fails."""
    try:
        return ascii(value)[:60]
    except Exception:
        return f"{with_article(type_name(value))}"


def type_name(value: Any) -> str:
    """Return the name of the type of `value`, such as `set` or `numpy.int64`."""
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
