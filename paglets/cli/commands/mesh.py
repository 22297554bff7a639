"""`paglets mesh`: the hosts that know each other."""

from __future__ import annotations

import argparse

from paglets.api.groups import GroupLine
from paglets.api.hosts import Cut, Forgotten, Hosts, MemberView, RefusedHost
from paglets.cli.options import LOOK_SECONDS, Parser, add_command, add_commands, add_common, client_of
from paglets.cli.output import advised, print_json, print_paragraph, print_table, say
from paglets.cli.views.offline_hosts import forget_hint, is_alone, is_long_away, is_old, shortlist
from paglets.client.host_removal import ForgottenHost, shown
from paglets.client.hosts import NOT_JOINED, has_not_joined, is_long_known, last_contact_text, offline_seconds
from paglets.core.errors import EXIT_DONE
from paglets.core.terminal import GAP, put_hint, put_next
from paglets.core.text import counted, duration_text
from paglets.core.urls import is_for_this_machine
from paglets.slots.amounts import bytes_text

MOST_NAMED = 10
"""Groups whose collector is lost."""

HEADERS = ("HOST", "STATE", "FREE CORES", "FREE MEMORY", "FREE DISK", "FREE GPUS")


def parser() -> Parser:
    made = Parser(prog="paglets mesh", description="The hosts that know each other.")
    commands = add_commands(made)
    add_common(add_command(commands, "hosts", "the hosts of the mesh, as one of them sees them"), _hosts)
    forget = add_command(
        commands,
        "forget",
        "a host that is gone for good: nothing waits for it any more",
        "mesh forget w1",
        "mesh forget http://10.0.0.7:8765",
        "mesh forget 7a7a12ab",
    )
    forget.add_argument("host", metavar="HOST", help="its name, its URL, or its store id or how that begins")
    add_common(forget, _forget)
    return made


def _forget(options: argparse.Namespace) -> int:
    with client_of(options) as client:
        groups, _ = client.mesh_groups(LOOK_SECONDS)
        done = client.forget_host(options.host)
    lost = [line for line in groups if line.collector.host.store_id == done.store_id and not line.here]
    if options.json:
        print_json({**forgotten_tree(done), "lost_groups": [line.group_id for line in lost]})
    else:
        for answer in done.answers:
            print(f"{answer.host.name}: {did(answer)}")
        for group_id in sorted({group_id for answer in done.answers for group_id in answer.files_kept}):
            put_next(f"paglets artifacts get --group {group_id} DIR")
    if done.others:
        others = ", ".join(shown(view) + (", online" if view.online else "") for view in done.others)
        say(f"of the hosts that are called {options.host} this one was forgotten: {done.which}; and not: {others}")
    for line in lost[:MOST_NAMED]:
        say(lost_line(line))
    if lost:
        more = f" (and {len(lost) - MOST_NAMED:,} more)" if len(lost) > MOST_NAMED else ""
        named = lost[0].group_id
        say(f"what other hosts have of such a group{more}: `paglets jobs groups {named}`")
        say(f"their files: `paglets artifacts get --group {named} DIR`; clear it: `paglets jobs cancel {named}`")
    for error in done.errors:
        say(error)
    if done.silent:
        say(f"offline and not told: {shortlist(done.silent)}; run the same command when they are back")
    return max((error.exit_code for error in done.errors), default=EXIT_DONE)


def lost_line(line: GroupLine) -> str:
    """Say that a group lost its collector, and how much of it other hosts have."""
    counts = "never counted"
    if line.counted_at is not None:
        counts = f"last counted: {line.completed_count} done, {line.failed_count} failed of {line.expected_count}"
    wait = f"; {counted(line.waiting_reports, 'finished report')} on other hosts" if line.waiting_reports else ""
    return f"group {line.group_id} lost its collector ({counts}){wait}"


def forgotten_tree(done: ForgottenHost) -> dict[str, object]:
    """The JSON of it."""
    return {
        "store_id": done.store_id,
        "name": done.name,
        "others": [
            {"store_id": view.member.store_id, "url": view.member.url, "online": view.online} for view in done.others
        ],
        "hosts": [
            {
                "host": answer.host.name,
                "known": answer.known,
                "taken_back": answer.taken_back,
                "moves_dropped": answer.moves_dropped,
                "files_kept": answer.files_kept,
            }
            for answer in done.answers
        ],
        "silent": [*(error.message for error in done.errors), *done.silent],
    }


