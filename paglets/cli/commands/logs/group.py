"""The output of `paglets logs GROUP`: the last lines of each job, each prefixed with the job's key."""

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
"""The maximum number of jobs of a group whose output is shown. Each job requires a request to every host."""

LINES = 20
"""The default of `--tail` for a group: the number of lines that are shown of each stream of a job."""

MOST_BYTES = 1 << 16
"""The maximum number of bytes that are read of each stream of a job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupLogs:
    """The jobs of a group by key, each with its attempts or an error. `left_out`: the number of jobs over MOST_JOBS."""

    group_id: str
    jobs: tuple[tuple[str, JobAttempts | PagletsError], ...]
    left_out: int

    def all_attempts(self) -> JobAttempts:
        """Return the attempts, unfinished copies and errors of all jobs in one JobAttempts."""
        known = [found for _, found in self.jobs if isinstance(found, JobAttempts)]
        errors = [found for _, found in self.jobs if isinstance(found, PagletsError)]
        errors += [error for found in known for error in found.unreachable]
        return JobAttempts(
            attempts=tuple(view for found in known for view in found.attempts),
            unfinished=tuple(copy for found in known for copy in found.unfinished),
            unreachable=tuple({error.message: error for error in errors}.values()),
        )


def logs_of_group(client: HostClient, group_id: str, keys: Sequence[str], seconds: float) -> GroupLogs:
    """Ask all hosts for the attempts of the first MOST_JOBS jobs. `keys`: the job keys; if empty, ask the collector."""
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
        say(f"there may be more output: {error.message}")
    if not printed:
        put_line(f"{found.group_id}: no job has any stored output")
    if found.left_out:
        put_line(f"{found.group_id}: omitted {counted(found.left_out, 'job')}")
        put_hint(f"paglets logs {found.group_id}/JOBKEY shows the output of one job")
    return EXIT_DONE


def _show(client: HostClient, newest: AttemptView, key: str, stream: str, lines: int, out: LogOutput) -> bool:
    """Show the last lines of one stream of a job. Return True if the stream has any output."""
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
