"""The table of hosts, and texts about their connections."""

from __future__ import annotations

from paglets.api.hosts import BrokenLink, Hosts, MeshHostView, RefusedHost
from paglets.cli.output import adapt_commands, print_paragraph, print_table, say
from paglets.cli.views.offline_hosts import forget_hint, is_alone, is_long_offline, is_superseded
from paglets.client.hosts import NOT_JOINED, has_not_joined, is_long_known, last_contact_text, offline_seconds
from paglets.core.terminal import GAP, put_hint
from paglets.core.text import duration_text
from paglets.core.urls import is_for_this_machine
from paglets.slots.amounts import bytes_text

HEADERS = ("HOST", "STATE", "FREE CORES", "FREE MEMORY", "FREE DISK", "FREE GPUS")


def print_hosts(state: Hosts) -> None:
    """Print the table of hosts and, below it, superseded hosts, connection problems and hints."""
    views = state.hosts
    shown = [view for view in views if not is_superseded(view)]
    print_table(
        HEADERS, [host_row(view, is_alone=is_alone(views)) for view in shown], below=[*map(details_text, shown)]
    )
    for view in views:
        if is_superseded(view):
            print_paragraph(f"{view.host.name}, {last_contact_text(view)}: {adapt_commands(view.problem)}", "")
        elif view.problem:
            say(f"{view.host.name}: {view.problem}")
    for peer in state.peers:
        say(f"not joined: peer {peer.url}: {peer.problem.removeprefix(peer.url).strip()}")
    for text in (*map(link_text, other_broken_links(state)), *map(refused_text, state.refused)):
        say(text)
    away = [view.host.name for view in shown if is_long_offline(view)]
    if away:
        put_hint(forget_hint(away))
    if len(views) == 1 and not state.peers:
        put_hint(add_host_hint(views[0].host.url))


def add_host_hint(only_url: str) -> str:
    """Return a hint about adding a second host to the mesh of the only host, which has this URL."""
    if is_for_this_machine(only_url):
        return "restart this host with `--bind-public auto` so that hosts on other machines can join it"
    return f"copy the mesh key to another machine, and run `paglets host --bind-public auto --peer {only_url}` there"


def other_broken_links(state: Hosts) -> tuple[BrokenLink, ...]:
    """Return the broken connections, except those of the asked host that a host's `problem` already describes."""
    own, described = state.hosts[0], {view.host.name for view in state.hosts if view.problem}
    return tuple(
        link
        for link in state.broken_links
        if not (link.source == own.host.name and link.target in described)
        and not (link.target == own.host.name and own.problem)
    )


def link_text(link: BrokenLink) -> str:
    """Return a text such as `w1 cannot connect to w2 (3 min)`."""
    return f"{link.source} cannot connect to {link.target} ({duration_text(link.seconds)})"


def refused_text(host: RefusedHost) -> str:
    """Return the message that a host with another mesh key tried to join."""
    return f"refused a host at {host.address}: wrong mesh key (last {duration_text(host.seconds)} ago)"


def host_row(view: MeshHostView, *, is_alone: bool = False) -> tuple[object, ...]:
    """Return the table row of a host. It shows how much of each resource that the host offers to jobs is free."""
    member, free, offered = view.host, view.host.free, view.host.capacity
    return (
        member.name,
        _state(view, is_alone),
        f"{free.cpu_cores} of {offered.cpu_cores}",
        part_text(free.memory_bytes, offered.memory_bytes),
        part_text(free.temp_storage_bytes, offered.temp_storage_bytes),
        f"{free.gpus} of {offered.gpus}" if offered.gpus else "",
    )


def details_text(view: MeshHostView) -> str:
    """Return the line below a host's table row: URL, number of jobs, tags and properties."""
    member = view.host
    properties = [f"{key}={value}" for key, value in sorted(member.properties.items())]
    parts = [
        member.url,
        f"{member.running_jobs} running, {member.queued_jobs} queued",
        f"tags {', '.join(member.tags)}" if member.tags else "",
        f"properties {', '.join(properties)}" if properties else "",
    ]
    return GAP.join(part for part in parts if part)


def part_text(part: int, whole: int) -> str:
    """Return a text such as `22.7 of 23.5 GiB`, or `900 MiB of 23.5 GiB` if the units differ."""
    first, last = bytes_text(part), bytes_text(whole)
    unit = last.partition(" ")[2]
    return f"{first.removesuffix(f' {unit}')} of {last}"


def _state(view: MeshHostView, is_alone: bool) -> str:
    if has_not_joined(view) or (is_alone and not view.online):
        state = NOT_JOINED
    else:
        is_known = view.was_seen or is_long_known(view)
        offline = f"offline for {duration_text(offline_seconds(view))}" if is_known else "not seen yet"
        state = "online" if view.online else offline
    if not view.host.reachable:
        state += ", pulls requests"
    return f"{state} (see below)" if view.problem else state
