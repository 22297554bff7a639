"""`paglets logs GROUP`: the last lines that each job of a group printed, each line after its job's key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from paglets.api.logs import AttemptView
from paglets.cli.collectors import summary_of
from paglets.cli.commands.logs.tail import last_bytes
from paglets.cli.output import attempt_text, say
from paglets.cli.views.log_output import LogOutput
from paglets.client.fan_out import ask_all, returning_errors
from paglets.client.host_client import HostClient
from paglets.client.job_logs import JobAttempts
from paglets.core.errors import EXIT_DONE, PagletsError
from paglets.core.terminal import put_hint, put_line
from paglets.core.text import counted

MOST_JOBS = 100
"""Of one group: each costs a question to every host."""

LINES = 20
"""Of each stream of a job, where `--tail` does not say otherwise."""

MOST_BYTES = 1 << 16
"""Shown of each stream of a job, from its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupLogs:
    """Attempts of the jobs of a group by key, or the error in their place. `left_out`: jobs that were not asked for."""

    group_id: str
    jobs: tuple[tuple[str, JobAttempts | PagletsError], ...]
    left_out: int

    def all_attempts(self) -> JobAttempts:
        """Return what is known of all jobs together."""
        known = [found for _, found in self.jobs if isinstance(found, JobAttempts)]
        errors = [found for _, found in self.jobs if isinstance(found, PagletsError)]
        errors += [error for found in known for error in found.unreachable]
        return JobAttempts(
            attempts=tuple(view for found in known for view in found.attempts),
            unfinished=tuple(copy for found in known for copy in found.unfinished),
            unreachable=tuple({error.message: error for error in errors}.values()),
        )


def logs_of_group(client: HostClient, group_id: str, keys: Sequence[str], seconds: float) -> GroupLogs:
    """Ask all hosts for the attempts of the first jobs of a group. `keys`: its jobs, or none if home does not tell."""
    if not keys:
        summary = summary_of(client, group_id)
        pending = [job["job_key"] for job in summary["pending_jobs"]]
        keys = sorted([*summary["results"], *summary["failures"], *pending])
    asked = keys[:MOST_JOBS]
    answers = ask_all(returning_errors(lambda key: client.job_attempts(f"{group_id}/{key}", timeout=seconds)), asked)
    jobs = tuple(zip(asked, answers, strict=True))
    return GroupLogs(group_id=group_id, jobs=jobs, left_out=len(keys) - len(asked))


def show_group(
    client: HostClient, found: GroupLogs, out: LogOutput, streams: Sequence[str], tail: int | None = None
) -> int:
    """Show the last lines of the newest attempt of each job."""
    lines = LINES if tail is None else tail
    printed = 0
    for key, known in found.jobs:
        newest = known.attempts[-1] if isinstance(known, JobAttempts) and known.attempts else None
        if newest is not None and newest.kept:
            shown = [_show(client, newest, key, stream, lines, out) for stream in streams]
            printed += any(shown)
    for error in found.all_attempts().unreachable:
        say(f"there may be more: {error.message}")
    if not printed:
        put_line(f"{found.group_id}: no job has printed anything that is kept")
    if found.left_out:
        put_line(f"{found.group_id}: {counted(found.left_out, 'more job')}")
        put_hint(f"paglets logs {found.group_id}/JOBKEY shows what another job printed")
    return EXIT_DONE


def _show(client: HostClient, newest: AttemptView, key: str, stream: str, lines: int, out: LogOutput) -> bool:
    """Return True if there was anything to show."""
    if lines == 0:
        return False
    try:
        data = last_bytes(client, newest, stream, MOST_BYTES)
    except PagletsError as error:
        say(f"{key}: attempt {attempt_text(newest.generation, newest.attempt)}: {error.message}")
        return False
    for line in data.splitlines()[-lines:]:
        out.write(stream, f"{key}: ".encode() + line + b"\n")
    return bool(data)
