"""Observations of this process, such as its threads, open files and working directory, and their comparison.

A template observes itself before and after an import, and a warm worker before and after each job. Later jobs must not
notice a change.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import os
import resource
import signal
import threading
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from paglets.worker.library_files import is_library_file

MAX_SHOWN = 3

MAX_LIBRARY_FILES = 64
"""The maximum number of files that installed libraries may keep open. The font cache of matplotlib holds as many."""

_LIMITS = tuple(sorted({value for name, value in vars(resource).items() if name.startswith("RLIMIT_")}))
_SIGNALS = tuple(int(number) for number in signal.valid_signals())
_TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """The parts of a process that a fork does not copy as they are, or that each run must have for itself.

    `children`: the number of child processes. `threads`: the number of Python threads. `native_threads`: the number of
    threads that the system counts. `descriptors`: the target of each open descriptor. `library_files`: the number of
    further descriptors, of files that installed libraries only read. `directory`: the identity of the working
    directory. `settings`: values that the kernel keeps for the process, by name.
    """

    children: int
    threads: int
    native_threads: int
    descriptors: Mapping[int, str]
    directory: tuple[int, int]
    environment: Mapping[str, str]
    handlers: Mapping[int, Any]
    settings: Mapping[str, object] = field(default_factory=dict)
    library_files: int = 0


def observe(
    children: int,
    native_threads: int,
    *,
    ignored_variables: Collection[str] = (),
    ignored_descriptors: Collection[int] = (),
    not_libraries: Collection[str] | None = None,
) -> Observation:
    """Return an observation of this process. The caller has counted its children and native threads.

    `not_libraries`: folders whose files never count as library files. If it is None, no file counts as one.
    """
    place = os.stat(".")
    targets = {number: target for number, target in _targets().items() if number not in ignored_descriptors}
    libraries: set[int] = set()
    if not_libraries is not None:
        libraries = {number for number, target in targets.items() if is_library_file(number, target, not_libraries)}
    return Observation(
        children=children,
        threads=threading.active_count(),
        native_threads=native_threads,
        descriptors={number: target for number, target in targets.items() if number not in libraries},
        directory=(place.st_dev, place.st_ino),
        environment={name: value for name, value in os.environ.items() if name not in ignored_variables},
        # `signal.getsignal` would spend most of the time on enums.
        handlers={number: _signal.getsignal(number) for number in _SIGNALS},
        settings=_settings(),
        library_files=len(libraries),
    )


def _settings() -> dict[str, object]:
    """Return settings that would affect later jobs if a job changed them, such as a memory limit or a timer."""
    umask = os.umask(0o077)
    os.umask(umask)
    return {
        "the CPU affinity": os.sched_getaffinity(0),
        "the file mode mask": umask,
        "the priority": os.getpriority(os.PRIO_PROCESS, 0),
        "the resource limits": tuple(resource.getrlimit(each) for each in _LIMITS),
        "the signal mask": signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        "the timers": tuple(any(signal.getitimer(each)) for each in _TIMERS),
    }


def _targets() -> dict[int, str]:
    targets = {}
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            targets[int(name)] = os.readlink("/proc/self/fd/" + name)
    return targets


def difference(before: Observation, after: Observation) -> str:
    """Return the first change between two observations of a process, such as "left a thread"; "" if there is none."""
    return next(filter(None, (check(before, after) for check in _CHECKS)), "")


def _children(before: Observation, after: Observation) -> str:
    return "left a child process" if after.children > before.children else ""


def _threads(before: Observation, after: Observation) -> str:
    return "left a thread" if after.threads > before.threads else ""


def _native_threads(before: Observation, after: Observation) -> str:
    return "left a thread of a library" if after.native_threads > before.native_threads else ""


def _descriptors(before: Observation, after: Observation) -> str:
    opened = [target for number, target in after.descriptors.items() if before.descriptors.get(number) != target]
    if opened:
        return f"left an open file or socket: {some(opened)}"
    return "closed a file" if len(after.descriptors) < len(before.descriptors) else ""


def _library_files(before: Observation, after: Observation) -> str:
    count = after.library_files
    return f"left {count} files of installed libraries open" if count > MAX_LIBRARY_FILES else ""


def _directory(before: Observation, after: Observation) -> str:
    return "changed the working directory" if after.directory != before.directory else ""


def _environment(before: Observation, after: Observation) -> str:
    names = _changed(before.environment, after.environment)
    return f"changed environment variables: {some(names)}" if names else ""


def _handlers(before: Observation, after: Observation) -> str:
    return "changed a signal handler" if _changed(before.handlers, after.handlers) else ""


def _changed_settings(before: Observation, after: Observation) -> str:
    names = _changed(before.settings, after.settings)
    return f"changed {some(names)}" if names else ""


_CHECKS = (
    _children,
    _threads,
    _native_threads,
    _descriptors,
    _library_files,
    _directory,
    _environment,
    _handlers,
    _changed_settings,
)


def _changed(before: Mapping[Any, Any], after: Mapping[Any, Any]) -> list[str]:
    return sorted(str(key) for key in before.keys() | after.keys() if before.get(key) != after.get(key))


def some(names: Iterable[str]) -> str:
    """Return a text with the first MAX_SHOWN names in order, and the number of further names."""
    known = sorted(names)
    more = f" and {len(known) - MAX_SHOWN} more" if len(known) > MAX_SHOWN else ""
    return ", ".join(known[:MAX_SHOWN]) + more
