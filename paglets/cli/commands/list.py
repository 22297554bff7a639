"""`paglets list`: list all paglets on the hosts of the mesh."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable
from typing import Any

from paglets.api.paglets import PagletView
from paglets.cli.options import LOOK_SECONDS, Parser, add_common, client_of
from paglets.cli.output import notice_if_slow, print_json, print_table, say, waiting_for_all
from paglets.cli.views.offline_hosts import missing_hosts
from paglets.cli.views.wait_reasons import wait_reason_text
from paglets.core.text import duration_text

HEADERS = ("GROUP", "JOB", "KIND", "NAME", "CLASS", "HOST", "STATUS", "AGE", "ID", "WHY")


def parser() -> Parser:
    made = Parser(
        prog="paglets list",
        description="List the jobs, collectors and other paglets on all hosts, by group. A paglet that is moving "
        "between hosts is not listed.",
    )
    add_common(made, _list, asks_all=True)
    return made


def _list(options: argparse.Namespace) -> int:
    seconds = options.timeout or LOOK_SECONDS
    with client_of(options) as client, notice_if_slow(waiting_for_all(seconds)):
        views, errors = client.paglets(timeout=seconds)
        missing = missing_hosts(client.hosts(), errors)
    now = time.time()
    if options.json:
        print_json({"paglets": [_json(view, now) for view in views], "unreachable": missing.lines()})
    elif views:
        print_table(HEADERS, rows(views, now))
    else:
        say(missing.none_of("paglets"))
    missing.say()
    return missing.exit_code


def status_of(view: PagletView) -> str:
    """Return the status of a job. For a paglet that is not a job, return the name of the next hook.

    If no hook is pending, return `active` or `inactive`.
    """
    if view.job is not None:
        return view.job.status
    return view.hook or ("inactive" if view.inactive else "active")


def _age(view: PagletView, now: float) -> float:
    """Return the age in seconds, at least 0: the time of creation comes from another machine's clock."""
    return max(0.0, now - view.created_at)


def _by_group(view: PagletView) -> tuple[bool, str, str, str]:
    return (view.group_id is None, view.group_id or "", _job_key(view), view.agent_id)


def _job_key(view: PagletView) -> str:
    return "" if view.job is None else view.job.job_key


def rows(views: Iterable[PagletView], now: float) -> list[tuple[object, ...]]:
    """Return the table rows, sorted by group. A collector precedes its jobs; paglets without a group come last."""
    return [_row(view, now) for view in sorted(views, key=_by_group)]


def _row(view: PagletView, now: float) -> tuple[object, ...]:
    """Return the table row of one paglet. A job or a collector of a group is shown without its id."""
    job = view.job
    reason = view.reason or ("" if job is None else wait_reason_text(job.reason, job.reason_text, never=job.never))
    return (
        view.group_id or "",
        _job_key(view),
        view.kind,
        view.name or "",
        view.class_name,
        view.host.name,
        status_of(view),
        duration_text(_age(view, now)),
        "" if view.group_id else view.agent_id,
        reason,
    )


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
        "group_id": view.group_id,
        "job_key": None if job is None else job.job_key,
        "created_at": view.created_at,
        "age_seconds": round(_age(view, now), 3),
        "reason": view.reason,
    }
