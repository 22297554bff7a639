"""Checks of an import in a template. A run must not notice that its module was imported in another process.

All functions are pure. If a check fails, they return the reason why each attempt must import the module itself;
otherwise "".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

MAX_OUTPUT_BYTES = 1 << 16
"""Maximum number of bytes that an import may print. A template keeps them, and each of its runs prints them again."""

MAX_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """The parts of a process that a fork does not copy as they are, or that each run must have for itself.

    `children`: the number of child processes. `threads`: the number of Python threads. `native_threads`: the number of
    threads that are left after a fork; libraries such as OpenBLAS end theirs before a fork, and start them again later.
    `descriptors`: the target of each open descriptor. `directory`: the identity of the working directory.
    """

    children: int
    threads: int
    native_threads: int
    descriptors: Mapping[int, str]
    directory: tuple[int, int]
    environment: Mapping[str, str]
    handlers: Mapping[int, Any]


def process_refusal(before: Observation, after: Observation) -> str:
    """Return why no run can be forked from a process that an import has changed in this way; "" if one can."""
    return next(filter(None, (check(before, after) for check in _CHECKS)), "")


def _children(before: Observation, after: Observation) -> str:
    return "its import left a child process" if after.children > before.children else ""


def _threads(before: Observation, after: Observation) -> str:
    return "its import left a thread" if after.threads > before.threads else ""


def _native_threads(before: Observation, after: Observation) -> str:
    if after.native_threads <= before.native_threads:
        return ""
    return "its import left a thread of a library, which does not survive a fork"


def _descriptors(before: Observation, after: Observation) -> str:
    opened = [target for number, target in after.descriptors.items() if before.descriptors.get(number) != target]
    if opened:
        return f"its import left an open file or socket: {_some(opened)}"
    return "its import closed a file" if len(after.descriptors) < len(before.descriptors) else ""


def _directory(before: Observation, after: Observation) -> str:
    return "its import changed the working directory" if after.directory != before.directory else ""


def _environment(before: Observation, after: Observation) -> str:
    names = _changed(before.environment, after.environment)
    return f"its import changed environment variables: {_some(names)}" if names else ""


def _handlers(before: Observation, after: Observation) -> str:
    return "its import changed a signal handler" if _changed(before.handlers, after.handlers) else ""


_CHECKS = (_children, _threads, _native_threads, _descriptors, _directory, _environment, _handlers)


def _changed(before: Mapping[Any, Any], after: Mapping[Any, Any]) -> list[str]:
    return sorted(str(key) for key in before.keys() | after.keys() if before.get(key) != after.get(key))


def _some(names: Iterable[str]) -> str:
    known = sorted(names)
    more = f" and {len(known) - MAX_SHOWN} more" if len(known) > MAX_SHOWN else ""
    return ", ".join(known[:MAX_SHOWN]) + more


def source_refusal(files: Mapping[str, str], folders: tuple[str, ...]) -> str:
    """Return a reason if a module is in a code path of the host, where it may change. `files`: by module name."""
    ends = tuple(folder.rstrip("/") + "/" for folder in folders)
    names = [name for name, file in files.items() if ends and file.startswith(ends)]
    return f"it imports modules from a code path of the host, which may change: {_some(names)}" if names else ""


def output_refusal(size_bytes: int) -> str:
    """Return a reason if an import printed too many bytes for each run to print them again."""
    return f"its import printed more than {MAX_OUTPUT_BYTES:,} bytes" if size_bytes > MAX_OUTPUT_BYTES else ""


def failure_refusal(error: BaseException) -> str:
    """Return the reason for an import that raised `error`. Each attempt repeats the import, and shows the traceback."""
    return f"its import outside an attempt raised {type(error).__name__}"
