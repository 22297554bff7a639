"""The handler of `paglets jobs show`: all details of one job."""

from __future__ import annotations

import argparse
import io
import zipfile
from dataclasses import replace

from paglets.api.paglets import PagletView
from paglets.cli.collectors import ask_for_job, summary_of_job
from paglets.cli.commands.jobs import why
from paglets.cli.job_copies import attempts_of, kept_of
from paglets.cli.options import LOOK_SECONDS, client_of
from paglets.cli.output import print_json, say
from paglets.cli.views.explanation import Explanation
from paglets.cli.views.job_details import CodeBundle, JobDetails, job_details_json, print_job_details
from paglets.cli.views.job_records import artifact_in
from paglets.cli.views.wait_reasons import job_name
from paglets.client.host_client import HostClient
from paglets.client.job_logs import JobAttempts
from paglets.core.errors import PagletsError, Unknown, Unreachable
from paglets.core.refs import ArtifactRef, BlobRef


def show(options: argparse.Namespace) -> int:
    """Show the job `options.job`, and return the exit code of `jobs why`."""
    with client_of(options) as client:
        found = find_details(client, options.job, options.timeout or LOOK_SECONDS)
    for error in found.unreachable:
        say(error)
    if options.json:
        print_json(job_details_json(found))
    else:
        print_job_details(found)
    return found.explanation.code


def find_details(client: HostClient, selector: str, seconds: float = LOOK_SECONDS) -> JobDetails:
    """Return the details of a job, named by `GROUP/JOBKEY` or the id of a paglet. Raises Unknown, Unreachable.

    `seconds`: the timeout for each host's answer to a request to all hosts.
    """
    known = _attempts(client, selector, seconds)
    _, slash, _ = selector.partition("/")
    if slash:
        return _look_in_group(client, selector, known)
    try:
        return _look_at_paglet(client, selector, known, seconds)
    except Unknown as error:
        raise ask_for_job(client, selector, error) from error


def _look_in_group(client: HostClient, selector: str, known: JobAttempts) -> JobDetails:
    group_id, _, job_key = selector.partition("/")
    has_ended, class_name, metadata = False, "", None
    try:
        summary = summary_of_job(client, group_id, job_key)
    except (Unreachable, Unknown) as error:
        explanation = why.explain_copy(client, group_id, job_key, error)
    else:
        explanation = why.explain_job(client, summary, job_key)
        has_ended = job_key in summary["results"] or job_key in summary["failures"]
        metadata = summary.get("jobs", {}).get(job_key)
        class_name = client.group(group_id).class_name
    view = _copy(client, known)
    if view is None:
        shown = JobDetails(job=selector, explanation=explanation, class_name=class_name)
    else:
        is_known = has_ended or "collector" in explanation.data
        shown = _from_view(client, view, selector, explanation if is_known else why.explain_paglet(client, view))
    kept = kept_of(client, group_id, job_key)
    shown = replace(shown, explanation=why.with_hooks(client, shown.explanation, group_id, job_key, kept), kept=kept)
    artifact = _artifact(explanation)
    gone = _is_gone(client, artifact)
    return replace(
        shown,
        attempts=known.attempts,
        unreachable=known.unreachable,
        artifact=artifact,
        is_gone=gone,
        metadata=metadata,
    )


def _look_at_paglet(client: HostClient, agent_id: str, known: JobAttempts, seconds: float) -> JobDetails:
    try:
        view = client.paglet(agent_id)
    except Unknown:
        last = known.attempts[-1] if known.attempts else None
        if last is None or not last.group_id:
            raise
        # The copy no longer exists, but the group's collector knows the job.
        named = f"{last.group_id}/{last.job_key}"
        return _look_in_group(client, named, _attempts(client, named, seconds))
    named = agent_id if view.job is None else job_name(view.job)
    shown = _from_view(client, view, named, why.explain_paglet(client, view))
    return replace(shown, attempts=known.attempts, unreachable=known.unreachable)


def _artifact(explanation: Explanation) -> ArtifactRef | None:
    return artifact_in(explanation.data.get("result"))


def _is_gone(client: HostClient, artifact: ArtifactRef | None) -> bool:
    """Return True if a job has an artifact that is on no online host."""
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
        return JobAttempts(attempts=(), unfinished=(), unreachable=(error,))


def _copy(client: HostClient, known: JobAttempts) -> PagletView | None:
    """Return the newest copy of the job on a reachable host, or None."""
    for copy in sorted(known.unfinished, key=lambda each: (-each.generation, each.residence != "here")):
        try:
            return client.paglet(copy.agent_id)
        except PagletsError:
            continue
    return None


def _from_view(client: HostClient, view: PagletView, job: str, explanation: Explanation) -> JobDetails:
    code = None if view.bundle is None else _code(client, view, view.bundle)
    return JobDetails(
        job=job, explanation=explanation, class_name=view.class_name, is_here=True, code=code, inputs=view.files
    )


def _code(client: HostClient, view: PagletView, bundle: BlobRef) -> CodeBundle:
    try:
        with zipfile.ZipFile(io.BytesIO(client.read_blob(bundle, view.host))) as archive:
            return CodeBundle(
                bundle=bundle, files=tuple((each.filename, each.file_size) for each in archive.infolist())
            )
    except (PagletsError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        return CodeBundle(bundle=bundle, problem=str(error))
