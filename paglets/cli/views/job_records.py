"""Texts and table rows for records of jobs in a group's summary."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from paglets.api.hosts import MeshHostView
from paglets.cli.output import (
    ago,
    attempt_text,
    shortened,
)
from paglets.cli.views.offline_hosts import offline_text
from paglets.cli.views.result_values import result_text
from paglets.cli.views.wait_reasons import wait_reason_text
from paglets.core.errors import Invalid
from paglets.core.refs import ArtifactRef
from paglets.core.text import duration_text
from paglets.slots.amounts import bytes_text
from paglets.system.progress import how_ended


def ended_line(key: str, record: dict[str, Any]) -> str:
    """Return a line such as `monday  done  linux-a  3.2 s`, with the cause of a failure at its end."""
    runtime = record.get("runtime_seconds")
    why = why_ended(record)
    time_text = "" if runtime is None else duration_text(runtime)
    return "  ".join(part for part in (key, how_ended(record), record.get("host_name") or "", time_text, why) if part)


def why_ended(record: dict[str, Any]) -> str:
    """Return cause and message of a failed job, only the message of a cancelled job, or "" for a job with a result."""
    if "cause" not in record:
        return ""
    message = shortened(message_of(record))
    return message if is_cancelled(record) else f"{record['cause']}: {message}" if message else record["cause"]


MOST_RESULT_CHARACTERS = 60


def pending_row(job: dict[str, Any], now: float, hosts: Mapping[str, MeshHostView]) -> tuple[object, ...]:
    """Return the table row of a pending job. `hosts`: the hosts of the mesh by name.

    If the job's host is offline, the row says that instead of the reason, which is out of date.
    """
    name = job.get("host_name") or ""
    reason = wait_reason_text(job.get("reason") or "", job.get("reason_text") or "", never=bool(job.get("never")))
    why = offline_text(hosts[name]) if name in hosts and not hosts[name].online else reason
    return (job["job_key"], job["status"], name, ago(job.get("since"), now), why)


def result_row(job_key: str, record: dict[str, Any]) -> tuple[object, ...]:
    runtime = record.get("runtime_seconds")
    time_text = "" if runtime is None else duration_text(runtime)
    artifact, result = split_artifact(record.get("result"))
    text = "" if artifact is not None and not result else result_text(result)
    return (job_key, record.get("host_name") or "", time_text, artifact.name if artifact else "", shortened(text))


def split_artifact(result: Any) -> tuple[ArtifactRef | None, Any]:
    """Split a result into its artifact (None if it has no artifact) and its other values."""
    artifact = artifact_in(result)
    if artifact is None:
        return None, result
    return artifact, {name: value for name, value in result.items() if name != "artifact"}


def result_fields(record: dict[str, Any]) -> dict[str, str]:
    """Return the output fields `result` and `artifact` for a job's record, or {} for a failure."""
    if "result" not in record:
        return {}
    artifact, result = split_artifact(record["result"])
    if artifact is None:
        return {"result": short_result(result)}
    file = f"{artifact.name} ({bytes_text(artifact.size_bytes)})"
    return {"result": short_result(result) if result else "", "artifact": file}


def short_result(result: Any) -> str:
    """Return a result as text. On a terminal, it is cut after MOST_RESULT_CHARACTERS."""
    text = result_text(result)
    cut = len(text) > MOST_RESULT_CHARACTERS and sys.stdout.isatty()
    return f"{text[:MOST_RESULT_CHARACTERS]}..." if cut else text


def is_cancelled(record: dict[str, Any]) -> bool:
    return bool(record["cause"] == "cancelled")


def message_of(failure: dict[str, Any]) -> str:
    """Return the message of a failure without the cause: `by ann` for `cancelled: by ann`."""
    message, cause = failure.get("message") or "", failure["cause"]
    return "" if message == cause else message.removeprefix(f"{cause}: ")


def failure_row(job_key: str, failure: dict[str, Any]) -> tuple[object, ...]:
    run = attempt_text(failure.get("generation"), failure.get("attempt"))
    return (job_key, failure["cause"], failure.get("host_name") or "", run, shortened(message_of(failure)))


def artifact_in(result: Any) -> ArtifactRef | None:
    """Return the artifact that `report_compute_artifact` put into a result (tagged JSON), or None."""
    tree = result.get("artifact") if isinstance(result, dict) else None
    if not isinstance(tree, dict):
        return None
    try:
        return ArtifactRef.from_wire(tree)
    # The job itself put another value under the name `artifact` into its result, so there is no artifact.
    except Invalid:
        return None
