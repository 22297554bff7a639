"""`paglets jobs why`: for a job that does not run, or ended badly, the reason in words and numbers."""

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
from paglets.cli.collectors import no_such_job, summary_of, summary_of_job
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
from paglets.core.record import to_json
from paglets.core.refs import AGENT_ID, GROUP_ID
from paglets.core.text import command_name, duration_text
from paglets.slots.eligibility import remedy
from paglets.slots.states import FINAL

ENDED = (*FINAL, "FAILED")
"""As a record, or a copy, of a job says."""

MOST_TAIL_LINES = 12
"""Of a traceback: enough for the frames of the user's own file. `--json` has all of it."""

MOST_JOBS = 256
"""Asked of each host where a job waits, the running ones first: of these each has a core."""

HELD_SECONDS = 3.0
"""A host that takes longer is not waited for: who holds what it lacks is only a part of the answer."""

Held = Mapping[tuple[str, str], str]
"""By host and code of a reason: who holds what is lacking there, or that the host is away, in words."""


def why(options: argparse.Namespace) -> int:
    """Explain what `options.job` names."""
    with client_of(options) as client:
        explained = explain(client, options.job)
    if options.json:
        print_json(explained.data)
    else:
        print_explained(explained)
    return explained.code


def explain(client: HostClient, selector: str) -> Explanation:
    """Of a group, `GROUP/JOBKEY` or a paglet's id. Raises Unknown where it names nothing."""
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
            summary = summary_of(client, selector, ("pending_jobs", "failures"))
            waits = map(_wait, summary["pending_jobs"])
            told = _of_group(summary, lease_holders(client, waits, summary["collector"]["host_name"]))
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
    """Add the hooks of the finished job that failed. `kept`: what is known of them already."""
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
        tails=(*told.tails, *(tail_of(hook.traceback) for hook in kept.hooks if hook.traceback)),
    )


def explain_copy(client: HostClient, group_id: str, job_key: str, error: PagletsError) -> Explanation:
    """Of one job as the host knows it that has it, where its collector cannot be asked. Raises `error`."""
    ended = _explain_waiting_report(client, group_id, job_key, error)
    if ended is not None:
        return ended
    entry = copy_of_job(client, group_id, job_key)
    if entry is None:
        if isinstance(error, Unknown):
            raise error
        nowhere = f"no host that answers has a copy of {group_id}/{job_key}"
        raise type(error)(f"{error.message}; {nowhere}", **error.details) from None
    named = {"job": f"{group_id}/{job_key}"}
    told = _pending(named, entry, lease_holders(client, [_wait(entry)]))
    fields = {name: value for name, value in told.fields.items() if name not in ("since", "next")}
    fields |= {"collector": adapt_commands(error.message), "next": next_steps_text(group_id, [entry], error)}
    return replace(told, data={**told.data, "collector": error.message}, fields=fields)


def _explain_waiting_report(client: HostClient, group_id: str, job_key: str, error: PagletsError) -> Explanation | None:
    """Of a job that has ended and whose report waits on a host, as the report says."""
    left = client.orphaned_group(group_id, timeout=LOOK_SECONDS)
    found = newest_reports(client.waiting_reports(left, job_key)).get(job_key)
    if found is None:
        return None
    host, report = found
    record = {**report.record, "host_name": host.name}
    done = report.kind == "result"
    named = {"job": f"{group_id}/{job_key}", "status": "COMPLETED" if done else _how(record)}
    told = _ended(named, record, EXIT_DONE if done else EXIT_CANCELLED if is_cancelled(record) else EXIT_FAILED)
    more = {
        "why": REPORT_WAITS,
        "files": ", ".join(f"{each.name} ({each.artifact_id})" for each in report.artifacts),
        "collector": adapt_commands(error.message),
        "next": next_steps_text(group_id, [{"status": "COMPLETED"}], error),
    }
    data = {"collector": error.message, "reason_text": REPORT_WAITS, "files": to_json(report.artifacts)}
    return replace(told, data={**told.data, **data}, fields={**told.fields, **more})


def _explain_copies(client: HostClient, group_id: str, error: PagletsError) -> Explanation:
    """Of a group, as the hosts know its jobs that have them. Raises `error`."""
    entries, code = copies_of_group(client, group_id)
    if not entries:
        raise error
    held = lease_holders(client, map(_wait, entries))
    rows = [(each["status"], each["host_name"], _reason(each, held), each["job_key"]) for each in entries]
    return Explanation(
        code=code,
        data={"group_id": group_id, "status": "", "pending_jobs": entries, "failures": {}, "collector": error.message},
        fields={
            "group": group_id,
            "collector": adapt_commands(error.message),
            "next": next_steps_text(group_id, entries, error),
        },
        reasons=tuple(count_reasons(rows)),
    )


def _wait(job: dict[str, Any]) -> tuple[str, str]:
    """Where it waits, and the code of its reason."""
    return job.get("host_name") or "", job.get("reason") or ""


