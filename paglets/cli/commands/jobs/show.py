"""`paglets jobs show`: everything about one job: what it is, where it is, what came with it and what it left."""

from __future__ import annotations

import argparse
import io
import time
import zipfile
from dataclasses import dataclass, field, replace
from typing import Any

from paglets.api.logs import AttemptView
from paglets.api.paglets import PagletView
from paglets.cli.collectors import summary_of_job
from paglets.cli.commands.jobs import why
from paglets.cli.commands.jobs.groups import short_json
from paglets.cli.commands.jobs.hooks import as_json, kept_of
from paglets.cli.job_copies import attempts_of
from paglets.cli.options import LOOK_SECONDS, client_of
from paglets.cli.orphaned_groups import artifact_in
from paglets.cli.output import attempt_text, print_fields, print_json, print_table, say
from paglets.cli.views.explanation import Explanation
from paglets.client.job_logs import JobAttempts
from paglets.client.undelivered import MeshUndelivered
from paglets.core.errors import Invalid, PagletsError, Unknown, Unreachable
from paglets.core.record import to_json
from paglets.core.refs import ArtifactRef, BlobRef, FileRef
from paglets.core.text import command_name, printable
from paglets.remote.client import HostClient
from paglets.slots.amounts import bytes_text
from paglets.slots.states import FINAL

GONE = "moved away, deleted, or on a host that is offline"
"""What an artifact is that no host has which is online."""

