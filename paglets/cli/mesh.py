"""`paglets mesh`: the hosts that know each other."""

from __future__ import annotations

import argparse

from paglets.api import Hosts, MemberView
from paglets.cli.options import Parser, add_command, add_commands, add_common, client_of
from paglets.cli.output import duration_text, print_json, print_table, say
from paglets.core.errors import EXIT_DONE
from paglets.slots.amounts import resources_text


def parser() -> Parser:
    made = Parser(prog="paglets mesh", description="The hosts that know each other.")
    commands = add_commands(made)
    add_common(add_command(commands, "hosts", "the hosts of the mesh, as one of them sees them"), _hosts)
    return made


def _hosts(options: argparse.Namespace) -> int:
    with client_of(options) as client:
        views = client.hosts()
    if options.json:
        print_json(Hosts(hosts=views))
        return EXIT_DONE
    headers = ("HOST", "STATE", "URL", "TAGS", "FREE", "OF", "RUNNING", "QUEUED", "PROPERTIES")
    print_table(headers, [_row(view) for view in views])
    for view in views:
        if view.problem:
            say(f"{view.member.name}: {view.problem}")
    return EXIT_DONE


def _row(view: MemberView) -> tuple[object, ...]:
    member = view.member
    return (
        member.name,
        _state(view),
        member.url,
        ",".join(member.tags),
        resources_text(member.free),
        resources_text(member.capacity),
        member.running_jobs,
        member.queued_jobs,
        ",".join(f"{key}={value}" for key, value in sorted(member.properties.items())),
    )


def _state(view: MemberView) -> str:
    state = "online" if view.online else f"silent for {duration_text(view.silent_seconds)}"
    if not view.member.reachable:
        state += ", cannot be reached"
    return f"{state} (see below)" if view.problem else state
