"""Texts about failed hooks of finished jobs, and about jobs that still have to move."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from paglets.api.undelivered import FailedHook, Undelivered
from paglets.cli.output import say, shortened
from paglets.client.undelivered import MeshUndelivered
from paglets.core.record import to_json
from paglets.core.text import command_name, counted, printable


def hook_fields(hooks: Iterable[FailedHook], file_count: int) -> dict[str, object]:
    """Return the output fields `hook` and `next` for a job with failed hooks, or {} if no hook failed."""
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
        "next": f"{command} jobs rerun-hook {job} (reruns it); {command} jobs cancel {job} (ends the job)",
    }


def undelivered_fields(jobs: Iterable[Undelivered]) -> dict[str, object]:
    """Return the output field `then` for finished jobs that still have to run a hook or move to another host."""
    text = "; ".join(undelivered_text(job) for job in jobs)
    return {"then": text} if text else {}


def undelivered_text(job: Undelivered) -> str:
    """Return the next event of a finished job, such as `it moves to laptop once that host is online (1 file)`."""
    return f"{job.text} ({counted(job.file_count, 'file')})" if job.file_count else job.text


def with_group_hooks(fields: Mapping[str, object], hooks: Sequence[FailedHook]) -> dict[str, object]:
    """Return the output fields of a group, with a field about failed hooks and the next command added."""
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
    """Return the local date of a time in seconds since the epoch."""
    return time.strftime("%Y-%m-%d", time.localtime(seconds))


def print_failed_hook(hook: FailedHook, *, traceback: bool = True) -> None:
    """Print the failure of a hook on stderr, followed by its traceback if `traceback` is True."""
    say(hook.text)
    for line in hook.traceback.splitlines() if traceback else ():
        print(printable(line), file=sys.stderr)


def kept_json(found: MeshUndelivered) -> dict[str, Any]:
    """Return the keys of `jobs show --json` about failed hooks, files and moves."""
    return {
        "hooks": hooks_json(found.hooks),
        "files": to_json(found.files),
        "undelivered": to_json(found.undelivered),
    }


def hooks_json(hooks: Iterable[FailedHook]) -> list[dict[str, Any]]:
    return [{**to_json(hook), "hook": hook.hook} for hook in hooks]
