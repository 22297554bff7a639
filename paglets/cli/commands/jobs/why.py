"""The handler of `paglets jobs why`: the reasons why jobs wait, failed or were cancelled."""

from __future__ import annotations

import argparse
import shlex
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from paglets.api.hosts import MeshHostView
from paglets.api.paglets import PagletView
from paglets.api.slots import Slots
from paglets.cli.collectors import collector_caller, summary_of_job, unknown_job
from paglets.cli.job_copies import REPORT_WAITS, copies_of_group, copy_of_job, hooks_of_group, kept_of, next_steps_text
from paglets.cli.options import LOOK_SECONDS, client_of
from paglets.cli.output import adapt_commands, ago, attempt_text, print_json, shortened
from paglets.cli.views.explanation import Explanation, count_reasons, print_explained
from paglets.cli.views.groups import counts_text
from paglets.cli.views.hooks import hook_fields, hooks_json, undelivered_fields, with_group_hooks
from paglets.cli.views.job_records import is_cancelled, message_of, result_fields, why_ended
from paglets.cli.views.offline_hosts import offline_text
from paglets.cli.views.wait_reasons import LACKING, holders_text, job_name, wait_reason_text
from paglets.client.fan_out import ask_all, returning_errors
from paglets.client.host_client import HostClient
from paglets.client.hosts import views_by_name
from paglets.client.orphaned_groups import newest_reports
from paglets.client.undelivered import MeshUndelivered
from paglets.core.errors import EXIT_CANCELLED, EXIT_DONE, EXIT_FAILED, EXIT_NEVER, PagletsError, Unknown, Unreachable
from paglets.core.messages import Message
from paglets.core.record import to_json
from paglets.core.refs import AGENT_ID, GROUP_ID
from paglets.core.text import command_name, duration_text
from paglets.slots.eligibility import remedy
from paglets.slots.states import FINAL

ENDED = (*FINAL, "FAILED")
"""The statuses of ended jobs in records and copies."""

MOST_TAIL_LINES = 12
"""The maximum number of lines of a traceback or of stderr: enough for the user's frames. `--json` prints all lines."""

MOST_JOBS = 256
"""The maximum number of jobs in a host's answer. Running jobs come first, and a host rarely runs more of them."""

HELD_SECONDS = 3.0
"""The timeout for asking a host which jobs hold its resources. The explanation is useful without this answer."""

Holders = Mapping[tuple[str, str], str]
"""By (host, reason code): a text that names the jobs that hold the lacking resource, or says the host is offline."""


def why(options: argparse.Namespace) -> int:
    """Explain the state of the group or job `options.job`."""
    with client_of(options) as client:
        explained = explain(client, options.job)
    if options.json:
        print_json(explained.data)
    else:
        print_explained(explained)
    return explained.code


def explain(client: HostClient, selector: str) -> Explanation:
    """Explain a group, a job (`GROUP/JOBKEY`) or a paglet (by id). Raises Unknown, Unreachable."""
    group_id, slash, job_key = selector.partition("/")
    if slash:
        try:
            summary = summary_of_job(client, group_id, job_key)
        except (Unreachable, Unknown) as error:
            return with_hooks(client, explain_copy(client, group_id, job_key, error), group_id, job_key)
        return with_hooks(client, explain_job(client, summary, job_key), group_id, job_key)
    nothing: PagletsError | None = None
    if GROUP_ID.fullmatch(selector):
        try:
            summary = collector_caller(client, selector)(Message("reasons"))
            waits = map(_wait, summary["pending_reasons"])
            told = _explain_group(summary, lease_holders(client, waits, summary["collector"]["host_name"]))
            hooks = hooks_of_group(client, summary)
            data = {**told.data, **({"hooks": hooks_json(hooks)} if hooks else {})}
            return replace(told, data=data, fields=with_group_hooks(told.fields, hooks))
        except (Unreachable, Unknown) as error:
            if isinstance(error, Unreachable) or not AGENT_ID.fullmatch(selector):
                return _explain_copies(client, selector, error)
            nothing = error
    try:
        return explain_paglet(client, client.paglet(selector))
    except Unknown as error:
        if nothing is not None:
            return _explain_copies(client, selector, nothing)
        hint = ["paglets jobs groups lists the groups"]
        raise Unknown(f"the mesh knows no group and no job {selector!r}", hint=hint) from error


