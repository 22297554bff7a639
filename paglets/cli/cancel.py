"""`paglets jobs cancel`: end queued and running jobs of a group with all their processes."""

from __future__ import annotations

import argparse
import getpass
import socket
from collections import Counter
from collections.abc import Mapping
from typing import Any

from paglets.cli.groups import collector_of
from paglets.cli.options import client_of
from paglets.cli.output import print_json, say
from paglets.core.errors import EXIT_DONE, EXIT_FAILED, EXIT_TIMED_OUT, EXIT_UNREACHABLE, PagletsError
from paglets.core.record import to_json
from paglets.core.text import counted
from paglets.remote.asking import ask_each, attempt
from paglets.remote.cancelling import CancelOutcome
from paglets.remote.client import HostClient

WORDS = {
    "already_completed": "had a result already",
    "already_failed": "had failed already",
    "already_cancelled": "had been cancelled already",
}
MOST_NAMED = 5


def cancel(options: argparse.Namespace) -> int:
    """Cancel what `options.jobs` names; the worst exit code of its groups."""
    reason = f"by {_who()}" + (f": {options.reason}" if options.reason else "")
    with client_of(options) as client:
        answers = cancel_each(client, by_group(options.jobs), reason=reason, timeout=options.timeout)
    outcomes = [answer for answer in answers if isinstance(answer, CancelOutcome)]
    if options.json:
        print_json({"groups": [_as_json(outcome) for outcome in outcomes]})
    for answer in answers:
        if isinstance(answer, PagletsError):
            say(answer)
        elif not options.json:
            _print(answer)
    return max(answer.exit_code if isinstance(answer, PagletsError) else _code(answer) for answer in answers)


def cancel_each(
    client: HostClient, groups: Mapping[str, list[str] | None], *, reason: str, timeout: float | None
) -> list[CancelOutcome | PagletsError]:
    """What became of each group, or the error; all are cancelled at once, none waits for the end of another."""

    def one(group_id: str) -> CancelOutcome:
        collector_of(client, group_id)
        return client.cancel(group_id, groups[group_id], reason=reason, timeout=timeout)

    return ask_each(attempt(one), list(groups))


def by_group(selectors: list[str]) -> dict[str, list[str] | None]:
    """The keys of each group; None: all of it."""
    groups: dict[str, list[str] | None] = {}
    for selector in selectors:
        group_id, slash, job_key = selector.partition("/")
        keys = groups.setdefault(group_id, [])
        if not slash:
            groups[group_id] = None
        elif keys is not None:
            keys.append(job_key)
    return groups


def _who() -> str:
    try:
        user = getpass.getuser()
    except (OSError, KeyError, ImportError):  # no such user in this container, say
        user = "somebody"
    return f"{user} on {socket.gethostname()}"


def _as_json(outcome: CancelOutcome) -> dict[str, Any]:
    return {**to_json(outcome), "silent": [_silent_line(name) for name in outcome.silent]}


def _silent_line(host_name: str) -> str:
    return f"{host_name} not reachable; what runs there ends when it is back"


def _print(outcome: CancelOutcome) -> None:
    counts = Counter(outcome.keys.values())
    if not counts["unknown"] or len(counts) > 1:
        print(f"{outcome.group_id}: cancelled {counted(counts['cancelled'], 'job')}")
    for what, words in WORDS.items():
        if counts[what]:
            say(f"{counts[what]} {words}")
    unknown = [key for key, what in outcome.keys.items() if what == "unknown"]
    if unknown:
        more = f" and {len(unknown) - MOST_NAMED} more" if len(unknown) > MOST_NAMED else ""
        say(
            f"group {outcome.group_id} has no job {', '.join(map(repr, unknown[:MOST_NAMED]))}{more}: "
            f"`paglets jobs groups --group {outcome.group_id}` lists its jobs"
        )
    for name in outcome.silent:
        say(f"cancelling: {_silent_line(name)}")
    for name, count in outcome.running.items():
        say(f"cancelling: {count} on {name} have not ended yet; the same command waits on")


def _code(outcome: CancelOutcome) -> int:
    if "unknown" in outcome.keys.values():
        return EXIT_FAILED
    if outcome.silent:
        return EXIT_UNREACHABLE
    return EXIT_TIMED_OUT if outcome.running else EXIT_DONE
