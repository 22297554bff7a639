"""Faults of connections: the hosts of a mesh communicate through proxies that lose, delay, cut and reset."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from byte_jobs import Bytes, BytesState
from mesh_jobs import Task, TaskState
from mesh_paglets import Notes

from paglets.client.fan_out import ask_all
from paglets.host.messaging.outbox import Outbox
from paglets.system.compute_slots import Submission, submit_compute_job_group
from tests.acceptance.rig import PATIENCE_SECONDS, MakeMesh, Mesh, starts_of, wait_running, wait_until
from tests.fault.hosts import is_online
from tests.fault.plan import Wave
from tests.fault.proxy import FaultProxy
from tests.fault.verdict import check_whole

NAMES = ("laptop", "keeper", "worker")
PIECE_BYTES = 8 << 20
ARTIFACT_BYTES = 9 << 20
"""The size of two pieces."""

USUAL_SECONDS_OF_A_CALL = 2.0
"""The time limit of a request to a healthy host. It takes milliseconds, but the machine may be busy."""

MOST_SECONDS_OF_A_CALL = Outbox.answer_seconds / 3
"""The time limit of most requests.

A request that waited for pending requests to an unresponsive host would take as long as their timeout. A single one may
exceed the limit, since any process may be delayed once.
"""


class Harmed:
    """A mesh with a proxy for each host. The tests themselves bypass the proxies."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self.proxies = {name: FaultProxy(seed=n) for n, name in enumerate(NAMES)}

    def start(self) -> None:
        for name in NAMES:
            proxy = self.proxies[name]
            peer = () if name == "laptop" else ("--peer", self.proxies["laptop"].url)
            self.mesh.start(name, "--public-url", proxy.url, "--cpu-cores", 2, "--tag", name, *peer)
            proxy.port = self.mesh[name].port
        self.mesh.wait_joined()
        # From now on every host has the code of the jobs.
        self.submit("first", [BytesState(job_key="first")]).drain(timeout=PATIENCE_SECONDS)

    def heal(self) -> None:
        for proxy in self.proxies.values():
            proxy.heal()

    def close(self) -> None:
        for proxy in self.proxies.values():
            proxy.close()

    def submit(self, group_id: str, states: list[Any], cls: type[Any] = Bytes) -> Submission:
        """Submit a group that `keeper` collects and `worker` runs."""
        for state in states:
            state.required_host_tags = ("worker",)
        client = self.mesh["laptop"].client
        isolation = "worker" if cls is Bytes else "process"
        return submit_compute_job_group(
            client, cls, states, group_id=group_id, collector_host="keeper", isolation=isolation
        )


@pytest.fixture(scope="module")
def trio(make_mesh: MakeMesh) -> Iterator[Mesh]:
    with make_mesh("harmed") as mesh:
        yield mesh


@pytest.fixture(scope="module")
def started(trio: Mesh) -> Iterator[Harmed]:
    harmed = Harmed(trio)
    try:
        harmed.start()
        yield harmed
    finally:
        harmed.close()


@pytest.fixture
def harmed(started: Harmed) -> Iterator[Harmed]:
    """Return a mesh without faults. Tests add them."""
    started.heal()
    started.mesh.wait_joined()
    yield started
    started.heal()


def drain_whole(harmed: Harmed, submission: Submission, states: list[BytesState], folder: Path) -> dict[str, Any]:
    """Wait for the end of the group, check that nothing is lost, and return the records."""
    results: dict[str, Any] = submission.drain(timeout=PATIENCE_SECONDS)["results"]
    group = Wave(group_id=submission.group_id, at=0.0, states=tuple(states), collector_host=None)
    check_whole(harmed.mesh, group, folder)
    return results


def test_a_result_whose_acknowledgement_is_lost_is_one_result(harmed: Harmed, tmp_path: Path) -> None:
    worker, keeper = harmed.mesh["worker"], harmed.mesh["keeper"]
    state = TaskState(job_key="one", how="waits", path=str(tmp_path / "job"))
    submission = harmed.submit("one-way", [state], Task)
    wait_running(tmp_path / "job")

    harmed.proxies["keeper"].set(drops_replies=True)
    (tmp_path / "job.go").touch()
    wait_until(lambda: keeper.client.summary("one-way")["completed_count"] == 1, what="the report to come")
    assert worker.rows("SELECT 1 FROM outbox"), "the host of the job cannot know that it came"
    harmed.heal()

    wait_until(lambda: not worker.rows("SELECT 1 FROM outbox"), what="the report to be acknowledged")
    summary = submission.summary()
    assert (summary["completed_count"], summary["duplicate_reports"]) == (1, [])
    record = summary["results"]["one"]
    assert (record["generation"], record["attempt"]) == (1, 1)


def test_a_partition_while_a_job_runs_makes_no_second_attempt(harmed: Harmed, tmp_path: Path) -> None:
    state = TaskState(job_key="one", how="waits", path=str(tmp_path / "job"))
    submission = harmed.submit("short", [state], Task)
    wait_running(tmp_path / "job")

    # All of them: a host takes another for online if a third one reports it.
    for proxy in harmed.proxies.values():
        proxy.set(swallows=True)
    (tmp_path / "job.go").touch()
    worker = harmed.mesh["worker"]
    wait_until(lambda: worker.rows("SELECT 1 FROM outbox"), what="the job to have reported")
    wait_until(lambda: not worker.client.slots().running_jobs, what="its slot to be free")
    keeper = harmed.mesh["keeper"]
    wait_until(lambda: not is_online(keeper, "worker"), what="the worker to count as offline")
    harmed.heal()

    record = submission.drain(timeout=PATIENCE_SECONDS)["results"]["one"]
    assert (record["generation"], record["attempt"]) == (1, 1)
    assert len(starts_of(tmp_path / "job")) == 1


