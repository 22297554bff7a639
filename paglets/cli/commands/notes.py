"""`paglets notes`: show messages that jobs and paglets sent to their user."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime

from paglets.api.notes import Note
from paglets.cli.options import LOOK_SECONDS, Parser, add_common, client_of, count
from paglets.cli.output import (
    notice_if_slow,
    print_json,
    print_table,
    say,
    waiting_for_all,
)
from paglets.cli.views.offline_hosts import missing_hosts
from paglets.client.directory import MeshNotes
from paglets.client.host_client import HostClient
from paglets.core.errors import Invalid, PagletsError
from paglets.core.record import to_json
from paglets.core.refs import check_group_id
from paglets.core.text import printable

FOLLOW_SECONDS = 1.0
MOST_NOTES = 1_000
HEADERS = ("TIME", "LEVEL", "FROM", "HOST", "NOTE")


def parser() -> Parser:
    made = Parser(
        prog="paglets notes",
        description="Show messages that jobs and paglets sent with notify_user(), newest last. A note goes to the home "
        "of its paglet, the host where it was created; this command reads all online hosts.",
        epilog="examples:\n  paglets notes --group words\n  paglets notes --follow",
    )
    made.add_argument("--group", metavar="GROUP", help="show only notes of this group's jobs")
    made.add_argument("--limit", type=count, default=100, metavar="N", help="show the newest N notes (default: 100)")
    made.add_argument("--follow", action="store_true", help="keep showing new notes until interrupted")
    add_common(made, _notes, asks_all=True)
    return made


def _notes(options: argparse.Namespace) -> int:
    if options.limit > MOST_NOTES:
        raise Invalid(f"--limit {options.limit} is not between 1 and {MOST_NOTES}")
    group_id = check_group_id(options.group) if options.group else None
    seconds = options.timeout or LOOK_SECONDS
    with client_of(options) as client:
        with notice_if_slow(waiting_for_all(seconds)):
            found = client.notes(group_id=group_id, limit=options.limit, timeout=seconds)
            missing = missing_hosts(client.hosts(), found.errors)
        missing.say(is_empty=group_id is not None and not found.notes)
        if options.follow:
            _follow(client, found, group_id, seconds, as_json=options.json)
    if options.json:
        print_json({"notes": found.notes, "unreachable": missing.lines()})
    elif found.notes:
        print_table(HEADERS, [_row(note) for note in found.notes])
    else:
        say(missing.none_of(f"notes of {group_id}" if group_id else "notes"))
    return missing.exit_code


def _follow(client: HostClient, found: MeshNotes, group_id: str | None, timeout: float, *, as_json: bool) -> None:
    """Print old and new notes until interrupted, each on a line, as text or JSON."""
    for note in follow(client, found, group_id, timeout=timeout):
        print(json.dumps(to_json(note)) if as_json else note_line(note), flush=True)


def follow(
    client: HostClient,
    found: MeshNotes,
    group_id: str | None,
    *,
    timeout: float = LOOK_SECONDS,
    pause: Callable[[float], None] = time.sleep,
) -> Iterator[Note]:
    """Yield the notes in `found`, then new notes without end. Hosts that do not answer are asked again."""
    while True:
        yield from found.notes
        found = replace(found, notes=())
        pause(FOLLOW_SECONDS)
        try:
            found = client.notes(group_id=group_id, limit=MOST_NOTES, seen=found.seen, timeout=timeout)
        except PagletsError as error:
            if not error.retryable:
                raise


def note_line(note: Note) -> str:
    return printable("  ".join(str(cell) for cell in _row(note)))


def _row(note: Note) -> tuple[object, ...]:
    return (_time(note.at), note.level, sender_text(note), note.host_name, note.text)


def _time(at: float) -> str:
    """Return the time of a note as local date and time.

    A time that is out of range is returned as a number, because it comes from another host and may be wrong.
    """
    try:
        return datetime.fromtimestamp(at).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return f"{at:g}"


def sender_text(note: Note) -> str:
    """Return the sender of a note: GROUP/JOBKEY for a job, else the paglet's name or id."""
    return f"{note.group_id}/{note.job_key}" if note.group_id else note.name or note.agent_id
