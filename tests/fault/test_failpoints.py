"""A host dies at each failpoint and restarts: one record a job, artifacts whole, nothing left over."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from byte_jobs import Bytes, BytesState

from paglets.client.host_client import HostClient
from paglets.core.failpoints import POINTS
from paglets.system.compute_slots import submit_compute_job_group
from tests.acceptance.rig import PATIENCE_SECONDS, HostProcess, MakeMesh, Mesh, wait_home, wait_until
from tests.fault.hosts import zygotes
from tests.fault.plan import Wave
from tests.fault.verdict import check_whole, wait_quiet

SIZES = (9 << 20, 100_000, 1)
"""The sizes of the artifacts. The first one needs two pieces."""


@pytest.fixture(scope="module")
def trio(make_mesh: MakeMesh) -> Iterator[Mesh]:
    """Start home, the collector's host and the worker. All have the code of the jobs already."""
    with make_mesh("trio") as mesh:
        home = mesh.start("laptop", "--cpu-cores", 1)
        for name in ("keeper", "worker"):
            mesh.host(name, "--cpu-cores", 2, "--tag", name, "--peer", home.url).spawn()
        for name in ("keeper", "worker"):
            mesh[name].wait_ready()
        mesh.wait_joined()
        submit(mesh, wave("first"))
        wait_home(mesh["laptop"], "first")
        # An armed host must not die of a leftover of this.
        assert wait_quiet(mesh) == []
        yield mesh


def wave(group_id: str) -> Wave:
    states = tuple(
        BytesState(job_key=f"{group_id}-{n}", size_bytes=size, required_host_tags=("worker",), isolation=isolation)
        for n, (size, isolation) in enumerate(zip(SIZES, ("worker", "process", "worker"), strict=True))
    )
    return Wave(group_id=group_id, at=0.0, states=states, collector_host="keeper")


def submit(mesh: Mesh, group: Wave) -> None:
    """Submit like a script that does not notice the host's death: repeat until the host answers."""
    environ = {"PAGLETS_HOME": str(mesh.home)}
    with HostClient(mesh["laptop"].url, environ=environ, timeout=PATIENCE_SECONDS) as client:
        submit_compute_job_group(
            client,
            Bytes,
            list(group.states),
            group_id=group.group_id,
            collector_host=group.collector_host,
            return_home_when_complete=True,
        )


def arm(mesh: Mesh, name: str, spec: str) -> HostProcess:
    """Restart the host with this failpoint."""
    host = mesh[name]
    host.kill()
    host.restart(PAGLETS_FAIL=spec)
    mesh.wait_joined()
    return host


DEATHS = (
    ("laptop", "after-accept-before-commit"),
    ("keeper", "after-accept-before-commit"),
    ("worker", "after-accept-before-commit"),
    ("laptop", "after-commit-before-reply"),
    ("keeper", "after-commit-before-reply"),
    ("worker", "after-commit-before-reply"),
    ("worker", "after-grant-before-spawn"),
    ("worker", "after-spawn-before-record"),
    ("worker", "after-exit-before-report"),
    ("keeper", "mid-artifact"),
    ("worker", "after-artifact-before-rename"),
    ("keeper", "after-artifact-before-rename"),
    ("keeper", "after-report-before-ack"),
    ("worker", "after-ack-before-release"),
    ("keeper", "mid-return-home"),
)


def test_every_point_is_tried() -> None:
    assert {point for _, point in DEATHS} == set(POINTS)


@pytest.mark.parametrize(("victim", "point"), DEATHS)
def test_a_group_is_whole_though_a_host_died_at(trio: Mesh, tmp_path: Path, victim: str, point: str) -> None:
    host = arm(trio, victim, f"{point}:kill")
    group = wave(f"{victim}-{point}")

    with ThreadPoolExecutor(1) as script:
        submitting = script.submit(submit, trio, group)
        assert host.wait_ended() == -signal.SIGKILL
        host.restart()
        submitting.result(PATIENCE_SECONDS)

    wait_home(trio["laptop"], group.group_id)
    check_whole(trio, group, tmp_path)
    assert wait_quiet(trio) == []


def test_what_a_failpoint_raises_is_an_error_that_is_got_over(trio: Mesh, tmp_path: Path) -> None:
    points = ("after-report-before-ack", "mid-artifact")
    keeper = arm(trio, "keeper", ",".join(f"{point}:raise@1" for point in points))
    group = wave("raises")
    submit(trio, group)
    wait_home(trio["laptop"], group.group_id)
    for point in points:
        wait_until(lambda point=point: f"failpoint {point}" in keeper.log.read_text(), what=f"a word on {point}")  # type: ignore[misc]
    check_whole(trio, group, tmp_path)


def test_no_process_of_a_paglet_inherits_the_variable(trio: Mesh) -> None:
    host = arm(trio, "worker", "mid-return-home:kill")
    (zygote,) = wait_until(lambda: zygotes(host), what="a zygote")
    assert "PAGLETS_FAIL" in psutil.Process(host.pid).environ()
    assert "PAGLETS_FAIL" not in zygote.environ()


def test_a_host_does_not_start_with_a_failpoint_that_there_is_not(mesh: Mesh) -> None:
    done = mesh.paglets("host", "--name", "alone", "--port", 0, PAGLETS_FAIL="mid-job:kill")
    assert done.code == 2
    assert "unknown failpoint 'mid-job'" in done.err
