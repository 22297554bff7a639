"""The records and output of `jobs show`: all details of one job."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from paglets.api.logs import AttemptView
from paglets.cli.output import attempt_text, print_fields, print_table, say
from paglets.cli.views.explanation import Explanation
from paglets.cli.views.hooks import kept_json
from paglets.cli.views.job_records import short_result
from paglets.client.undelivered import MeshUndelivered
from paglets.core.errors import PagletsError
from paglets.core.record import to_json
from paglets.core.refs import ArtifactRef, BlobRef, FileRef
from paglets.core.text import command_name, printable
from paglets.slots.amounts import bytes_text
from paglets.slots.states import FINAL

GONE = "moved, deleted, or on an offline host"
"""The state of an artifact that no online host has."""

SHORT_HASH = 12
MOST_LINES = 50
"""The maximum number of files that a table lists. `--json` prints all files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeBundle:
    """A code bundle with the paths and sizes of its files. If they cannot be read, `problem` is the reason."""

    bundle: BlobRef
    files: tuple[tuple[str, int], ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobDetails:
    """The details of a job.

    `explanation`: the answer of `jobs why`. `is_here`: a host has a copy of the job, so code and inputs are known.
    `is_gone`: no online host has the artifact. `unreachable`: the errors of hosts that did not answer. `kept`: the
    failed hooks, files and pending moves of the finished job.
    """

    job: str
    explanation: Explanation
    class_name: str = ""
    metadata: dict[str, Any] | None = None
    is_here: bool = False
    code: CodeBundle | None = None
    inputs: tuple[FileRef, ...] = ()
    artifact: ArtifactRef | None = None
    is_gone: bool = False
    attempts: tuple[AttemptView, ...] = ()
    unreachable: tuple[PagletsError, ...] = ()
    kept: MeshUndelivered = field(default_factory=MeshUndelivered)


def job_details_json(shown: JobDetails) -> dict[str, Any]:
    code = shown.code
    return {
        "job": shown.job,
        "class_name": shown.class_name,
        "metadata": shown.metadata,
        "is_here": shown.is_here,
        "code": None
        if code is None
        else {
            "sha256": code.bundle.sha256,
            "size_bytes": code.bundle.size_bytes,
            "files": [{"name": name, "size_bytes": size} for name, size in code.files],
            "problem": code.problem,
        },
        "inputs": to_json(shown.inputs),
        "artifact": to_json(shown.artifact),
        "attempts": to_json(shown.attempts),
        **kept_json(shown.kept),
        "job_state": shown.explanation.data,
    }


def print_job_details(shown: JobDetails) -> None:
    code, artifact = shown.code, shown.artifact
    get = "" if artifact is None else f"fetch it: {command_name()} artifacts get {artifact.artifact_id}"
    print_fields(
        {
            "job": shown.job,
            "class": shown.class_name,
            **{name: value for name, value in shown.explanation.fields.items() if name not in ("job", "class")},
            "metadata": "" if shown.metadata is None else short_result(shown.metadata),
            "code": _code_text(shown),
            "artifact": ""
            if artifact is None
            else f"{artifact.name} ({bytes_text(artifact.size_bytes)}), " + (GONE if shown.is_gone else get),
            "expires": "" if artifact is None or artifact.expires_at is None else _date(artifact.expires_at),
            "scratch": _kept_text(shown.attempts),
            "isolation": _isolation_text(shown.attempts),
            "import": _import_text(shown.attempts),
            "output": f"{command_name()} jobs logs {shown.job}" if shown.attempts else "",
        }
    )
    for tail in shown.explanation.tails if shown.kept.hooks else ():
        print("\n" + "\n".join(printable(line) for line in tail.splitlines()))
    if shown.kept.files:
        print("\nfiles left by the job:")
        rows = [(file.artifact_id, file.name, bytes_text(file.size_bytes), file.host_name) for file in shown.kept.files]
        print_table(("ID", "NAME", "SIZE", "HOST"), rows[:MOST_LINES])
    _table("code", ("FILE", "SIZE"), () if code is None else code.files)
    _table("inputs", ("FILE", "SIZE"), tuple((file.name, file.size_bytes) for file in shown.inputs))
    known = {(each.generation, each.attempt) for each in shown.attempts if each.status}
    # Omit rows of hosts where only a hook of the job ran: those hosts have a log, but no attempt.
    runs = [each for each in shown.attempts if each.status or (each.generation, each.attempt) not in known]
    if len(runs) > 1 or any(_is_dead(each) or each.remark for each in runs):
        print("\nattempts:")
        print_table(("ATTEMPT", "STATUS", "HOST", "CAUSE"), [_attempt_row(each) for each in runs])


def _kept_text(attempts: tuple[AttemptView, ...]) -> str:
    """Return the path and host of the scratch files of an attempt that could not send its result.

    If they were removed, return the date of the removal. Return "" if there are none.
    """
    for attempt in reversed(attempts):
        if attempt.scratch and attempt.scratch_removed_at is not None:
            return f"removed on {_date(attempt.scratch_removed_at)}"
        if attempt.scratch:
            return f"{attempt.scratch} on {attempt.host.name}"
    return ""


def _isolation_text(attempts: tuple[AttemptView, ...]) -> str:
    """Return "worker" if the last attempt was a job of a warm worker, and why that worker ended, if it did; else ""."""
    last = attempts[-1] if attempts else None
    if last is None or last.isolation != "worker":
        return ""
    return f"worker, which ended after this job, because it {last.worker_ended}" if last.worker_ended else "worker"


def _import_text(attempts: tuple[AttemptView, ...]) -> str:
    """Return why the last attempt could not share the import of its module with other attempts, else ""."""
    reason = attempts[-1].no_template if attempts else ""
    return f"repeated by each attempt, because {reason}" if reason else ""


def _is_dead(attempt: AttemptView) -> bool:
    """Return True if the attempt ended without a result and the job is retried."""
    return attempt.ended and bool(attempt.status) and attempt.status not in FINAL


def _attempt_row(attempt: AttemptView) -> tuple[object, ...]:
    dead = "LOST" if attempt.cause in ("host_lost", "launcher_lost") else "FAILED"
    status = f"{dead}, retried" if _is_dead(attempt) else attempt.status
    return (
        attempt_text(attempt.generation, attempt.attempt),
        status,
        attempt.host.name,
        attempt.cause or attempt.remark,
    )


def _code_text(shown: JobDetails) -> str:
    code = shown.code
    if code is None:
        return "no bundle: hosts have the class themselves" if shown.is_here else ""
    known = code.problem or ("1 file" if len(code.files) == 1 else f"{len(code.files):,} files")
    return f"{code.bundle.sha256[:SHORT_HASH]} ({bytes_text(code.bundle.size_bytes)}): {known}"


def _table(name: str, headers: tuple[str, str], files: tuple[tuple[str, int], ...]) -> None:
    if not files:
        return
    print(f"\n{name}:")
    print_table(headers, [(file, bytes_text(size)) for file, size in files[:MOST_LINES]])
    if len(files) > MOST_LINES:
        say(f"{len(files) - MOST_LINES:,} more files of {name}: --json shows all")


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