def with_hooks(
    client: HostClient, told: Explanation, group_id: str, job_key: str, kept: MeshUndelivered | None = None
) -> Explanation:
    """Return the explanation `told` with the failed hooks of the finished job, or else its pending hooks and moves.

    `kept`: these hooks and moves; None: ask the hosts for them, if the job has ended.
    """
    if kept is None and told.data.get("status") not in ENDED:
        return told
    kept = kept or kept_of(client, group_id, job_key)
    if not kept.hooks:
        return replace(told, fields={**told.fields, **undelivered_fields(kept.undelivered)})
    count = sum(file.owner == kept.hooks[0].agent_id for file in kept.files)
    return replace(
        told,
        code=told.code or EXIT_FAILED,
        data={**told.data, "hooks": hooks_json(kept.hooks)},
        fields={**told.fields, **hook_fields(kept.hooks, count)},
        tails=(*told.tails, *(last_lines(hook.traceback) for hook in kept.hooks if hook.traceback)),
    )


def explain_copy(client: HostClient, group_id: str, job_key: str, error: PagletsError) -> Explanation:
    """Explain a job whose collector is unreachable, from its waiting report or its newest copy.

    `error`: the error of the request to the collector. It is raised if no host has a report or copy.
    """
    ended = _explain_waiting_report(client, group_id, job_key, error)
    if ended is not None:
        return ended
    entry = copy_of_job(client, group_id, job_key)
    if entry is None:
        if isinstance(error, Unknown):
            raise error
        nowhere = f"no reachable host has a copy of {group_id}/{job_key}"
        raise type(error)(f"{error.message}; {nowhere}", **error.details) from None
    named = {"job": f"{group_id}/{job_key}"}
    told = _explain_pending(named, entry, lease_holders(client, [_wait(entry)]))
    fields = {name: value for name, value in told.fields.items() if name not in ("since", "next")}
    fields |= {"collector": adapt_commands(error.message), "next": next_steps_text(group_id, [entry], error)}
    return replace(told, data={**told.data, "collector": error.message}, fields=fields)


def _explain_waiting_report(client: HostClient, group_id: str, job_key: str, error: PagletsError) -> Explanation | None:
    """Explain an ended job from its report that waits for the collector. Return None if no host has such a report."""
    left = client.orphaned_group(group_id, timeout=LOOK_SECONDS)
    found = newest_reports(client.waiting_reports(left, job_key)).get(job_key)
    if found is None:
        return None
    host, report = found
    record = {**report.record, "host_name": host.name}
    done = report.kind == "result"
    named = {"job": f"{group_id}/{job_key}", "status": "COMPLETED" if done else _failure_status(record)}
    told = _explain_ended(named, record, EXIT_DONE if done else EXIT_CANCELLED if is_cancelled(record) else EXIT_FAILED)
    more = {
        "why": REPORT_WAITS,
        "files": ", ".join(f"{each.name} ({each.artifact_id})" for each in report.artifacts),
        "collector": adapt_commands(error.message),
        "next": next_steps_text(group_id, [{"status": "COMPLETED"}], error),
    }
    data = {"collector": error.message, "reason_text": REPORT_WAITS, "files": to_json(report.artifacts)}
    return replace(told, data={**told.data, **data}, fields={**told.fields, **more})


def _explain_copies(client: HostClient, group_id: str, error: PagletsError) -> Explanation:
    """Explain a group from the copies of its jobs on reachable hosts. Raises `error` if there are none."""
    entries, code = copies_of_group(client, group_id)
    if not entries:
        raise error
    held = lease_holders(client, map(_wait, entries))
    rows = [(each["status"], each["host_name"], _reason(each, held), each["job_key"], 1) for each in entries]
    return Explanation(
        code=code,
        data={"group_id": group_id, "status": "", "pending_jobs": entries, "collector": error.message},
        fields={
            "group": group_id,
            "collector": adapt_commands(error.message),
            "next": next_steps_text(group_id, entries, error),
        },
        reasons=tuple(count_reasons(rows)),
    )


def _wait(job: dict[str, Any]) -> tuple[str, str]:
    """Return the host where a job waits, and its reason code."""
    return job.get("host_name") or "", job.get("reason") or ""


