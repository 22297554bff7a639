"""The lookup of a group whose collector is unreachable: its last counts, and its reports and jobs on other hosts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from paglets.api.groups import WaitingReport
from paglets.cli.options import LOOK_SECONDS
from paglets.cli.output import (
    notice_if_slow,
    waiting_for_all,
)
from paglets.cli.views.job_records import artifact_in
from paglets.cli.views.orphaned_groups import OrphanedGroupReport, UnreportedJob
from paglets.client.host_client import HostClient
from paglets.client.orphaned_groups import newest_reports
from paglets.core.errors import PagletsError, Unreachable
from paglets.core.refs import ArtifactRef, HostRef


def find_orphaned_group(client: HostClient, group_id: str, error: PagletsError) -> OrphanedGroupReport | None:
    """Ask all online hosts about a group, and return their combined answers, or None if no host knows the group.

    `error`: the error of the request to the collector.
    """
    with notice_if_slow(waiting_for_all(LOOK_SECONDS)):
        lines, _ = client.mesh_groups(LOOK_SECONDS)
        left = client.orphaned_group(group_id, timeout=LOOK_SECONDS)
        reports = newest_reports((host, _without_result(report)) for host, report in client.waiting_reports(left))
    line = next((each for each in lines if each.group_id == group_id), None)
    if line is None and not left.hosts:
        return None
    finished = tuple(_finished(host, report) for host, report in reports.values())
    return OrphanedGroupReport(group_id=group_id, error=error, line=line, left=left, finished=finished)


def _without_result(report: WaitingReport) -> WaitingReport:
    """Return the report without its result, which may be large. The file that the job reported becomes the first one.

    The other artifacts are large values of the result: without a collector, users can read them only as files.
    """
    named = artifact_in(report.record.get("result"))
    files = tuple(sorted(report.artifacts, key=lambda each: named is None or each.artifact_id != named.artifact_id))
    kept = ("generation", "attempt", "cause")
    record = {name: report.record[name] for name in kept if name in report.record}
    return WaitingReport(
        n=report.n,
        job_key=report.job_key,
        agent_id=report.agent_id,
        kind=report.kind,
        record=record,
        artifacts=files,
    )


def _finished(host: HostRef, report: WaitingReport) -> UnreportedJob:
    return UnreportedJob(
        job_key=report.job_key,
        kind=report.kind,
        host_name=host.name,
        generation=report.record["generation"],
        attempt=report.record["attempt"],
        cause=report.record.get("cause", ""),
        files=tuple(
            {"artifact_id": each.artifact_id, "name": each.name, "size_bytes": each.size_bytes}
            for each in report.artifacts
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingFiles:
    """The files of reports that wait for their collector, each with the key of its job.

    `without_file`: the number of results without a file. `failed`: the number of failures without a file.
    `unreachable`: the errors of hosts that may have more reports.
    """

    files: tuple[tuple[str, ArtifactRef], ...]
    without_file: int
    failed: int
    unreachable: tuple[PagletsError, ...]


def waiting_files(client: HostClient, group_id: str) -> WaitingFiles:
    """Return the files of a group's waiting reports on all hosts, including large values of results."""
    left = client.orphaned_group(group_id)
    reports = newest_reports((host, _without_result(report)) for host, report in client.waiting_reports(left))
    files = tuple((key, file) for key, (_, report) in reports.items() for file in report.artifacts)
    kinds = Counter(report.kind for _, report in reports.values() if not report.artifacts)
    unreachable = tuple(Unreachable(f"{name}: {why}") for name, why in left.unreachable.items())
    return WaitingFiles(files=files, without_file=kinds["result"], failed=kinds["failure"], unreachable=unreachable)


def waiting_file(client: HostClient, group_id: str, job_key: str, error: PagletsError) -> ArtifactRef:
    """Return the first file of a job's waiting report. Raises `error` if no host has such a report with a file."""
    found = newest_reports(client.waiting_reports(client.orphaned_group(group_id), job_key)).get(job_key)
    files = () if found is None else _without_result(found[1]).artifacts
    if not files:
        raise error
    return files[0]
