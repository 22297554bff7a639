"""The handler of `paglets jobs rerun-hook`."""

from __future__ import annotations

import argparse
from typing import Any

from paglets.api.undelivered import FailedHook
from paglets.cli.options import LOOK_SECONDS, client_of
from paglets.cli.output import notice_if_slow, print_json
from paglets.cli.views.hooks import print_failed_hook
from paglets.client.host_client import HostClient
from paglets.core.errors import EXIT_DONE, EXIT_FAILED, Conflict, Invalid, Unknown, Unreachable
from paglets.core.text import printable


def rerun(options: argparse.Namespace) -> int:
    """Rerun the failed hooks of the job `options.job`. Return EXIT_FAILED if one failed again."""
    group_id, slash, job_key = options.job.partition("/")
    if not slash:
        raise Invalid(f"{options.job[:80]!r} is not a job", hint=["name a job as GROUP/JOBKEY"])
    ends: list[dict[str, Any]] = []
    with client_of(options) as client:
        for hook in _failed(client, group_id, job_key, options.timeout or LOOK_SECONDS):
            with notice_if_slow(f"running {hook.hook} of {options.job} on {hook.host.name}"):
                again = client.rerun_hook(hook, timeout=options.timeout)
            ends.append(_hook_json(options.job, hook, again))
            if not options.json:
                _print(options.job, hook, again)
    if options.json:
        print_json({"hooks": ends})
    return EXIT_DONE if all(end["ok"] for end in ends) else EXIT_FAILED


def _failed(client: HostClient, group_id: str, job_key: str, seconds: float) -> tuple[FailedHook, ...]:
    found = client.undelivered(group_id, job_key, timeout=seconds)
    if found.hooks:
        return found.hooks
    if found.unreachable:
        raise Unreachable(
            f"no reachable host has a failed hook of {group_id}/{job_key}; {found.unreachable[0].message}"
        )
    if found.undelivered:
        raise Conflict(f"no hook of {group_id}/{job_key} has failed: {found.undelivered[0].text}")
    raise Unknown(f"no online host has a failed hook of {group_id}/{job_key}")


def _hook_json(job: str, hook: FailedHook, again: FailedHook | None) -> dict[str, Any]:
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
    print_failed_hook(again)
