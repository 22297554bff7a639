"""Messages to paglets, and the checks of arguments that can be given in two forms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from paglets.core.errors import Invalid
from paglets.core.refs import ArtifactRef, ProxyRef

MAX_KIND_CHARACTERS = 100
MAX_PRIORITY = 10

CLONE = "paglets.clone"
DEACTIVATE = "paglets.deactivate"
ACTIVATE = "paglets.activate"
"""CLONE, DEACTIVATE and ACTIVATE are kinds of messages that do not reach `handle_message` of a paglet."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message to a paglet: a kind and named arguments. `message["name"]` and `message.get("name")` read them.

        kind             Kind of the message, by which `handle_message` chooses what to do.
        args = {}        Arguments: name -> value. They arrive with their original types.
        sender = None    Reference to the sender, set by the host if known.
        artifacts = ()   Files that came with the message; the receiving paglet owns them.
        priority = 0     -10 to 10. The highest is handled first; then calls before posts, then by age.

    Raises Invalid if the priority is out of range.
    """

    kind: str
    args: Mapping[str, Any] = field(default_factory=dict)
    sender: ProxyRef | None = None
    artifacts: tuple[ArtifactRef, ...] = ()
    priority: int = 0

    def __post_init__(self) -> None:
        check_priority(self.priority)

    def __getitem__(self, name: str) -> Any:
        return self.args[name]

    def get(self, name: str, default: Any = None) -> Any:
        """Return the argument `name`, or `default` if the message does not have it."""
        return self.args.get(name, default)


def check_priority(priority: int) -> int:
    """Return `priority` if it is a valid priority of a message. Raises Invalid otherwise."""
    if type(priority) is not int or not -MAX_PRIORITY <= priority <= MAX_PRIORITY:
        raise Invalid(f"priority is {priority!r:.40}: it must be a whole number from -{MAX_PRIORITY} to {MAX_PRIORITY}")
    return priority


def one_timeout(timeout_seconds: float | None, timeout: float | None) -> float | None:
    """Return the time-out, which callers can pass under one of two names. Raises TypeError if both are given."""
    if timeout_seconds is not None and timeout is not None:
        raise TypeError("timeout and timeout_seconds are the same argument: give one of them")
    return timeout_seconds if timeout is None else timeout


def text_and_level(*words: str, **named: str) -> tuple[str, str]:
    """Return text and level from the arguments of `notify_user`: (text, level) or (severity, title, message).

    Raises TypeError for any other arguments.
    """
    is_titled = len(words) == 3 or not named.keys().isdisjoint(("severity", "title", "message"))
    try:
        return _titled(*words, **named) if is_titled else _plain(*words, **named)
    except TypeError:
        raise TypeError("notify_user takes (text, level) or (severity, title, message)") from None


def _titled(severity: str, title: str = "", message: str = "") -> tuple[str, str]:
    return ": ".join(part for part in (title, message) if part), severity


def _plain(text: str, level: str = "info") -> tuple[str, str]:
    return text, level
