"""The bounds of the templates of a host: how many there are, how long attempts wait, and when templates end."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from paglets.core.refs import BlobRef
from paglets.worker.host.child_link import ChildLink
from paglets.worker.host.heartbeat import HeartbeatTimeouts
from paglets.worker.host.supervisor import ZygoteSupervisor
from paglets.worker.host.template_pool import (
    IDLE_SECONDS,
    IMPORT_SECONDS,
    MAX_TEMPLATES,
    RETRY_SECONDS,
    WAIT_SECONDS,
    TemplatePool,
)
from paglets.worker.host.zygote_link import ZygoteLink
from paglets.worker.launch import LaunchSpec, TemplateSource
from paglets.worker.processes import NoTable
from paglets.worker.protocol import GoCode
from paglets.worker.zygote_protocol import EndRun, ExitedRun, Imported, ImportModule, StartedRun, StartTemplate

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="templates need Linux")


class NoProcess:
    pid = 7

    def resume(self) -> None: ...

    def kill_and_reap(self) -> str:
        return ""


class FakeZygotes:
    """A supervisor that records what it is asked for. Frames are dropped."""

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.shared = ZygoteLink(self.ours, NoProcess(), HeartbeatTimeouts())
        self.shared.ready = True
        self.added: list[ZygoteLink] = []
        self.ended: list[ZygoteLink] = []
        self.sent: list[Any] = []

    def add(self, link: ZygoteLink) -> None:
        self.added.append(link)

    def end(self, link: ZygoteLink) -> None:
        self.ended.append(link)

    def send(self, link: ZygoteLink, record: Any, *descriptors: int) -> None:
        self.sent.append(record)
        for descriptor in descriptors:
            os.close(descriptor)


class Events:
    def __init__(self) -> None:
        self.pids: dict[str, int] = {}

    def started(self, token: str, pid: int, start_time: float) -> None:
        self.pids[token] = pid

    def ended(self, token: str) -> None:
        self.pids.pop(token, None)


class Rig:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.zygotes = FakeZygotes()
        self.events = Events()
        self.busy: set[ZygoteLink] = set()
        self.pool = TemplatePool(
            cast(ZygoteSupervisor, self.zygotes), NoTable(), HeartbeatTimeouts(), self.events, self.busy.__contains__
        )
        self.children = 0

    def child(self, module: str) -> ChildLink:
        self.children += 1
        code = GoCode(bundle=BlobRef(sha256="a" * 64, size_bytes=1), path="", folder="")
        return ChildLink(
            LaunchSpec(
                token=f"run-{self.children}",
                agent_id="job",
                attempt=1,
                work_dir=str(self.folder),
                stdout_path=str(self.folder / "out"),
                stderr_path=str(self.folder / "err"),
                template=TemplateSource(module=module, code=code),
            )
        )

    def ready(self, module: str, now: float) -> ZygoteLink:
        """Make a template whose first run has started."""
        assert self.pool.take(self.child(module), now)
        self.pool.request_forks()
        token = self.zygotes.sent[-1].token
        self.pool.on_started(StartedRun(token=token, pid=1, start_time=1.0))
        link = self.zygotes.added[-1]
        assert self.pool.on_imported(link, Imported(), now) == []
        dict(self.pool.queues())[link].clear()
        return link

    def die(self, token: str, now: float) -> None:
        """Report that the process of a template has been killed."""
        self.pool.on_exited(ExitedRun(token=token, status=9, cpu_seconds=0.0, rss_bytes=0), now)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    rig.pool.close()
    for link in (*rig.zygotes.added, rig.zygotes.shared):
        link.kill_and_reap()
    rig.zygotes.theirs.close()


def test_a_template_imports_only_after_its_process_is_stored(rig: Rig) -> None:
    assert rig.pool.take(rig.child("a"), 0.0)
    rig.pool.request_forks()
    (request,) = rig.zygotes.sent
    assert isinstance(request, StartTemplate)
    rig.pool.on_started(StartedRun(token=request.token, pid=1, start_time=1.0))
    assert rig.zygotes.sent == [request]
    assert list(rig.events.pids) == [request.token]

    rig.pool.allow_import(request.token)

    assert isinstance(rig.zygotes.sent[-1], ImportModule)


def test_attempts_wait_for_an_import_for_a_bounded_time(rig: Rig) -> None:
    waiting = rig.child("a")
    assert rig.pool.take(waiting, 0.0)
    assert rig.pool.do_due(WAIT_SECONDS - 0.1) == []
    assert rig.pool.do_due(WAIT_SECONDS) == [waiting]
    late = rig.child("a")
    assert not rig.pool.take(late, WAIT_SECONDS)
    assert waiting.no_template == late.no_template == "its import takes longer than 10 s"


def test_an_import_that_hangs_is_killed_and_not_tried_again(rig: Rig) -> None:
    assert rig.pool.take(rig.child("a"), 0.0)
    rig.pool.request_forks()
    rig.pool.do_due(WAIT_SECONDS)
    rig.pool.do_due(IMPORT_SECONDS)
    assert isinstance(rig.zygotes.sent[-1], EndRun)
    again = rig.child("a")
    assert not rig.pool.take(again, IMPORT_SECONDS)
    assert "60 s" in again.no_template


def test_a_template_without_runs_ends_after_a_while(rig: Rig) -> None:
    link = rig.ready("a", 0.0)
    rig.pool.note_use(link, 5.0)
    assert rig.pool.next_due() == 5.0 + IDLE_SECONDS
    rig.busy.add(link)
    assert rig.pool.next_due() is None
    rig.busy.clear()
    rig.pool.do_due(5.0 + IDLE_SECONDS)
    assert rig.zygotes.ended == [link]


def test_the_template_that_was_used_least_recently_makes_room(rig: Rig) -> None:
    links = [rig.ready(f"m{number}", float(number)) for number in range(MAX_TEMPLATES)]
    rig.busy.add(links[0])
    assert rig.pool.take(rig.child("new"), 100.0)
    assert rig.zygotes.ended == [links[1]]


def test_templates_without_runs_end_when_their_memory_is_needed(rig: Rig) -> None:
    idle, busy = rig.ready("idle", 0.0), rig.ready("busy", 0.0)
    rig.busy.add(busy)
    rig.pool.take(rig.child("importing"), 1.0)
    rig.pool.end_idle()
    assert rig.zygotes.ended == [idle]


def test_without_room_an_attempt_imports_itself(rig: Rig) -> None:
    rig.busy.update(rig.ready(f"m{number}", 0.0) for number in range(MAX_TEMPLATES))
    child = rig.child("new")
    assert not rig.pool.take(child, 1.0)
    assert child.no_template == ""


@pytest.mark.parametrize("was_requested", [True, False])
def test_a_template_is_made_again_only_if_its_end_was_requested(rig: Rig, was_requested: bool) -> None:
    link = rig.ready("a", 0.0)
    (token,) = rig.events.pids
    if was_requested:
        rig.pool.do_due(IDLE_SECONDS)
    rig.pool.on_gone(link)
    rig.die(token, IDLE_SECONDS)
    assert rig.events.pids == {}
    child = rig.child("a")
    assert rig.pool.take(child, IDLE_SECONDS) == was_requested
    assert ("killed" in child.no_template) != was_requested


def test_a_template_that_died_is_made_again_after_longer_and_longer_pauses(rig: Rig) -> None:
    now = 0.0
    for pause in RETRY_SECONDS:
        link = rig.ready("a", now)
        (token,) = rig.events.pids
        rig.pool.on_gone(link)
        rig.die(token, now)
        refused = rig.child("a")
        assert not rig.pool.take(refused, now + pause - 0.1)
        assert f"was killed or has crashed; a retry follows after {pause:g} s" in refused.no_template
        now += pause
    link = rig.ready("a", now)
    (token,) = rig.events.pids
    rig.pool.on_gone(link)
    rig.die(token, now)
    refused = rig.child("a")
    assert not rig.pool.take(refused, now + 1e6)
    assert refused.no_template.endswith("was killed or has crashed; this happened 4 times")


@pytest.mark.parametrize("has_failed", [True, False])
def test_an_import_is_tried_again_only_if_it_raised_an_error(rig: Rig, has_failed: bool) -> None:
    waiting = rig.child("a")
    assert rig.pool.take(waiting, 0.0)
    rig.pool.request_forks()
    imported = Imported(refusal="its import raised OSError", has_failed=has_failed)
    assert rig.pool.on_imported(rig.zygotes.added[-1], imported, 0.0) == [waiting]
    assert waiting.no_template.startswith("its import raised OSError")
    assert not rig.pool.take(rig.child("a"), RETRY_SECONDS[0] - 0.1)
    assert rig.pool.take(rig.child("a"), RETRY_SECONDS[0]) == has_failed


def test_templates_are_forgotten_with_the_zygote_that_forked_them(rig: Rig) -> None:
    link = rig.ready("a", 0.0)
    rig.pool.on_gone(rig.zygotes.shared)
    assert rig.events.pids == {}
    rig.pool.on_gone(link)
    assert rig.pool.take(rig.child("a"), 0.0)
