"""Requests of a simulated process to its launcher, and their answers."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from paglets.worker.launch import ProcessExit


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """A pause of the process for this many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A request to the host. The process continues with the `Answer`."""

    op: str
    args: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer. `code` is that of the error, or "" on success."""

    value: Any = None
    code: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoseZygote:
    """A request to kill the process that forks all others of this host, with its children."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A request to write a file to the staging folder of the host and sync it."""

    name: str
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteFile:
    """A request to write a file of the process's own. The value of the answer is the `SourceFile`."""

    path: str
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeAway:
    """A request to remove a file of the process's own, whose bytes are stored elsewhere."""

    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadBlob:
    """A request to read a blob of the host by its path. The value of the answer is the bytes, or None."""

    path: str


class Die(Exception):
    """The end of the process, by a signal or with an exit code."""

    def __init__(self, *, code: int | None = None, signal: int | None = None) -> None:
        self.how = ProcessExit(exit_code=code, signal=signal)


Wish = Pause | Ask | LoseZygote | Stage | WriteFile | TakeAway | ReadBlob
Routine = Generator[Wish, Answer, None]