def lease_holders(client: HostClient, waits: Iterable[tuple[str, str]], collector: str = "") -> Holders:
    """Return a text about the holders of the lacking resource for each (host, reason code) in `waits`.

    For an offline host, the text says that it is offline. Hosts that do not answer are omitted, because the reason of
    the job already says how much is free. `collector`: the name of the collector's host, which resubmits jobs of lost
    hosts.
    """
    waiting = tuple(dict.fromkeys(waits))
    views = views_by_name(client.hosts())
    unreachable = [key for key in waiting if key[0] in views and not views[key[0]].online]
    lost_after = _lost_after(client, views.get(collector)) if unreachable else None
    away = {key: offline_text(views[key[0]], lost_after) for key in unreachable}
    asked = [key for key in waiting if key[1] in LACKING and key[0] in views and key not in away]
    names = list(dict.fromkeys(host for host, _ in asked))
    most_seconds = min(HELD_SECONDS, client.timeout) if names else 0.0
    answers = ask_all(
        returning_errors(lambda name: client.slots(limit=MOST_JOBS, host=name, timeout=most_seconds)), names
    )
    known = {name: slots for name, slots in zip(names, answers, strict=True) if isinstance(slots, Slots)}
    return {**away, **{(host, code): holders_text(known[host], code) for host, code in asked if host in known}}


def _lost_after(client: HostClient, collector: MeshHostView | None) -> float | None:
    """Return the seconds without contact after which the collector's host declares a host lost, or None if unknown."""
    if collector is None or not collector.online:
        return None
    with suppress(PagletsError):
        return client.identity(collector.host.ref).host_lost_after_seconds
    return None


def _explain_group(summary: dict[str, Any], held: Holders) -> Explanation:
    """Explain a group: pending jobs by reason, failures by cause. `summary`: the collector's reply to `reasons`."""
    waits, failures = summary["pending_reasons"], summary["failure_reasons"]
    pending = [
        (each["status"], each["host_name"] or "", _reason(each, held), each["job_key"], each["count"]) for each in waits
    ]
    failed = [
        (
            _failure_status(each),
            each["host_name"] or "",
            shortened(why_ended(each)),
            each["job_key"],
            each["count"],
        )
        for each in failures
    ]
    never = bool(waits) and all(each["never"] for each in waits) and "pending_reasons" not in summary["left_out"]
    ended = EXIT_FAILED if summary["failed_count"] > summary["cancelled_count"] else EXIT_CANCELLED
    return Explanation(
        code=EXIT_NEVER if never else ended if failed and not pending else EXIT_DONE,
        data={name: summary[name] for name in ("group_id", "status", "pending_reasons", "failure_reasons", "left_out")},
        fields={
            "group": summary["group_id"],
            "status": summary["status"],
            "jobs": counts_text(summary, summary["cancelled_count"]),
            "not shown": _left_out_text(summary),
            "hint": adapt_commands(remedy(_first_reason(waits))) or _home_hint(summary),
            "next": _next(summary, never),
        },
        reasons=(*count_reasons(pending), *count_reasons(failed)),
    )


def _left_out_text(summary: dict[str, Any]) -> str:
    """Return a text about the jobs with rarer reasons than those in the reply, or "" if there are none."""
    count = sum(summary["left_out"].values())
    return f"{count:,} jobs with other reasons; {commands(summary['group_id'], 'list')} lists them" if count else ""


def _first_reason(pending: Sequence[dict[str, Any]]) -> str:
    """Return the most frequent reason code that has a hint, or ""."""
    codes = Counter[str]()
    for each in pending:
        if remedy(each["reason"] or ""):
            codes[each["reason"]] += each["count"]
    return next((code for code, _ in codes.most_common(1)), "")


def _home_hint(summary: dict[str, Any]) -> str:
    if not summary.get("waiting_for_home"):
        return ""
    home = summary["home"]["host_name"]
    return f"the collector moves home when {home} is back; its results can be read at any time"


def _next(summary: dict[str, Any], never: bool) -> str:
    failed = next((each["job_key"] for each in summary["failure_reasons"] if not is_cancelled(each)), None)
    if failed is not None:
        return commands(f"{summary['group_id']}/{failed}", "why")
    return commands(summary["group_id"], "cancel") if never else ""


def commands(job: str, *names: str) -> str:
    """Return a command line such as `paglets jobs why words/monday` for each of `names`, joined by semicolons."""
    return "; ".join(f"{command_name()} jobs {name} {shlex.quote(job)}" for name in names)


def _failure_status(failure: dict[str, Any]) -> str:
    return "CANCELLED" if is_cancelled(failure) else "FAILED"


def _reason(job: dict[str, Any], held: Holders) -> str:
    reason, text = job.get("reason") or "", job.get("reason_text") or ""
    return wait_reason_text(reason, text, never=bool(job.get("never")), held=held.get(_wait(job), ""))


