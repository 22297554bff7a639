"""The handler of `paglets jobs groups`."""

from __future__ import annotations

import argparse
import time

from paglets.api.groups import Groups
from paglets.cli.collectors import collector_caller, summary_of
from paglets.cli.job_copies import hooks_of_group
from paglets.cli.options import LOOK_SECONDS, client_of
from paglets.cli.orphaned_groups import find_orphaned_group
from paglets.cli.output import (
    notice_if_slow,
    print_json,
    say,
    waiting_for_all,
)
from paglets.cli.views.groups import print_groups, print_summary
from paglets.cli.views.offline_hosts import missing_hosts
from paglets.cli.views.orphaned_groups import orphaned_group_json, print_orphaned_group
from paglets.client.host_client import HostClient
from paglets.core.errors import EXIT_DONE, PagletsError, Unknown, Unreachable
from paglets.core.messages import Message
from paglets.core.record import to_json

MOST_LINES = 50
"""The maximum number of rows in each table (pending jobs, failures, results). `--json` prints the whole summary."""


def groups(options: argparse.Namespace) -> int:
    """List all groups of the mesh, or show the summary of one."""
    with client_of(options) as client:
        group_id = options.group or options.name
        return _one(client, group_id, options) if group_id else _all(client, options)


def _all(client: HostClient, options: argparse.Namespace) -> int:
    seconds = options.timeout or LOOK_SECONDS
    with notice_if_slow(waiting_for_all(seconds)):
        found, errors = client.mesh_groups(seconds)
        views = client.hosts()
    missing = missing_hosts(views, errors.values())
    if options.json:
        print_json({**to_json(Groups(groups=found)), "unreachable": missing.lines()})
    elif not found:
        say(missing.none_of("groups"))
    else:
        print_groups(found, views, time.time(), [host.store_id for host in errors])
    missing.say()
    return missing.exit_code


def _one(client: HostClient, group_id: str, options: argparse.Namespace) -> int:
    try:
        return _with_collector(client, group_id, options)
    except (Unreachable, Unknown) as error:
        return _without_collector(client, group_id, error, options)


def _with_collector(client: HostClient, group_id: str, options: argparse.Namespace) -> int:
    if options.json:
        print_json(summary_of(client, group_id))
        return EXIT_DONE
    ask = collector_caller(client, group_id)
    # Count cancelled jobs before reading the summary, so that the summary has at least as many failures.
    cancelled = ask(Message("counts"))["failed"].get("cancelled", 0)
    summary = ask(Message("summary", {"limit": MOST_LINES}))
    hooks = hooks_of_group(client, summary, options.timeout or LOOK_SECONDS)
    print_summary(summary, cancelled, client.hosts(), hooks)
    return EXIT_DONE


def _without_collector(client: HostClient, group_id: str, error: PagletsError, options: argparse.Namespace) -> int:
    found = find_orphaned_group(client, group_id, error)
    if found is None:
        raise error
    if options.json:
        print_json(orphaned_group_json(found))
        say(error)
    else:
        print_orphaned_group(found)
    return error.exit_code
