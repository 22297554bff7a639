"""`paglets list`: all paglets on the hosts of the mesh."""

from __future__ import annotations

import argparse
import time
from typing import Any

from paglets.api.paglets import PagletView
from paglets.cli.away import offline_names
from paglets.cli.options import LOOK_SECONDS, Parser, add_common, client_of
from paglets.cli.output import print_json, print_table, said_if_slow, say_silent, silent_lines, waiting_for_all
from paglets.core.errors import EXIT_DONE, EXIT_UNREACHABLE
from paglets.core.text import duration_text

HEADERS = ("ID", "NAME", "CLASS", "HOST", "STATUS", "AGE", "WHY")


def parser() -> Parser:
    made = Parser(
        prog="paglets list",
        description="All paglets on the hosts of the mesh: jobs, collectors and others. One that is just on its way "
        "from one host to another is on neither.",
    )
    add_common(made, _list, asks_all=True)
    return made


def _list(options: argparse.Namespace) -> int:
    seconds = options.timeout or LOOK_SECONDS
    with client_of(options) as client, said_if_slow(waiting_for_all(seconds)):
        views, errors = client.paglets(timeout=seconds)
        away = offline_names(client.hosts(), errors)
    now = time.time()
    if options.json:
        print_json({"paglets": [_json(view, now) for view in views], "silent": silent_lines(errors, away)})
    else:
        print_table(HEADERS, [_row(view, now) for view in views])
    say_silent(errors, away)
    return EXIT_UNREACHABLE if errors else EXIT_DONE


def status_of(view: PagletView) -> str:
    """A job's status; of another paglet whether it is `active` or `inactive`, or the hook that is due next."""
    if view.job is not None:
        return view.job.status
    return view.hook or ("inactive" if view.inactive else "active")


def _age(view: PagletView, now: float) -> float:
    """Of another machine's clock, so perhaps of the future."""
    return max(0.0, now - view.created_at)


def _row(view: PagletView, now: float) -> tuple[object, ...]:
    job = view.job
    reason = view.reason or ("" if job is None else job.reason_text or job.reason)
    age = duration_text(_age(view, now))
    return (view.agent_id, view.name or "", view.class_name, view.host.name, status_of(view), age, reason)


def _json(view: PagletView, now: float) -> dict[str, Any]:
    job = view.job
    return {
        "agent_id": view.agent_id,
        "name": view.name,
        "class_name": view.class_name,
        "kind": view.kind,
        "service": view.service,
        "host": view.host.name,
        "status": status_of(view),
        "group_id": None if job is None else job.group_id,
        "job_key": None if job is None else job.job_key,
        "created_at": view.created_at,
        "age_seconds": round(_age(view, now), 3),
        "reason": view.reason,
    }