def explain_job(client: HostClient, summary: dict[str, Any], job_key: str) -> Explanation:
    """Explain one job from its group's summary. Raises Unknown."""
    named = {"job": f"{summary['group_id']}/{job_key}"}
    if job_key in summary["results"]:
        record = summary["results"][job_key]
        return _explain_ended(named | {"status": "COMPLETED"}, record, EXIT_DONE)
    if job_key in summary["failures"]:
        record = summary["failures"][job_key]
        code = EXIT_CANCELLED if is_cancelled(record) else EXIT_FAILED
        return _explain_ended(named | {"status": _failure_status(record)}, record, code)
    for job in summary["pending_jobs"]:
        if job["job_key"] == job_key:
            return _explain_pending(named, job, lease_holders(client, [_wait(job)], summary["collector"]["host_name"]))
    raise unknown_job(client, summary["group_id"], job_key)


def _explain_ended(named: dict[str, str], record: dict[str, Any], code: int) -> Explanation:
    runtime = record.get("runtime_seconds")
    told = {
        "cause": record.get("cause"),
        "message": shortened(message_of(record)) if "cause" in record else None,
        "host": record.get("host_name"),
        "attempt": _attempt(record),
        "runtime": None if runtime is None else duration_text(runtime),
        **result_fields(record),
        "warning": "; ".join(record.get("warnings", ())),
    }
    return Explanation(code=code, data={**named, **record}, fields={**named, **told}, tails=_tails(record))


def _tails(record: dict[str, Any]) -> tuple[str, ...]:
    """Return the last lines of the traceback, and those of stderr unless they end with the traceback."""
    trace, stderr = ((record.get(name) or "").strip() for name in ("traceback", "stderr_tail"))
    # The printed fields contain the message, so remove it from the end of stderr.
    stderr = stderr.removesuffix(f"paglets: {record.get('message')}").strip()
    texts = [trace] + ([] if stderr.endswith(trace) and trace else [stderr])
    return tuple(last_lines(text) for text in texts if text)


def last_lines(text: str) -> str:
    """Return the last MOST_TAIL_LINES lines of a text. Long lines are shortened."""
    return "\n".join(map(shortened, text.strip().splitlines()[-MOST_TAIL_LINES:]))


def _explain_pending(named: dict[str, str], job: dict[str, Any], held: Holders) -> Explanation:
    never = bool(job.get("never"))
    return Explanation(
        code=EXIT_NEVER if never else EXIT_DONE,
        data={**named, **job},
        fields={
            **named,
            "status": job["status"],
            "host": job.get("host_name") or "",
            "attempt": _attempt(job),
            "why": _reason(job, held),
            "since": ago(job.get("since"), time.time()),
            "hint": adapt_commands(remedy(job.get("reason") or "")),
            "next": commands(named["job"], "cancel") if never else _next_of_running(named["job"], job["status"]),
        },
    )


def _attempt(job: dict[str, Any]) -> str:
    """Return the attempt as text that mentions lost copies. `job`: a pending job or the record of an ended job."""
    generation = job.get("generation") or 1
    lost = "earlier copies were lost with their hosts" if generation > 2 else "the first copy was lost with its host"
    return attempt_text(generation, job.get("attempt")) + (f" ({lost})" if generation > 1 else "")


def _next_of_running(job: str, status: str) -> str:
    names = ("logs -f", "cancel") if "/" in job else ("logs -f",)
    return commands(job, *names) if status == "RUNNING" else ""


def explain_paglet(client: HostClient, view: PagletView) -> Explanation:
    """Explain one copy of a job, or another paglet, from its host's view."""
    job = view.job
    fields: dict[str, object] = {
        "id": view.agent_id,
        "class": view.class_name,
        "host": view.host.name,
        "residence": view.residence,
        "why": view.reason,
    }
    if job is not None:
        waits = {"host_name": view.host.name, **to_json(job)}
        fields |= {
            "job": f"{job.group_id}/{job.job_key}" if job.group_id else job.job_key,
            "status": job.status,
            "attempt": _attempt(waits),
            "why": _reason(waits, lease_holders(client, [_wait(waits)])) or view.reason,
            "waited": duration_text(job.waited_seconds),
            "running": duration_text(job.running_seconds) if job.running_seconds else "",
            "hint": adapt_commands(remedy(job.reason)),
            "next": _next_of_running(job_name(job), job.status),
        }
    return Explanation(code=EXIT_NEVER if job and job.never else EXIT_DONE, data=to_json(view), fields=fields)
