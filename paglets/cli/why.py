"""`paglets jobs why`: for a job that does not run, or ended badly, the reason in words and numbers."""

from __future__ import annotations

import argparse
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from paglets.api import PagletView
from paglets.cli.groups import ago, short_json, summary_of
from paglets.cli.options import client_of
from paglets.cli.output import duration_text, print_fields, print_json, print_table
from paglets.core.errors import EXIT_CANCELLED, EXIT_DONE, EXIT_FAILED, EXIT_NEVER, Unknown
from paglets.core.record import to_json
from paglets.core.refs import AGENT_ID, GROUP_ID
from paglets.core.text import printable
from paglets.remote.client import HostClient

NEVER_HINT = (
    "waiting will not help: start a host that fits, or submit it again, in another group, with other tags or amounts"
)


MOST_TAIL_LINES = 12
"""Of a traceback: enough for the frames of the user's own file. `--json` has all of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What is printed: `fields` in words, `tails` of output, `reasons` as rows, `data` as JSON; and the exit code."""

    code: int
    data: Any
    fields: dict[str, object] = field(default_factory=dict)
    reasons: tuple[tuple[object, ...], ...] = ()
    tails: tuple[str, ...] = ()


def why(options: argparse.Namespace) -> int:
    """Explain what `options.job` names."""
    with client_of(options) as client:
        explained = explain(client, options.job)
    if options.json:
        print_json(explained.data)
        return explained.code
    print_fields(explained.fields)
    for tail in explained.tails:
        print()
        print("\n".join(printable(line) for line in tail.splitlines()))
    if explained.reasons:
        print_table(("JOBS", "STATE", "HOST", "WHY", "SUCH AS"), explained.reasons)
    return explained.code


def explain(client: HostClient, selector: str) -> Explanation:
    """Of a group, `GROUP/JOBKEY` or a paglet's id. Raises Unknown where it names nothing."""
    group_id, slash, job_key = selector.partition("/")
    if slash:
        return of_key(summary_of(client, group_id), job_key)
    if GROUP_ID.fullmatch(selector):
        try:
            return of_group(summary_of(client, selector))
        except Unknown:
            if not AGENT_ID.fullmatch(selector):
                raise
    try:
        return of_paglet(client.paglet(selector))
    except Unknown as error:
        raise Unknown(f"the mesh knows no group and no job {selector!r}: `paglets jobs groups` lists groups") from error


def of_group(summary: dict[str, Any]) -> Explanation:
    """Pending jobs counted by reason, failures by cause."""
    pending = [
        (job["status"], job.get("host_name") or "", _reason(job), job["job_key"]) for job in summary["pending_jobs"]
    ]
    failed = [
        ("FAILED", record.get("host_name") or "", f"{record['cause']}: {record.get('message') or ''}", key)
        for key, record in summary["failures"].items()
    ]
    never = bool(pending) and all(job.get("never") for job in summary["pending_jobs"])
    counts = f"{summary['completed_count']} done, {summary['failed_count']} failed, {summary['pending_count']} pending"
    return Explanation(
        code=EXIT_NEVER if never else EXIT_FAILED if failed and not pending else EXIT_DONE,
        data={name: summary[name] for name in ("group_id", "status", "pending_jobs", "failures")},
        fields={
            "group": summary["group_id"],
            "status": summary["status"],
            "jobs": f"{counts} of {summary['expected_count']}",
            "next": NEVER_HINT if never else _next(summary),
        },
        reasons=(*_counted(pending), *_counted(failed)),
    )


def _next(summary: dict[str, Any]) -> str:
    if not summary.get("waiting_for_home"):
        return ""
    home = summary["home"]["host_name"]
    return f"the collector goes home when {home} is back; until then the results can be read where it is"


def _reason(job: dict[str, Any]) -> str:
    text = job.get("reason_text") or job.get("reason") or ""
    return f"never: {text}" if job.get("never") else text


