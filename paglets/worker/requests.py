"""Records of requests that a paglet makes besides its changes: clones, notes, rest, and searches for paglets."""

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
    """A clone of the paglet in the state that this commit stores. The id is the run's token and a count."""

    agent_id: str
    name: str | None = None
    target: HostRef | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rest:
    """A request to be inactive for `seconds`. None: until a message arrives."""

    seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewNote:
    """A text from a paglet for its user. `at`: seconds since the epoch."""

    at: float
    level: Level
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Find:
    """`find`: look for a paglet name or a service on all online hosts. Replies `api.FoundPaglets` as JSON."""

    name: str | None = None
    service: str | None = None


def new_note(text: str, level: str, at: float) -> NewNote:
    """Return a note, its text cut to MAX_NOTE_CHARACTERS. Raises Invalid for a wrong level or a text that is no str."""
    if level not in LEVELS:
        raise Invalid(f"level is {level!r:.40}: it must be one of {', '.join(LEVELS)}")
    if not isinstance(text, str):
        raise Invalid(f"a note must be text, got {type_of(text)}")
    # JSON cannot hold a lone surrogate. Replace it: a note is not worth a failure.
    whole = text.encode("utf-8", "replace").decode()
    short = whole if len(whole) <= MAX_NOTE_CHARACTERS else whole[: MAX_NOTE_CHARACTERS - 1] + "…"
    return NewNote(at=at, level=level, text=short)  # type: ignore[arg-type]
