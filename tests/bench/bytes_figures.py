"""`python -m tests.bench.bytes_figures`: how long a large result takes, against the plainest way; one JSON line.

- `plain_seconds`: 256 MB from `python -m http.server` by `urllib` to a file, then its SHA-256.
- `same_host_seconds`: from the call of `report_compute_artifact` in the job to the verified file on the submitter's
  disk, with the collector on the worker, as it is with two hosts.
- `other_host_seconds`: the same with the collector on a third host, so that the bytes cross the wire twice.
- `download_seconds`: of that, `HostClient.download_artifact` alone.

Each is the median of ROUNDS, which alternate; a ratio is of the medians, and `best_...` of the shortest. All is
written to files that are new: on a virtual machine whose hypervisor takes free memory back, 256 MB of them take
0.1 s, or 0.7 s where that memory must be fetched first, which says nothing of any program. So the bench fetches
memory before each (`fetch_memory`).
"""

from __future__ import annotations

import hashlib
import os
import platform
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from paglets.artifacts import ArtifactRef
from paglets.system.compute_slots import submit_compute_job_group
from tests.acceptance.rig import HostProcess, Mesh, free_port
from tests.bench import print_figures
from tests.fakes.waiting import wait_until

JOBS = Path(__file__).parent
sys.path.append(str(JOBS))

from bench_jobs import Large, LargeState  # noqa: E402  found through the line above, as on the hosts

SIZE_BYTES = 256 << 20
ROUNDS = 7
PIECE_BYTES = 1 << 20
FETCHED_BYTES = 2 << 30


def fetch_memory(folder: Path) -> None:
    """Let the system acquire free memory by creating and removing files, so that no measurement waits for it."""
    block = bytes(PIECE_BYTES)
    for name in ("1", "2"):
        with (folder / name).open("wb") as file:
            for _ in range(FETCHED_BYTES // PIECE_BYTES // 2):
                file.write(block)
    for name in ("1", "2"):
        (folder / name).unlink()


def plain(url: str, target: Path) -> float:
    """Download and hash. Return the seconds."""
    began = time.monotonic()
    with urllib.request.urlopen(url) as reply, target.open("wb") as file:
        while piece := reply.read(PIECE_BYTES):
            file.write(piece)
    with target.open("rb") as file:
        hashlib.file_digest(file, "sha256").hexdigest()
    return time.monotonic() - began


def result(submitter: HostProcess, collector: str | None, target: Path) -> tuple[float, float]:
    """Return the seconds from the job's call to the submitter's disk, and those of the download alone."""
    state = LargeState(size_bytes=SIZE_BYTES, required_host_tags=("worker",))
    submission = submit_compute_job_group(submitter.client, Large, [state], collector_host=collector)
    (record,) = submission.drain(120)["results"].values()
    ref = ArtifactRef.from_wire(record["result"]["artifact"])
    began = time.time()
    submitter.client.download_artifact(ref, target)
    ended = time.time()
    submitter.client.delete_artifact(ref)
    return ended - record["result"]["began"], ended - began


def figures(folder: Path, archive: Path) -> dict[str, object]:
    source = folder / "source"
    source.mkdir()
    with (source / "large.bin").open("wb") as file:
        for _ in range(SIZE_BYTES // PIECE_BYTES):
            file.write(os.urandom(PIECE_BYTES))
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(source)],
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    mesh = Mesh(folder / "mesh", archive, sys.executable)
    try:
        url = f"http://127.0.0.1:{port}/large.bin"
        wait_until(lambda: _answers(url), what="http.server")
        submitter = mesh.start("submitter", "--cpu-cores", 1)
        for name in ("worker", "keeper"):
            mesh.start(name, "--peer", submitter.url, "--code-path", JOBS, "--tag", name)
        mesh.wait_joined()
        times: dict[str, list[float]] = {name: [] for name in ("plain", "same_host", "other_host", "download")}
        for number in range(ROUNDS):
            fetch_memory(folder)
            times["plain"].append(plain(url, folder / f"plain.{number}"))
            for name in ("same_host", "other_host"):
                fetch_memory(folder)
                target = folder / f"{name}.{number}"
                whole, download = result(submitter, "worker" if name == "same_host" else "keeper", target)
                times[name].append(whole)
                times["download"].append(download)
                target.unlink()
            (folder / f"plain.{number}").unlink()
    finally:
        server.kill()
        server.wait()
        mesh.close()
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    return {
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "megabytes": SIZE_BYTES >> 20,
        **{f"{name}_seconds": round(seconds, 3) for name, seconds in medians.items()},
        **_ratios("plain_by_", medians),
        **_ratios("best_plain_by_", {name: min(seconds) for name, seconds in times.items()}),
    }


def _ratios(prefix: str, seconds: dict[str, float]) -> dict[str, float]:
    return {f"{prefix}{name}": round(seconds["plain"] / each, 2) for name, each in seconds.items() if name != "plain"}


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url) as reply:
            return bool(reply.read(1))
    except OSError:
        return False


if __name__ == "__main__":
    print_figures(figures)
