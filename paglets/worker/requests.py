"""Records of further requests that a paglet makes: clones, notes, deactivation, searches, time limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from paglets.api.limits import MAX_NOTE_CHARACTERS
from paglets.api.notes import Level
from paglets.core.errors import Invalid
from paglets.core.refs import HostRef
from paglets.core.text import type_of

LEVELS = get_args(Level)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewClone:
    """A request to clone the paglet. The clone has the id `agent_id`, and the state of the paglet after this commit."""

    agent_id: str
    name: str | None = None
    target: HostRef | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rest:
    """A request of a paglet to be inactive until a message arrives, and for `seconds` at most (None: no limit)."""

    seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewNote:
    """A text from a paglet to its user. `at`: the time in seconds since the epoch."""

    at: float
    level: Level
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Find:
    """`find`: find paglets by name or service on all online hosts. The reply is a FoundPaglets as JSON."""

    name: str | None = None
    service: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HookLimit:
    """`hook_limit`: end the hook that starts now if it takes longer than `seconds`. The reply is `{}`."""

    seconds: float


def new_note(text: str, level: str, at: float) -> NewNote:
    """Return a note, with its text cut to MAX_NOTE_CHARACTERS. Raises Invalid for a bad `level` or type of `text`."""
    if level not in LEVELS:
        raise Invalid(f"the level is {level!r:.40}: it must be one of {', '.join(LEVELS)}")
    if not isinstance(text, str):
        raise Invalid(f"a note must be text, got {type_of(text)}")
    # JSON cannot encode a lone surrogate. Replace it, so that the note can be stored.
    whole = text.encode("utf-8", "replace").decode()
    short = whole if len(whole) <= MAX_NOTE_CHARACTERS else whole[: MAX_NOTE_CHARACTERS - 1] + "…"
    return NewNote(at=at, level=level, text=short)  # type: ignore[arg-type]
