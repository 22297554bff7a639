"""`python -m tests.bench`: the figures of the spine, from the built archive, as one JSON line.

- `ready_seconds`: from the start of `python paglets.pyz host` to its answer; the median of five.
- `idle_pss_mb`, `idle_core_percent`: all processes of one idle host of a mesh of three, over ten seconds.
- `jobs_seconds`, `jobs_per_second`: 1,000 trivial jobs on two hosts of two slots, from submission to all results.
- `turn_ms`: on a host of one slot, from the last line of one job to the first line of the next: median, 95 %
  and most. It holds the report and the end of one process, the grant, and the start of the next.
- `grant_ms`: of that, from the commit that frees the slot to the one that grants it.
"""

from __future__ import annotations

import itertools
import json
import os
import platform
import statistics
import sys
import time
from pathlib import Path

import psutil

from paglets.client.host_client import HostClient
from paglets.system.compute_slots import submit_compute_job_group
from tests.acceptance.rig import HostProcess, Mesh
from tests.bench import print_figures

JOBS = Path(__file__).parent
sys.path.append(str(JOBS))

from bench_jobs import Stamped, StampedState  # noqa: E402  found through the line above, as on the hosts

IDLE_SECONDS = 10.0
MANY_JOBS = 1_000
TURN_JOBS = 100


def ready_seconds(folder: Path, archive: Path) -> float:
    """Return the median of five starts."""
    mesh = Mesh(folder / "ready", archive, sys.executable)
    taken = []
    try:
        host = mesh.host("alone")
        for _ in range(5):
            began = time.monotonic()
            host.spawn()
            host.wait_ready()
            taken.append(time.monotonic() - began)
            host.stop()
    finally:
        mesh.close()
    return round(statistics.median(taken), 3)


def processes_of(host: HostProcess) -> list[psutil.Process]:
    top = psutil.Process(host.pid)
    return [top, *top.children(recursive=True)]


def idle_figures(host: HostProcess) -> tuple[float, float]:
    """Return the PSS in MB and the percentage of a core of an idle host."""

    def cpu() -> float:
        return sum(sum(each.cpu_times()[:2]) for each in processes_of(host))

    before = cpu()
    time.sleep(IDLE_SECONDS)  # The figure is a mean over this time; the sleep does not wait for a condition.
    used = cpu() - before
    pss = sum(each.memory_full_info().pss for each in processes_of(host))
    return round(pss / 1e6, 1), round(100 * used / IDLE_SECONDS, 2)


def many_jobs(client: HostClient) -> float:
    began = time.monotonic()
    submission = submit_compute_job_group(client, Stamped, [StampedState() for _ in range(MANY_JOBS)])
    summary = submission.drain(300)
    taken = time.monotonic() - began
    assert summary["completed_count"] == MANY_JOBS, summary["failures"]
    return taken


def turns(client: HostClient) -> list[float]:
    """Return the milliseconds between jobs that run one after the other."""
    submission = submit_compute_job_group(client, Stamped, [StampedState() for _ in range(TURN_JOBS)])
    submission.drain(120)
    records = sorted((record["result"] for record in submission.results().values()), key=lambda r: r["began"])
    return [1000 * (later["began"] - earlier["ended"]) for earlier, later in itertools.pairwise(records)]


def grants(host: HostProcess) -> list[float]:
    """Return the milliseconds from the end of a lease to the next grant, from the host's history."""
    rows = host.rows("SELECT record, ended_at FROM history ORDER BY id")
    granted = [json.loads(row["record"])["granted_at"] for row in rows]
    return [1000 * (then - row["ended_at"]) for row, then in zip(rows, granted[1:], strict=False)]


def spread(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {
        "median": round(statistics.median(ordered), 1),
        "p95": round(ordered[int(0.95 * (len(ordered) - 1))], 1),
        "most": round(ordered[-1], 1),
    }


def figures(folder: Path, archive: Path) -> dict[str, object]:
    found: dict[str, object] = {
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "ready_seconds": ready_seconds(folder, archive),
    }
    mesh = Mesh(folder / "mesh", archive, sys.executable)
    try:
        submitter = mesh.start("submitter", "--cpu-cores", 1)
        common = ("--peer", submitter.url, "--code-path", JOBS)
        first = mesh.start("first", *common, "--cpu-cores", 2)
        mesh.start("second", *common, "--cpu-cores", 2)
        mesh.wait_joined()
        found["idle_pss_mb"], found["idle_core_percent"] = idle_figures(first)
        seconds = many_jobs(submitter.client)
        found |= {"jobs_seconds": round(seconds, 2), "jobs_per_second": round(MANY_JOBS / seconds, 1)}
    finally:
        mesh.close()
    mesh = Mesh(folder / "turns", archive, sys.executable)
    try:
        submitter = mesh.start("submitter", "--cpu-cores", 1)
        worker = mesh.start("worker", "--peer", submitter.url, "--code-path", JOBS, "--cpu-cores", 1)
        mesh.wait_joined()
        found["turn_ms"] = spread(turns(submitter.client))
        found["grant_ms"] = spread(grants(worker))
    finally:
        mesh.close()
    return found


if __name__ == "__main__":
    print_figures(figures)
