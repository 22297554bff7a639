"""Checks after the last fault: each record, each artifact, and nothing left over."""

from __future__ import annotations

import hashlib
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paglets.artifacts import ArtifactRef
from paglets.client.host_client import HostClient
from paglets.core.errors import PagletsError
from tests.acceptance.rig import Mesh, wait_until
from tests.fault.plan import HOME, Wave

from byte_jobs import content  # isort: skip  (its folder is on the path since the rig was imported)


@dataclass(kw_only=True)
class Verdict:
    """The printed line. `waves`: groups in the plan. `attempts`, `generations`: sums over the records.

    `left`: everything that should be gone.
    """

    seed: int
    jobs: int
    kills: int = 0
    points: int = 0
    ends: int = 0
    restarts: int = 0
    cuts: int = 0
    harms: int = 0
    stops: int = 0
    waves: int = 0
    acknowledged: int = 0
    submissions: int = 0
    generations: int = 0
    attempts: int = 0
    failed: int = 0
    duplicates: int = 0
    lost: int = 0
    wrong: int = 0
    seconds_to_heal: float = 0.0
    left: list[str] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        lacking = self.waves - self.acknowledged
        return not (self.lost or self.wrong or self.failed or self.left or lacking)


def look(mesh: Mesh, wave: Wave, verdict: Verdict, folder: Path) -> None:
    """Count the jobs of the group's collector, and compare every artifact with its expected content."""
    client = mesh[HOME].client
    try:
        summary = client.summary(wave.group_id)
    except PagletsError as error:
        print(f"{wave.group_id}: {error}", file=sys.stderr)
        verdict.lost += len(wave.states)
        return
    results = summary["results"]
    sizes = {state.job_key: state.size_bytes for state in wave.states}
    verdict.failed += len(summary["failures"])
    verdict.duplicates += len(summary["duplicate_reports"])
    verdict.wrong += len(results.keys() - sizes.keys()) + len(summary["unexpected_reports"])
    for key, size in sizes.items():
        if key in results:
            verdict.attempts += results[key]["attempt"]
            verdict.generations += results[key]["generation"]
            verdict.wrong += not is_whole(client, results[key]["result"], content(key, size), folder / key)
        elif key in summary["failures"]:
            print(f"{key}: {summary['failures'][key]}", file=sys.stderr)
        else:
            verdict.lost += 1
            pending = [job for job in summary["pending_jobs"] if job["job_key"] == key]
            print(f"{key}: no record; {pending}", file=sys.stderr)


def check_whole(mesh: Mesh, wave: Wave, folder: Path) -> None:
    """Check that each job of the group has one record, and its artifact."""
    verdict = Verdict(seed=0, jobs=len(wave.states))
    look(mesh, wave, verdict, folder)
    assert verdict.is_good, verdict
    assert verdict.duplicates == 0, verdict


def is_whole(client: HostClient, result: dict[str, Any], data: bytes, target: Path) -> bool:
    """Return True if the record and the artifact it names are those of these bytes."""
    sha256 = hashlib.sha256(data).hexdigest()
    if not data:
        return bool(result["sha256"] == sha256 and "artifact" not in result)
    try:
        ref = ArtifactRef.from_wire(result["artifact"])
        right = result["sha256"] == ref.sha256 == sha256 and client.download_artifact(ref, target).read_bytes() == data
        target.unlink()
    except (PagletsError, OSError, KeyError) as error:
        print(f"{target.name}: its artifact: {error!r}", file=sys.stderr)
        return False
    return right


LEFT_ROWS = {
    "outbox": "SELECT n, problem FROM outbox",
    "leases": "SELECT agent_id FROM leases",
    "runs": "SELECT agent_id, entry FROM runs",
    "handoffs": "SELECT agent_id, problem FROM handoffs",
    "requests": "SELECT agent_id, status, reason_text FROM requests",
}
"""Rows that must not exist when all groups are home."""


def left(mesh: Mesh) -> list[str]:
    found = mesh.strangers() + mesh.scratch_of_nobody()
    for host in mesh.running():
        for table, sql in LEFT_ROWS.items():
            found += [f"{host.name} {table}: {tuple(row)}" for row in host.rows(sql)]
    return found


def wait_quiet(mesh: Mesh) -> list[str]:
    """Return everything that is left after the time limit."""
    found: list[str] = []

    def quiet() -> bool:
        found[:] = left(mesh)
        return not found

    with suppress(AssertionError):
        wait_until(quiet, what="nothing to be left")
    return found
