"""The handler of `paglets jobs hosts`: a preview of the hosts that could run a job."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Sequence
from typing import Any

from paglets.api.slots import PlacementCandidate
from paglets.cli.options import (
    client_of,
    names_and_urls,
)
from paglets.cli.output import (
    print_json,
    print_table,
    say,
)
from paglets.core.errors import EXIT_DONE, EXIT_NEVER
from paglets.core.terminal import put_hint
from paglets.slots.eligibility import remedy, tags_nowhere


def hosts(options: argparse.Namespace) -> int:
    """List the hosts that could run a job with the given requirements. Return EXIT_NEVER if there is none."""
    from paglets.system.jobs import ComputeJobState

    given = vars(options)
    fields: dict[str, Any] = {name: given[name] for name in ComputeJobState.__dataclass_fields__ if name in given}
    names, urls = names_and_urls(options.excluded_hosts)
    state = ComputeJobState(**fields, excluded_host_names=names, excluded_host_urls=urls)
    state.slot_request()
    with client_of(options) as client:
        found = client.candidates(state)
        home = client.host.name
        verdicts = found.verdicts
        can = any(one.eligible for one in verdicts)
        tags = [] if can else [view.host.tags for view in client.hosts()]
    if options.json:
        print_json(found)
    else:
        print_table(("RANK", "HOST", "CAN RUN IT", "WHY"), [_verdict_row(one) for one in verdicts])
        say(f"this is the preview for a job that is submitted from {home}")
    if can:
        return EXIT_DONE
    message, hint = no_host_lines(state.required_host_tags, tags, [one.reason for one in verdicts])
    say(message)
    put_hint(hint)
    return EXIT_NEVER


def no_host_lines(
    required: Sequence[str], tags_of_hosts: Sequence[Collection[str]], codes: Sequence[str]
) -> tuple[str, str]:
    """Return the message that no host can run the job, and a hint. `codes`: the reason code of each host."""
    there = {tag for tags in tags_of_hosts for tag in tags}
    nowhere = tags_nowhere([tag for tag in required if tag not in there], there)
    return (f"no host can run this job{f': {nowhere}' if nowhere else ''}", remedy(*codes))


def _verdict_row(one: PlacementCandidate) -> tuple[object, ...]:
    can = "yes" if one.eligible else "never" if one.never else "not now"
    return (one.rank or "", one.host.name, can, one.reason_text or one.reason)
