"""What a simulated process wishes for while it runs, and the answers that it goes on with."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from paglets.worker.launch import ProcessExit


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """A process does nothing for so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A process asks its host; it goes on with the `Answer`."""

    op: str
    args: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """`code` is that of the error, "" where there is none."""

    value: Any = None
    code: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoseZygote:
    """The process that forks all others of this host ends, and all of them with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A process writes a file into the staging folder of its host, and syncs it."""

    name: str
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteFile:
    """A process writes a file of its own; it goes on with the `SourceFile` as value."""

    path: str
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeAway:
    """A process removes a file of its own, of which something else has the bytes."""

    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadBlob:
    """A process reads a blob of its host by its path; it goes on with the bytes, or None, as value."""

    path: str


class Die(Exception):
    """The process ends: by a signal, or with an exit code."""

    def __init__(self, *, code: int | None = None, signal: int | None = None) -> None:
        self.how = ProcessExit(exit_code=code, signal=signal)


Wish = Pause | Ask | LoseZygote | Stage | WriteFile | TakeAway | ReadBlob
Routine = Generator[Wish, Answer, None]
