"""`paglets mesh`: the hosts that know each other."""

from __future__ import annotations

import argparse

from paglets.api.groups import GroupLine
from paglets.api.hosts import Forgotten
from paglets.cli.options import LOOK_SECONDS, Parser, add_command, add_commands, add_common, client_of
from paglets.cli.output import print_json, say
from paglets.cli.views.hosts import print_hosts
from paglets.cli.views.offline_hosts import shortlist
from paglets.client.host_removal import ForgottenHost, shown
from paglets.core.errors import EXIT_DONE
from paglets.core.terminal import put_next
from paglets.core.text import counted

MOST_NAMED = 10
"""Groups whose collector is lost."""


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
        print_json({**forget_json(done), "lost_groups": [line.group_id for line in lost]})
    else:
        for answer in done.answers:
            print(f"{answer.host.name}: {did(answer)}")
        for group_id in sorted({group_id for answer in done.answers for group_id in answer.files_kept}):
            put_next(f"paglets artifacts get --group {group_id} DIR")
    if done.others:
        others = ", ".join(shown(view) + (", online" if view.online else "") for view in done.others)
        say(f"of the hosts that are called {options.host} this one was forgotten: {done.which}; and not: {others}")
    for line in lost[:MOST_NAMED]:
        say(lost_group_text(line))
    if lost:
        more = f" (and {len(lost) - MOST_NAMED:,} more)" if len(lost) > MOST_NAMED else ""
        named = lost[0].group_id
        say(f"what other hosts have of such a group{more}: `paglets jobs groups {named}`")
        say(f"their files: `paglets artifacts get --group {named} DIR`; clear it: `paglets jobs cancel {named}`")
    for error in done.errors:
        say(error)
    if done.unreachable:
        say(f"offline and not told: {shortlist(done.unreachable)}; run the same command when they are back")
    return max((error.exit_code for error in done.errors), default=EXIT_DONE)


def lost_group_text(line: GroupLine) -> str:
    """Say that a group lost its collector, and how much of it other hosts have."""
    counts = "never counted"
    if line.counted_at is not None:
        counts = f"last counted: {line.completed_count} done, {line.failed_count} failed of {line.expected_count}"
    wait = f"; {counted(line.waiting_reports, 'finished report')} on other hosts" if line.waiting_reports else ""
    return f"group {line.group_id} lost its collector ({counts}){wait}"


def forget_json(done: ForgottenHost) -> dict[str, object]:
    """The JSON of it."""
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
