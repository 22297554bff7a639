"""Hooks of finished jobs that failed, in words; and `paglets jobs rerun-hook`, which runs them again."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from paglets.api.kept import FailedHook, Undelivered
from paglets.cli.options import LOOK_SECONDS, client_of
from paglets.cli.output import print_json, said_if_slow, say, shortened, waiting_for_all
from paglets.client.undelivered import MeshUndelivered
from paglets.core.errors import EXIT_DONE, EXIT_FAILED, Conflict, Invalid, PagletsError, Unknown, Unreachable
from paglets.core.record import to_json
from paglets.core.refs import ProxyRef
from paglets.core.text import command_name, counted, printable
from paglets.remote.client import HostClient


def kept_of(client: HostClient, group_id: str, job_key: str = "", seconds: float = LOOK_SECONDS) -> MeshUndelivered:
    """Return what finished jobs left on the hosts that answer in time. Never raises: it is a part of other answers."""
    try:
        with said_if_slow(waiting_for_all(seconds)):
            return client.undelivered(group_id, job_key, timeout=seconds)
    except PagletsError as error:
        return MeshUndelivered(silent=(error,))


def hook_fields(hooks: Iterable[FailedHook], file_count: int) -> dict[str, object]:
    """Return the lines `hook` and `next` of a job whose hook failed; none where no hook did."""
    found = tuple(hooks)
    if not found:
        return {}
    first = found[0]
    files = f"its {counted(file_count, 'file')}" if file_count else "it"
    kept = f"kept there until {day(first.kept_until)}"
    text = "; ".join(shortened(hook.text) for hook in found)
    job, command = shlex.quote(f"{first.group_id}/{first.job_key}"), command_name()
    return {
        "hook": f"{text}; {files} {'are' if file_count > 1 else 'is'} {kept}",
        "next": f"{command} jobs rerun-hook {job} (runs it again); {command} jobs cancel {job} (ends the job)",
    }


def undelivered_fields(jobs: Iterable[Undelivered]) -> dict[str, object]:
    """Return the line `then` of a finished job with a hook or a move before it."""
    text = "; ".join(undelivered_text(job) for job in jobs)
    return {"then": text} if text else {}


def undelivered_text(job: Undelivered) -> str:
    """Say what comes next: `it moves to laptop when that is online (1 file)`."""
    return f"{job.text} ({counted(job.file_count, 'file')})" if job.file_count else job.text


def hooks_of_group(
    client: HostClient, summary: dict[str, Any], seconds: float = LOOK_SECONDS
) -> tuple[FailedHook, ...]:
    """Return the hooks of a group's finished jobs that failed. `summary`: of that group. Never raises."""
    if summary["pending_count"] == summary["expected_count"]:
        return ()
    return kept_of(client, summary["group_id"], seconds=seconds).hooks


def with_group_hooks(fields: Mapping[str, object], hooks: Sequence[FailedHook]) -> dict[str, object]:
    """Return what is printed of a group, with a line about these hooks and the next command."""
    if not hooks:
        return dict(fields)
    job = f"{hooks[0].group_id}/{hooks[0].job_key}"
    jobs = counted(len(hooks), "hook of a finished job failed:", "hooks of finished jobs failed, such as")
    steps = [fields.get("next"), f"{command_name()} jobs why {shlex.quote(job)}"]
    return {
        **{name: value for name, value in fields.items() if name != "next"},
        "hooks": f"{jobs} {job}: {shortened(hooks[0].text)}",
        "next": "; ".join(str(step) for step in steps if step),
    }


def day(seconds: float) -> str:
    """Return the day of a time, here."""
    return time.strftime("%Y-%m-%d", time.localtime(seconds))


def say_failed(hook: FailedHook, *, traceback: bool = True) -> None:
    """Say on stderr how the hook failed, with its traceback if asked for."""
    say(hook.text)
    for line in hook.traceback.splitlines() if traceback else ():
        print(printable(line), file=sys.stderr)