def lease_holders(client: HostClient, waits: Iterable[tuple[str, str]], collector: str = "") -> Held:
    """Return who holds what is lacking where jobs are (see `_wait`), and which of these hosts are away.

    Hosts that do not answer are left out: also without them the reason says how much is free. `collector`: the name
    of the host that submits jobs of lost hosts again.
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
    """Return after how many seconds of silence the collector's host takes a host for lost; None: it does not say."""
    if collector is None or not collector.online:
        return None
    with suppress(PagletsError):
        return client.identity(collector.host.ref).host_lost_after_seconds
    return None


def _of_group(summary: dict[str, Any], held: Held) -> Explanation:
    """Pending jobs counted by reason, failures by cause."""
    pending = [
        (job["status"], job.get("host_name") or "", _reason(job, held), job["job_key"])
        for job in summary["pending_jobs"]
    ]
    failed = [
        (_how(record), record.get("host_name") or "", shortened(why_ended(record)), key)
        for key, record in summary["failures"].items()
    ]
    never = bool(pending) and all(job.get("never") for job in summary["pending_jobs"])
    ended = EXIT_FAILED if any(state == "FAILED" for state, *_ in failed) else EXIT_CANCELLED
    return Explanation(
        code=EXIT_NEVER if never else ended if failed and not pending else EXIT_DONE,
        data={name: summary[name] for name in ("group_id", "status", "pending_jobs", "failures")},
        fields={
            "group": summary["group_id"],
            "status": summary["status"],
            "jobs": counts_text(summary, sum(is_cancelled(record) for record in summary["failures"].values())),
            "hint": adapt_commands(remedy(_first_reason(summary["pending_jobs"]))) or _home_hint(summary),
            "next": _next(summary, never),
        },
        reasons=(*count_reasons(pending), *count_reasons(failed)),
    )


def _first_reason(pending: Sequence[dict[str, Any]]) -> str:
    """Return the code of the reason why most jobs wait for a host."""
    codes = Counter(job["reason"] for job in pending if remedy(job.get("reason") or ""))
    return next((code for code, _ in codes.most_common(1)), "")


def _home_hint(summary: dict[str, Any]) -> str:
    if not summary.get("waiting_for_home"):
        return ""
    home = summary["home"]["host_name"]
    return f"the collector goes home when {home} is back; until then the results can be read where it is"


def _next(summary: dict[str, Any], never: bool) -> str:
    failed = next((key for key, record in summary["failures"].items() if not is_cancelled(record)), None)
    if failed is not None:
        return commands(f"{summary['group_id']}/{failed}", "why")
    return commands(summary["group_id"], "cancel") if never else ""


def commands(job: str, *names: str) -> str:
    """The command lines of `jobs NAME` for that job."""
    return "; ".join(f"{command_name()} jobs {name} {shlex.quote(job)}" for name in names)


def _how(failure: dict[str, Any]) -> str:
    return "CANCELLED" if is_cancelled(failure) else "FAILED"


def _reason(job: dict[str, Any], held: Held) -> str:
    reason, text = job.get("reason") or "", job.get("reason_text") or ""
    return wait_reason_text(reason, text, never=bool(job.get("never")), held=held.get(_wait(job), ""))


def explain_job(client: HostClient, summary: dict[str, Any], job_key: str) -> Explanation:
    """Of one job of a group, as its collector knows it. Raises Unknown."""
    named = {"job": f"{summary['group_id']}/{job_key}"}
    if job_key in summary["results"]:
        record = summary["results"][job_key]
        return _ended(named | {"status": "COMPLETED"}, record, EXIT_DONE)
    if job_key in summary["failures"]:
        record = summary["failures"][job_key]
        code = EXIT_CANCELLED if is_cancelled(record) else EXIT_FAILED
        return _ended(named | {"status": _how(record)}, record, code)
    for job in summary["pending_jobs"]:
        if job["job_key"] == job_key:
            return _pending(named, job, lease_holders(client, [_wait(job)], summary["collector"]["host_name"]))
    raise no_such_job(client, summary["group_id"], job_key)


def _ended(named: dict[str, str], record: dict[str, Any], code: int) -> Explanation:
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
    """The last lines of the traceback, and of stderr where that ends otherwise."""
    trace, stderr = ((record.get(name) or "").strip() for name in ("traceback", "stderr_tail"))
    # The message stands above already.
    stderr = stderr.removesuffix(f"paglets: {record.get('message')}").strip()
    texts = [trace] + ([] if stderr.endswith(trace) and trace else [stderr])
    return tuple(tail_of(text) for text in texts if text)


def tail_of(text: str) -> str:
    """Return the last MOST_TAIL_LINES lines, long ones shortened."""
    return "\n".join(map(shortened, text.strip().splitlines()[-MOST_TAIL_LINES:]))


def _pending(named: dict[str, str], job: dict[str, Any], held: Held) -> Explanation:
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
    """Return the attempt, and what became of earlier copies. `job`: pending, or the record of its end."""
    generation = job.get("generation") or 1
    lost = "the copies before were lost with their hosts" if generation > 2 else "the first copy was lost with its host"
    return attempt_text(generation, job.get("attempt")) + (f" ({lost})" if generation > 1 else "")


def _next_of_running(job: str, status: str) -> str:
    names = ("logs -f", "cancel") if "/" in job else ("logs -f",)
    return commands(job, *names) if status == "RUNNING" else ""


def explain_paglet(client: HostClient, view: PagletView) -> Explanation:
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