def did(answer: Forgotten) -> str:
    """What a host did about one that is to be forgotten, in words."""
    parts = ["forgotten" if answer.known else "did not know it"]
    if answer.taken_back:
        parts.append(f"{counted(answer.taken_back, 'paglet')} on the way there came back")
    if answer.moves_dropped:
        parts.append(f"{counted(answer.moves_dropped, 'move')} there dropped")
    parts += [
        f"{counted(count, 'file')} of group {name} kept here" for name, count in sorted(answer.files_kept.items())
    ]
    return ", ".join(parts)


def _hosts(options: argparse.Namespace) -> int:
    with client_of(options) as client:
        state = client.mesh_state()
    if options.json:
        print_json(state)
    else:
        print_hosts(state)
    return EXIT_DONE


def print_hosts(state: Hosts) -> None:
    """A table of the hosts; below it what is left of others, and what is wrong with whom."""
    views = state.hosts
    shown = [view for view in views if not is_old(view)]
    print_table(HEADERS, [host_row(view, is_alone=is_alone(views)) for view in shown], below=[*map(about, shown)])
    for view in views:
        if is_old(view):
            print_paragraph(f"{view.member.name}, {last_contact_text(view)}: {advised(view.problem)}", "")
        elif view.problem:
            say(f"{view.member.name}: {view.problem}")
    for peer in state.peers:
        say(f"not joined: peer {peer.url}: {peer.problem.removeprefix(peer.url).strip()}")
    for text in (*map(cut_text, other_cuts(state)), *map(refused_text, state.refused)):
        say(text)
    away = [view.member.name for view in shown if is_long_away(view)]
    if away:
        put_hint(forget_hint(away))
    if len(views) == 1 and not state.peers:
        put_hint(add_host_hint(views[0].member.url))


def add_host_hint(only_url: str) -> str:
    """Return how another host joins the only one, which has this URL."""
    if is_for_this_machine(only_url):
        return "restart this host with `--bind-public auto`, then hosts on other machines can join it"
    return f"copy the mesh key to another machine, then run `paglets host --bind-public auto --peer {only_url}` there"


def other_cuts(state: Hosts) -> tuple[Cut, ...]:
    """The cuts of which no problem of a host tells already, as those of the host that was asked do."""
    own, told = state.hosts[0], {view.member.name for view in state.hosts if view.problem}
    return tuple(
        cut
        for cut in state.cuts
        if not (cut.source == own.member.name and cut.target in told)
        and not (cut.target == own.member.name and own.problem)
    )


def cut_text(cut: Cut) -> str:
    """In words."""
    return f"{cut.source} cannot connect to {cut.target} ({duration_text(cut.seconds)})"


def refused_text(host: RefusedHost) -> str:
    """In words."""
    return f"a host at {host.address} was refused: wrong mesh key (last {duration_text(host.seconds)} ago)"


def host_row(view: MemberView, *, is_alone: bool = False) -> tuple[object, ...]:
    """A line under HEADERS. The amounts are what is free of what is offered."""
    member, free, offered = view.member, view.member.free, view.member.capacity
    return (
        member.name,
        _state(view, is_alone),
        f"{free.cpu_cores} of {offered.cpu_cores}",
        part_text(free.memory_bytes, offered.memory_bytes),
        part_text(free.temp_storage_bytes, offered.temp_storage_bytes),
        f"{free.gpus} of {offered.gpus}" if offered.gpus else "",
    )


def about(view: MemberView) -> str:
    """What stands below that line: where the host is, what it does, and what it says of itself."""
    member = view.member
    properties = [f"{key}={value}" for key, value in sorted(member.properties.items())]
    parts = [
        member.url,
        f"{member.running_jobs} running, {member.queued_jobs} queued",
        f"tags {', '.join(member.tags)}" if member.tags else "",
        f"properties {', '.join(properties)}" if properties else "",
    ]
    return GAP.join(part for part in parts if part)


def part_text(part: int, whole: int) -> str:
    """`22.7 of 23.5 GiB`, and `900 MiB of 23.5 GiB`."""
    first, last = bytes_text(part), bytes_text(whole)
    unit = last.partition(" ")[2]
    return f"{first.removesuffix(f' {unit}')} of {last}"


def _state(view: MemberView, is_alone: bool) -> str:
    if has_not_joined(view) or (is_alone and not view.online):
        state = NOT_JOINED
    else:
        is_known = view.heard or is_long_known(view)
        offline = f"offline for {duration_text(offline_seconds(view))}" if is_known else "not heard of yet"
        state = "online" if view.online else offline
    if not view.member.reachable:
        state += ", pulls"
    return f"{state} (see below)" if view.problem else state