def rerun(options: argparse.Namespace) -> int:
    """Run the failed hooks of the job `options.job` again. Return 1 where one failed again."""
    group_id, slash, job_key = options.job.partition("/")
    if not slash:
        raise Invalid(f"{options.job[:80]!r} is no job: name it as GROUP/JOBKEY")
    ends: list[dict[str, Any]] = []
    with client_of(options) as client:
        for hook in _failed(client, group_id, job_key, options.timeout or LOOK_SECONDS):
            with said_if_slow(f"{hook.hook} of {options.job} runs on {hook.host.name}"):
                again = client.rerun_hook(hook, timeout=options.timeout)
            ends.append(_end(options.job, hook, again))
            if not options.json:
                _print(options.job, hook, again)
    if options.json:
        print_json({"hooks": ends})
    return EXIT_DONE if all(end["ok"] for end in ends) else EXIT_FAILED


def _failed(client: HostClient, group_id: str, job_key: str, seconds: float) -> tuple[FailedHook, ...]:
    found = client.undelivered(group_id, job_key, timeout=seconds)
    if found.hooks:
        return found.hooks
    if found.silent:
        raise Unreachable(f"no host that answered has a failed hook of {group_id}/{job_key}; {found.silent[0].message}")
    if found.undelivered:
        raise Conflict(f"no hook of {group_id}/{job_key} has failed: {found.undelivered[0].text}")
    raise Unknown(f"no hook of {group_id}/{job_key} failed on a host that is online")


def _end(job: str, hook: FailedHook, again: FailedHook | None) -> dict[str, Any]:
    return {
        "job": job,
        "hook": hook.hook,
        "host": hook.host.name,
        "ok": again is None,
        "error": "" if again is None else again.error,
        "traceback": "" if again is None else again.traceback,
    }


def _print(job: str, hook: FailedHook, again: FailedHook | None) -> None:
    if again is None:
        moves = f"; it moves to {hook.target}" if hook.target else ""
        print(f"{printable(job)}: {hook.hook} returned on {hook.host.name}{moves}")
        return
    say_failed(again)


@dataclass(frozen=True, slots=True, kw_only=True)
class HooksEnded:
    """A line for each job whose hook had failed; `code`: EXIT_FAILED if one could not be ended."""

    lines: tuple[str, ...] = ()
    code: int = EXIT_DONE


def end_failed(client: HostClient, group_id: str, job_keys: Iterable[str] | None) -> HooksEnded:
    """End the jobs of these keys (None: all) whose hook failed, and say what became of their files."""
    lines: dict[tuple[str, str], str] = {}
    code = EXIT_DONE
    for job_key in [""] if job_keys is None else dict.fromkeys(job_keys):
        # A host tells of a bounded number at once, of all jobs or of one.
        while new := _not_in(lines, kept_of(client, group_id, job_key)):
            for hook, files in new:
                line = _ended_text(hook, files)
                try:
                    client.dispose(ProxyRef(agent_id=hook.agent_id, host=hook.host))
                except PagletsError as error:
                    code = EXIT_FAILED
                    line = f"{group_id}/{hook.job_key}, whose {hook.hook} failed, was not ended: {error.message}"
                lines[hook.host.store_id, hook.agent_id] = line
    return HooksEnded(lines=tuple(lines.values()), code=code)


def _not_in(known: Container[tuple[str, str]], found: MeshUndelivered) -> list[tuple[FailedHook, int]]:
    """Return the hooks that are not known yet, each with the number of its files."""
    counts = Counter(file.owner for file in found.files)
    return [(hook, counts[hook.agent_id]) for hook in found.hooks if (hook.host.store_id, hook.agent_id) not in known]


def _ended_text(hook: FailedHook, file_count: int) -> str:
    text = f"ended {hook.group_id}/{hook.job_key}, whose {hook.hook} failed on {hook.host.name}"
    if not file_count:
        return text
    files = f"its {counted(file_count, 'file')} can be fetched until {day(hook.kept_until)}"
    return f"{text}; {files}: `paglets artifacts get --group {hook.group_id} DIR`"


def as_json(found: MeshUndelivered) -> dict[str, Any]:
    """Return what `jobs show` has of it in its JSON."""
    return {
        "hooks": hooks_json(found.hooks),
        "files": to_json(found.files),
        "undelivered": to_json(found.undelivered),
    }


def hooks_json(hooks: Iterable[FailedHook]) -> list[dict[str, Any]]:
    return [{**to_json(hook), "hook": hook.hook} for hook in hooks]