SHORT_HASH = 12
MOST_LINES = 50
"""Of files, in words; `--json` has all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """A bundle. `files`: the paths in it and their bytes, or `problem` where they cannot be told."""

    bundle: BlobRef
    files: tuple[tuple[str, int], ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """`told`: as `jobs why` tells it. `is_here`: a copy of the job is on a host, so that code and inputs are known.

    `is_gone`: no host that is online has the artifact any more. `silent`: errors of hosts that did not tell attempts.
    `kept`: hooks of the finished job that failed, and files of it that no hook took.
    """

    job: str
    told: Explanation
    class_name: str = ""
    metadata: dict[str, Any] | None = None
    is_here: bool = False
    code: Code | None = None
    inputs: tuple[FileRef, ...] = ()
    artifact: ArtifactRef | None = None
    is_gone: bool = False
    attempts: tuple[AttemptView, ...] = ()
    silent: tuple[PagletsError, ...] = ()
    kept: MeshUndelivered = field(default_factory=MeshUndelivered)


def show(options: argparse.Namespace) -> int:
    """Show what `options.job` names; the exit code is that of `jobs why`."""
    with client_of(options) as client:
        found = look(client, options.job, options.timeout or LOOK_SECONDS)
    for error in found.silent:
        say(error)
    if options.json:
        print_json(_as_json(found))
    else:
        print_shown(found)
    return found.told.code


def look(client: HostClient, selector: str, seconds: float = LOOK_SECONDS) -> Shown:
    """All of a job, named by `GROUP/JOBKEY` or the id of a paglet. Raises Unknown where it names nothing.

    `seconds`: for the answer of each host to what all are asked.
    """
    known = _attempts(client, selector, seconds)
    _, slash, _ = selector.partition("/")
    if slash:
        return _look_in_group(client, selector, known)
    try:
        return _look_at_paglet(client, selector, known, seconds)
    except Unknown as error:
        raise told_of_group(client, selector, error) from error


def told_of_group(client: HostClient, text: str, error: PagletsError, also: str = "") -> PagletsError:
    """Return `error`, that `text` names nothing, or what to do if it names a group: `also` is a further way."""
    try:
        client.group(text)
    except PagletsError:
        return error
    hint = [f"name one of its jobs, as {text}/JOBKEY{also}", f"paglets jobs list {text} lists them"]
    return Invalid(f"{text} is a group", hint=hint)


def _look_in_group(client: HostClient, selector: str, known: JobAttempts) -> Shown:
    group_id, _, job_key = selector.partition("/")
    has_ended, class_name, metadata = False, "", None
    try:
        summary = summary_of_job(client, group_id, job_key)
    except (Unreachable, Unknown) as error:
        told = why.of_copy(client, group_id, job_key, error)
    else:
        told = why.explain_key(client, summary, job_key)
        has_ended = job_key in summary["results"] or job_key in summary["failures"]
        metadata = summary.get("jobs", {}).get(job_key)
        class_name = client.group(group_id).class_name
    view = _copy(client, known)
    if view is None:
        shown = Shown(job=selector, told=told, class_name=class_name)
    else:
        is_known = has_ended or "collector" in told.data
        shown = _of_view(client, view, selector, told if is_known else why.explain_paglet(client, view))
    kept = kept_of(client, group_id, job_key)
    shown = replace(shown, told=why.with_hooks(client, shown.told, group_id, job_key, kept), kept=kept)
    artifact = _artifact(told)
    gone = _is_gone(client, artifact)
    return replace(
        shown, attempts=known.attempts, silent=known.silent, artifact=artifact, is_gone=gone, metadata=metadata
    )


def _look_at_paglet(client: HostClient, agent_id: str, known: JobAttempts, seconds: float) -> Shown:
    try:
        view = client.paglet(agent_id)
    except Unknown:
        last = known.attempts[-1] if known.attempts else None
        if last is None or not last.group_id:
            raise
        # This copy is gone: what is known of the job is with its group's collector.
        named = f"{last.group_id}/{last.job_key}"
        return _look_in_group(client, named, _attempts(client, named, seconds))
    job = view.job
    named = f"{job.group_id}/{job.job_key}" if job is not None and job.group_id else view.agent_id
    shown = _of_view(client, view, named, why.explain_paglet(client, view))
    return replace(shown, attempts=known.attempts, silent=known.silent)


def _artifact(told: Explanation) -> ArtifactRef | None:
    return artifact_in(told.data.get("result"))


def _is_gone(client: HostClient, artifact: ArtifactRef | None) -> bool:
    """Whether no host that is online has it: it was moved away, or deleted."""
    try:
        return artifact is not None and client.artifact(artifact) is None
    except Unknown:
        return True
    except PagletsError:
        return False


def _attempts(client: HostClient, job: str, seconds: float) -> JobAttempts:
    try:
        return attempts_of(client, job, seconds)
    except PagletsError as error:
        return JobAttempts(attempts=(), unfinished=(), silent=(error,))


def _copy(client: HostClient, known: JobAttempts) -> PagletView | None:
    """The newest copy of the job that is on a host."""
    for copy in sorted(known.unfinished, key=lambda each: (-each.generation, each.residence != "here")):
        try:
            return client.paglet(copy.agent_id)
        except PagletsError:
            continue
    return None


def _of_view(client: HostClient, view: PagletView, job: str, told: Explanation) -> Shown:
    code = None if view.bundle is None else _code(client, view, view.bundle)
    return Shown(job=job, told=told, class_name=view.class_name, is_here=True, code=code, inputs=view.files)


def _code(client: HostClient, view: PagletView, bundle: BlobRef) -> Code:
    try:
        with zipfile.ZipFile(io.BytesIO(client.read_blob(bundle, view.host))) as archive:
            return Code(bundle=bundle, files=tuple((each.filename, each.file_size) for each in archive.infolist()))
    except (PagletsError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        return Code(bundle=bundle, problem=str(error))


# Output.


def _as_json(shown: Shown) -> dict[str, Any]:
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
        **as_json(shown.kept),
        "job_state": shown.told.data,
    }


def print_shown(shown: Shown) -> None:
    code, artifact = shown.code, shown.artifact
    get = "" if artifact is None else f"get it: {command_name()} artifacts get {artifact.artifact_id}"
    print_fields(
        {
            "job": shown.job,
            "class": shown.class_name,
            **{name: value for name, value in shown.told.fields.items() if name not in ("job", "class")},
            "metadata": "" if shown.metadata is None else short_json(shown.metadata),
            "code": _code_text(shown),
            "artifact": ""
            if artifact is None
            else f"{artifact.name} ({bytes_text(artifact.size_bytes)}), " + (GONE if shown.is_gone else get),
            "expires": "" if artifact is None or artifact.expires_at is None else _date(artifact.expires_at),
            "scratch": _kept_text(shown.attempts),
            "output": f"{command_name()} jobs logs {shown.job}" if shown.attempts else "",
        }
    )
    for tail in shown.told.tails if shown.kept.hooks else ():
        print("\n" + "\n".join(printable(line) for line in tail.splitlines()))
    if shown.kept.files:
        print("\nfiles left by the job:")
        rows = [(file.artifact_id, file.name, bytes_text(file.size_bytes), file.host_name) for file in shown.kept.files]
        print_table(("ID", "NAME", "SIZE", "HOST"), rows[:MOST_LINES])
    _table("code", ("FILE", "SIZE"), () if code is None else code.files)
    _table("inputs", ("FILE", "SIZE"), tuple((file.name, file.size_bytes) for file in shown.inputs))
    known = {(each.generation, each.attempt) for each in shown.attempts if each.status}
    # On a host where only a hook of the job ran there is a log, and no attempt.
    runs = [each for each in shown.attempts if each.status or (each.generation, each.attempt) not in known]
    if len(runs) > 1 or any(_is_dead(each) or each.remark for each in runs):
        print("\nattempts:")
        print_table(("ATTEMPT", "STATUS", "HOST", "CAUSE"), [_attempt_row(each) for each in runs])


def _kept_text(attempts: tuple[AttemptView, ...]) -> str:
    """Where the files of an attempt are whose result could not travel."""
    for attempt in reversed(attempts):
        if attempt.scratch and attempt.scratch_removed_at is not None:
            return f"removed on {_date(attempt.scratch_removed_at)}"
        if attempt.scratch:
            return f"{attempt.scratch} on {attempt.host.name}"
    return ""


def _is_dead(attempt: AttemptView) -> bool:
    """Whether it has ended without a result, and the job is tried again."""
    return attempt.ended and bool(attempt.status) and attempt.status not in FINAL


def _attempt_row(attempt: AttemptView) -> tuple[object, ...]:
    dead = "LOST" if attempt.cause in ("host_lost", "launcher_lost") else "FAILED"
    status = f"{dead}, tried again" if _is_dead(attempt) else attempt.status
    return (
        attempt_text(attempt.generation, attempt.attempt),
        status,
        attempt.host.name,
        attempt.cause or attempt.remark,
    )


def _code_text(shown: Shown) -> str:
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
