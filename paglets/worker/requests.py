"""Records of what a paglet asks for beside its changes: a clone, a note for its user, others of its kind."""

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
    """A clone, of the paglet as this commit leaves it. The id is made of the run's token and a count."""

    agent_id: str
    name: str | None = None
    target: HostRef | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rest:
    """To be inactive for `seconds`; None: until a message comes."""

    seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewNote:
    """What a paglet told its user at `at`, seconds since the epoch."""

    at: float
    level: Level
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Find:
    """List the paglets of that name or service on all online hosts. Reply: `api.FoundPaglets`."""

    name: str | None = None
    service: str | None = None


def new_note(text: str, level: str, at: float) -> NewNote:
    """A note of these; a long text is cut. Raises Invalid."""
    if level not in LEVELS:
        raise Invalid(f"level is {level!r:.40}: it must be one of {', '.join(LEVELS)}")
    if not isinstance(text, str):
        raise Invalid(f"a note is a text, got {type_of(text)}")
    # A lone surrogate has no place in JSON, and a note is not worth a failure.
    whole = text.encode("utf-8", "replace").decode()
    short = whole if len(whole) <= MAX_NOTE_CHARACTERS else whole[: MAX_NOTE_CHARACTERS - 1] + "…"
    return NewNote(at=at, level=level, text=short)  # type: ignore[arg-type]
