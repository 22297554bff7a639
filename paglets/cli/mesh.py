"""`paglets mesh`: the hosts that know each other."""

from __future__ import annotations

import argparse

from paglets.api.hosts import Hosts, MemberView
from paglets.cli.options import Parser, add_command, add_commands, add_common, client_of
from paglets.cli.output import duration_text, print_json, print_table, say
from paglets.core.errors import EXIT_DONE
from paglets.slots.amounts import bytes_text

HEADERS = (
    *("HOST", "STATE", "URL", "FREE CORES", "FREE MEMORY", "FREE DISK", "FREE GPUS", "RUNNING", "QUEUED"),
    *("TAGS", "PROPERTIES"),
)


def parser() -> Parser:
    made = Parser(prog="paglets mesh", description="The hosts that know each other.")
    commands = add_commands(made)
    add_common(add_command(commands, "hosts", "the hosts of the mesh, as one of them sees them"), _hosts)
    return made


def _hosts(options: argparse.Namespace) -> int:
    with client_of(options) as client:
        views, peers = client.hosts(), client.peer_problems()
    if options.json:
        print_json(Hosts(hosts=views, peers=peers))
        return EXIT_DONE
    print_table(HEADERS, [host_row(view) for view in views])
    for view in views:
        if view.problem:
            say(f"{view.member.name}: {view.problem}")
    for peer in peers:
        say(f"not joined: peer {peer.url}: {peer.problem.removeprefix(peer.url).strip()}")
    return EXIT_DONE


def host_row(view: MemberView) -> tuple[object, ...]:
    """A line under HEADERS. The amounts are what is free of what is offered."""
    member, free, offered = view.member, view.member.free, view.member.capacity
    return (
        member.name,
        _state(view),
        member.url,
        f"{free.cpu_cores} of {offered.cpu_cores}",
        part_text(free.memory_bytes, offered.memory_bytes),
        part_text(free.temp_storage_bytes, offered.temp_storage_bytes),
        f"{free.gpus} of {offered.gpus}" if offered.gpus else "",
        member.running_jobs,
        member.queued_jobs,
        ",".join(member.tags),
        ",".join(f"{key}={value}" for key, value in sorted(member.properties.items())),
    )


def part_text(part: int, whole: int) -> str:
    """`22.7 of 23.5 GiB`, and `900 MiB of 23.5 GiB`."""
    first, last = bytes_text(part), bytes_text(whole)
    unit = last.partition(" ")[2]
    return f"{first.removesuffix(f' {unit}')} of {last}"


def _state(view: MemberView) -> str:
    state = "online" if view.online else f"silent for {duration_text(view.silent_seconds)}"
    if not view.member.reachable:
        state += ", cannot be reached"
    return f"{state} (see below)" if view.problem else state
