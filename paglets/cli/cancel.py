"""`paglets jobs cancel`: end queued and running jobs of a group with all their processes."""

from __future__ import annotations

import argparse
import getpass
import socket
from collections import Counter

from paglets.cli.groups import collector_of
from paglets.cli.options import client_of
from paglets.cli.output import print_json, say
from paglets.core.errors import EXIT_DONE, EXIT_FAILED, EXIT_TIMED_OUT, EXIT_UNREACHABLE
from paglets.remote.cancelling import CancelOutcome

WORDS = {
    "already_completed": "had a result already",
    "already_failed": "had failed already",
    "already_cancelled": "had been cancelled already",
}
MOST_NAMED = 5


def cancel(options: argparse.Namespace) -> int:
    """Cancel what `options.jobs` names; the worst exit code of its groups."""
    reason = f"by {_who()}" + (f": {options.reason}" if options.reason else "")
    outcomes = []
    with client_of(options) as client:
        for group_id, keys in _by_group(options.jobs).items():
            collector_of(client, group_id)
            outcomes.append(client.cancel(group_id, keys, reason=reason, timeout=options.timeout))
    if options.json:
        print_json({"groups": outcomes})
    else:
        for outcome in outcomes:
            _print(outcome)
    return max(_code(outcome) for outcome in outcomes)


def _by_group(selectors: list[str]) -> dict[str, list[str] | None]:
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


def _print(outcome: CancelOutcome) -> None:
    counts = Counter(outcome.keys.values())
    print(f"{outcome.group_id}: cancelled {counts['cancelled']} jobs")
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
        say(f"cancelling: {name} not reachable; what runs there ends when it is back")
    for name, count in outcome.running.items():
        say(f"cancelling: {count} on {name} have not ended yet; the same command waits on")


def _code(outcome: CancelOutcome) -> int:
    if "unknown" in outcome.keys.values():
        return EXIT_FAILED
    if outcome.silent:
        return EXIT_UNREACHABLE
    return EXIT_TIMED_OUT if outcome.running else EXIT_DONE