@pytest.mark.parametrize("harm", [{"swallows": True}, {"bytes_a_second": 1.0}], ids=["black hole", "1 B/s"])
def test_a_host_that_does_not_answer_holds_up_nobody_else(harmed: Harmed, harm: dict[str, Any]) -> None:
    laptop, worker = harmed.mesh["laptop"], harmed.mesh["worker"]
    notes = worker.client.create(Notes)
    laptop.client.call(notes.ref, "add", amount=1)
    away = laptop.client.group("first").collector

    harmed.proxies["keeper"].set(**harm)
    # Enough for that host to do, of all that goes to others.
    for _ in range(20):
        laptop.client.post(away, "nothing that it knows")
    took = []
    for _ in range(20):
        began = time.monotonic()
        laptop.client.call(notes.ref, "add", amount=1)
        took.append(time.monotonic() - began)
    laptop.client.post(notes.ref, "add", amount=1)
    began = time.monotonic()
    wait_until(lambda: worker.client.paglet(notes.ref).state["total"] == 22, what="the post to come")
    took.append(time.monotonic() - began)

    assert median(took) < USUAL_SECONDS_OF_A_CALL, sorted(took)
    assert max(took) < MOST_SECONDS_OF_A_CALL, sorted(took)
    harmed.heal()
    worker.client.dispose(notes.ref)
    wait_until(lambda: not laptop.rows("SELECT 1 FROM outbox"), what="the posts to have gone")


def test_a_command_to_all_hosts_waits_once_and_names_unresponsive_ones(harmed: Harmed) -> None:
    for name in ("keeper", "worker"):
        harmed.proxies[name].set(swallows=True)

    commands = (("list",), ("notes",), ("artifacts", "list"))
    for done in ask_all(lambda words: harmed.mesh.paglets(*words, "--at", "laptop"), commands):
        assert done.code == 4, done
        assert done.err.startswith("paglets: waiting up to 5 s for hosts that have not answered\n")
        assert "\npaglets: no answer from keeper, worker" in done.err
        assert "there are no" not in done.err

    # Each command queried both at once: it began with the second before it gave up the first.
    keeper, worker = (harmed.proxies[name].visits for name in ("keeper", "worker"))
    assert len(keeper) == len(worker) >= len(commands)
    for one, other in zip(keeper, worker, strict=True):
        assert max(one.since, other.since) < min(one.until, other.until)


def test_who_cannot_connect_to_whom_and_who_has_another_key_is_told_everywhere(harmed: Harmed) -> None:
    mesh, laptop = harmed.mesh, harmed.mesh["laptop"]
    home = mesh.folder / "stranger"
    home.mkdir(mode=0o700)
    (home / "mesh.key").write_text(secrets.token_urlsafe(32))
    (home / "mesh.key").chmod(0o600)
    stranger = mesh.start("stranger", "--peer", laptop.url, home=home)
    harmed.proxies["worker"].set(refuses=True)

    def seen() -> set[tuple[str, str]]:
        return {(cut.source, cut.target) for cut in laptop.client.mesh_state().broken_links}

    wait_until(lambda: seen() >= {("keeper", "worker"), ("laptop", "worker")}, what="the cuts to be known")
    assert is_online(laptop, "worker"), "it speaks to the others"
    hosts, doctor = mesh.paglets("mesh", "hosts", "--at", "laptop"), mesh.paglets("doctor", "--at", "laptop")
    assert "paglets: keeper cannot connect to worker (" in hosts.err
    assert "paglets: worker: laptop cannot connect to worker at " in hosts.err
    assert "bad      host keeper: keeper cannot connect to worker (" in doctor.out
    for told in (hosts.err, doctor.out):
        assert "refused a host at this machine: wrong mesh key (last " in told
    stranger.stop()
    harmed.heal()
    wait_until(lambda: not seen(), what="the cuts to be over")


@pytest.mark.parametrize("cut", [0, 1, ARTIFACT_BYTES - 1, ARTIFACT_BYTES])
def test_an_artifact_whose_connection_was_cut_goes_on_and_is_whole(harmed: Harmed, tmp_path: Path, cut: int) -> None:
    proxy = harmed.proxies["keeper"]
    proxy.set(cut_after=cut)
    cuts = proxy.cuts
    states = [BytesState(job_key=f"cut-{cut}", size_bytes=ARTIFACT_BYTES)]

    submission = harmed.submit(f"cut-{cut}", states)

    drain_whole(harmed, submission, states, tmp_path)
    assert proxy.cuts > cuts
    # Acknowledged bytes are not sent again. The host may be asked about the last piece before it has handled it.
    again = proxy.passed - ARTIFACT_BYTES
    assert again in ((0, ARTIFACT_BYTES - PIECE_BYTES) if cut == ARTIFACT_BYTES else (cut % PIECE_BYTES,))


def test_a_group_ends_on_a_slow_network_that_resets_connections(harmed: Harmed, tmp_path: Path) -> None:
    for proxy in harmed.proxies.values():
        proxy.set(delay_seconds=0.1, resets=0.05)
    cuts = sum(proxy.cuts for proxy in harmed.proxies.values())
    states = [BytesState(job_key=f"slow-{n}", size_bytes=100_000) for n in range(8)]
    submission = harmed.submit("slow", states)
    submission.drain(timeout=90)
    assert sum(proxy.cuts for proxy in harmed.proxies.values()) > cuts
    harmed.heal()

    results = drain_whole(harmed, submission, states, tmp_path)

    assert {record["attempt"] for record in results.values()} == {1}