def _counted(rows: list[tuple[str, str, str, str]]) -> list[tuple[object, ...]]:
    """Equal rows but for the key, most frequent first, each with its first key."""
    first: dict[tuple[str, str, str], str] = {}
    for *reason, key in rows:
        first.setdefault((reason[0], reason[1], reason[2]), key)
    counts = Counter((status, host, text) for status, host, text, _ in rows)
    return [(count, *reason, first[reason]) for reason, count in counts.most_common()]


def of_key(summary: dict[str, Any], job_key: str) -> Explanation:
    """Of one job of a group, as its collector knows it. Raises Unknown."""
    named = {"job": f"{summary['group_id']}/{job_key}"}
    if job_key in summary["results"]:
        record = summary["results"][job_key]
        return _ended(named | {"status": "COMPLETED"}, record, EXIT_DONE)
    if job_key in summary["failures"]:
        record = summary["failures"][job_key]
        cancelled = record["cause"] == "cancelled"
        status, code = ("CANCELLED", EXIT_CANCELLED) if cancelled else ("FAILED", EXIT_FAILED)
        return _ended(named | {"status": status}, record, code)
    for job in summary["pending_jobs"]:
        if job["job_key"] == job_key:
            return _pending(named, job)
    cut = " in the part of its summary that fits" if summary.get("truncated") else ""
    group_id = summary["group_id"]
    raise Unknown(f"group {group_id} has no job {job_key!r}{cut}: `paglets jobs groups {group_id}` lists its jobs")


def _ended(named: dict[str, str], record: dict[str, Any], code: int) -> Explanation:
    runtime = record.get("runtime_seconds")
    told = {
        "cause": record.get("cause"),
        "message": record.get("message"),
        "host": record.get("host_name"),
        "run": f"{record.get('generation')}.{record.get('attempt')}",
        "runtime": None if runtime is None else duration_text(runtime),
        "result": short_json(record["result"]) if "result" in record else "",
    }
    return Explanation(code=code, data={**named, **record}, fields={**named, **told}, tails=_tails(record))


def _tails(record: dict[str, Any]) -> tuple[str, ...]:
    """The last lines of the traceback, and of stderr where that ends otherwise."""
    trace, stderr = ((record.get(name) or "").strip() for name in ("traceback", "stderr_tail"))
    # The message stands above already.
    stderr = stderr.removesuffix(f"paglets: {record.get('message')}").strip()
    texts = [trace] + ([] if stderr.endswith(trace) and trace else [stderr])
    return tuple("\n".join(text.splitlines()[-MOST_TAIL_LINES:]) for text in texts if text)


def _pending(named: dict[str, str], job: dict[str, Any]) -> Explanation:
    never = bool(job.get("never"))
    return Explanation(
        code=EXIT_NEVER if never else EXIT_DONE,
        data={**named, **job},
        fields={
            **named,
            "status": job["status"],
            "host": job.get("host_name") or "",
            "why": _reason(job),
            "since": ago(job.get("since"), time.time()),
            "next": NEVER_HINT if never else "",
        },
    )


def of_paglet(view: PagletView) -> Explanation:
    """Of one copy of a job, or of any paglet, as its host tells."""
    job = view.job
    fields: dict[str, object] = {
        "id": view.agent_id,
        "class": view.class_name,
        "host": view.host.name,
        "residence": view.residence,
        "why": view.reason,
    }
    if job is not None:
        fields |= {
            "job": f"{job.group_id}/{job.job_key}" if job.group_id else job.job_key,
            "status": job.status,
            "run": f"{job.generation}.{job.attempt}",
            "why": _reason({"reason_text": job.reason_text, "reason": job.reason, "never": job.never}),
            "waited": duration_text(job.waited_seconds),
            "running": duration_text(job.running_seconds) if job.running_seconds else "",
            "next": NEVER_HINT if job.never else "",
        }
    return Explanation(code=EXIT_NEVER if job and job.never else EXIT_DONE, data=to_json(view), fields=fields)
