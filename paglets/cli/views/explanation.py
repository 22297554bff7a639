"""The records and output of `jobs why`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TextIO

from paglets.cli.output import print_fields, print_paragraph
from paglets.core.text import printable


@dataclass(frozen=True, slots=True, kw_only=True)
class JobsReason:
    """The reason why `count` jobs of a group are in a state. `such_as` is the first of these jobs."""

    count: int
    state: str
    host: str
    text: str
    such_as: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """The answer of `jobs why`: `fields` to print, the last lines of output (`tails`), `reasons`, and `data` for JSON.

    `code`: the exit code of the command.
    """

    code: int
    data: Any
    fields: dict[str, object] = field(default_factory=dict)
    reasons: tuple[JobsReason, ...] = ()
    tails: tuple[str, ...] = ()


def print_explained(explained: Explanation) -> None:
    """Print the fields, last lines of output and reasons. If there are reasons, print hints and next steps last."""
    last = {name: explained.fields.get(name) for name in ("hint", "next")} if explained.reasons else {}
    print_fields({name: value for name, value in explained.fields.items() if name not in last})
    for tail in explained.tails:
        print()
        print("\n".join(printable(line) for line in tail.splitlines()))
    if explained.reasons:
        print()
    for reason in explained.reasons:
        print_reason(reason)
    if any(last.values()):
        print()
        print_fields(last)


def print_reason(reason: JobsReason, *, out: TextIO | None = None) -> None:
    """Print a line with the number, state and host of the jobs, and the reason below it."""
    host = f" on {reason.host}" if reason.host else ""
    such_as = reason.such_as if reason.count == 1 else f"such as {reason.such_as}"
    print_paragraph(f"{reason.count} {reason.state}{host}: {such_as}", "", out=out)
    if reason.text:
        print_paragraph(reason.text, "  ", out=out)


def count_reasons(rows: Iterable[tuple[str, str, str, str, int]]) -> list[JobsReason]:
    """Merge rows of (status, host, reason, job key, count) that differ only in key and count, most frequent first."""
    first: dict[tuple[str, str, str], str] = {}
    counts = Counter[tuple[str, str, str]]()
    for status, host, text, key, count in rows:
        first.setdefault((status, host, text), key)
        counts[status, host, text] += count
    return [
        JobsReason(count=count, state=each[0], host=each[1], text=each[2], such_as=first[each])
        for each, count in counts.most_common()
    ]
