"""Checks of an import in a template. A run must not notice that its module was imported in another process.

All functions are pure. If a check fails, they return the reason why each attempt must import the module itself;
otherwise "".
"""

from __future__ import annotations

from collections.abc import Mapping

from paglets.core.text import printable
from paglets.worker.observation import Observation, difference, some

MAX_OUTPUT_BYTES = 1 << 16
"""Maximum number of bytes that an import may print. A template keeps them, and each of its forks prints them again."""


MAX_REASON_CHARACTERS = 200


def process_refusal(before: Observation, after: Observation) -> str:
    """Return why no run can be forked from a process that an import has changed; "" if one can."""
    change = difference(before, after)
    return f"its import {change}" if change else ""


def source_refusal(files: Mapping[str, str], folders: tuple[str, ...]) -> str:
    """Return a reason if a module comes from a code path of the host, because it may change there.

    `files`: the file of each module, by the module's name. `folders`: the code paths.
    """
    ends = tuple(folder.rstrip("/") + "/" for folder in folders)
    names = [name for name, file in files.items() if ends and file.startswith(ends)]
    return f"it imports modules from a code path of the host, which may change: {some(names)}" if names else ""


def output_refusal(size_bytes: int) -> str:
    """Return a reason if an import printed more than MAX_OUTPUT_BYTES."""
    return f"its import printed more than {MAX_OUTPUT_BYTES:,} bytes" if size_bytes > MAX_OUTPUT_BYTES else ""


def failure_refusal(error: BaseException) -> str:
    """Return the reason for an import that raised `error`. Each attempt repeats the import, and may succeed."""
    message = printable(error)[:MAX_REASON_CHARACTERS]
    return f"its import outside an attempt raised {type(error).__name__}" + (f": {message}" if message else "")
