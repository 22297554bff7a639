"""`paglets mesh`: list the hosts of the mesh, or remove a lost one."""

from __future__ import annotations

import argparse

from paglets.api.groups import GroupLine
from paglets.api.hosts import Forgotten
from paglets.cli.options import LOOK_SECONDS, Parser, add_command, add_commands, add_common, client_of
from paglets.cli.output import print_json, say
from paglets.cli.views.hosts import print_hosts
from paglets.cli.views.offline_hosts import first_few
from paglets.client.host_removal import ForgottenHost, shown
from paglets.core.errors import EXIT_DONE
from paglets.core.terminal import put_next
from paglets.core.text import counted

MOST_NAMED = 10
"""The maximum number of groups without a collector that `mesh forget` names."""


def parser() -> Parser:
    made = Parser(prog="paglets mesh", description="List the hosts of the mesh, or remove a lost one.")
    commands = add_commands(made)
    add_common(add_command(commands, "hosts", "list the hosts of the mesh, as one of them sees them"), _hosts)
    forget = add_command(
        commands,
        "forget",
        "remove a host that will not come back, so that nothing waits for it",
        "mesh forget w1",
        "mesh forget http://10.0.0.7:8765",
        "mesh forget 7a7a12ab",
    )
    forget.add_argument("host", metavar="HOST", help="remove the host with this name, URL or (start of a) store id")
    add_common(forget, _forget)
    return made


def _forget(options: argparse.Namespace) -> int:
    with client_of(options) as client:
        groups, _ = client.mesh_groups(LOOK_SECONDS)
        done = client.forget_host(options.host)
    lost = [line for line in groups if line.collector.host.store_id == done.store_id and not line.here]
    if options.json:
        print_json({**forget_json(done), "lost_groups": [line.group_id for line in lost]})
    else:
        for answer in done.answers:
            print(f"{answer.host.name}: {forget_text(answer)}")
        for group_id in sorted({group_id for answer in done.answers for group_id in answer.files_kept}):
            put_next(f"paglets artifacts get --group {group_id} DIR")
    if done.others:
        others = ", ".join(shown(view) + (", online" if view.online else "") for view in done.others)
        say(f"several hosts are named {options.host}: removed {done.which}; kept {others}")
    for line in lost[:MOST_NAMED]:
        say(lost_group_text(line))
    if lost:
        rest = len(lost) - MOST_NAMED
        more = f" ({counted(rest, 'more group is', 'more groups are')} lost)" if rest > 0 else ""
        named = lost[0].group_id
        put_next(f"paglets jobs groups {named} shows what other hosts have of the group{more}")
        put_next(f"paglets artifacts get --group {named} DIR fetches its files")
        put_next(f"paglets jobs cancel {named} clears it")
    for error in done.errors:
        say(error)
    if done.unreachable:
        say(f"not removed on offline hosts: {first_few(done.unreachable)}; run this again when they are back")
    return max((error.exit_code for error in done.errors), default=EXIT_DONE)


def lost_group_text(line: GroupLine) -> str:
    """Return the message that a group lost its collector, with its last counts and the number of waiting reports."""
    counts = "no counts known"
    if line.counted_at is not None:
        counts = f"last counts: {line.completed_count} done, {line.failed_count} failed of {line.expected_count}"
    wait = f"; {counted(line.waiting_reports, 'finished report')} on other hosts" if line.waiting_reports else ""
    return f"group {line.group_id} lost its collector ({counts}){wait}"


def forget_json(done: ForgottenHost) -> dict[str, object]:
    """Return the outcome of `mesh forget` as JSON."""
    return {
        "store_id": done.store_id,
        "name": done.name,
        "others": [
            {"store_id": view.host.store_id, "url": view.host.url, "online": view.online} for view in done.others
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
        "unreachable": [*(error.message for error in done.errors), *done.unreachable],
    }


def forget_text(answer: Forgotten) -> str:
    """Return a text about the removal of a host by another: paglets taken back, moves dropped, files kept."""
    parts = ["removed" if answer.known else "did not know it"]
    if answer.taken_back:
        parts.append(f"took back {counted(answer.taken_back, 'paglet')} in transfer")
    if answer.moves_dropped:
        parts.append(f"dropped {counted(answer.moves_dropped, 'move')} to it")
    parts += [f"kept {counted(count, 'file')} of group {name}" for name, count in sorted(answer.files_kept.items())]
    return ", ".join(parts)


def _hosts(options: argparse.Namespace) -> int:
    with client_of(options) as client:
        state = client.mesh_state()
    if options.json:
        print_json(state)
    else:
        print_hosts(state)
    return EXIT_DONE
