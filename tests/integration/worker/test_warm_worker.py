"""The process of a warm worker, without a launcher."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from paglets.core.record import to_json
from paglets.core.refs import HostRef, ProxyRef
from paglets.worker.frames import Unpacker, pack
from paglets.worker.protocol import Go, Stamp

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="warm workers need Linux")

WORKER = """\
import os
import resource
import socket
import sys

from paglets.worker.zygote.warm_worker import serve_worker

connection = socket.socket(fileno=int(sys.argv[1]))
WITHOUT_ROOM
sys.exit(serve_worker(connection, None))
"""

NO_ROOM = """\
from paglets.worker.zygote import warm_worker

listen = warm_worker.start_listener


def listen_without_room(function):
    # Leave room for one descriptor, so that the kernel drops the second one of a job.
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, free + 1))
    listen(function)


warm_worker.start_listener = listen_without_room
"""


def start_worker(more: str = "") -> tuple[socket.socket, subprocess.Popen[bytes]]:
    ours, theirs = socket.socketpair()
    ours.settimeout(20)
    program = [sys.executable, "-c", WORKER.replace("WITHOUT_ROOM", more), str(theirs.fileno())]
    with theirs:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join((*sys.path, str(Path(__file__).parent)))}
        return ours, subprocess.Popen(program, pass_fds=[theirs.fileno()], stderr=subprocess.PIPE, env=environment)


def returns_result(token: str, work_dir: Path) -> dict[str, Any]:
    """Return the content of `go` for a job that returns its key."""
    host = HostRef(store_id="store-1", name="here", url="http://127.0.0.1:1")
    go = Go(
        stamp=Stamp(agent_id="job-1", epoch=1, generation=1, attempt=1, token=token),
        class_name="worker_paglets:ReturnsItsKey",
        kind="job",
        entry="attempt",
        state={"job_key": token},
        system={},
        host=host,
        work_dir=str(work_dir),
        collector=ProxyRef(agent_id="collector-1", host=host),
    )
    tree: dict[str, Any] = to_json(go)
    return tree


def send_job(connection: socket.socket, token: str, go: dict[str, Any] | None = None) -> None:
    with open(os.devnull, "wb") as output:
        data = pack({"go": go or {"stamp": {"token": token}}})
        socket.send_fds(connection, [data], [output.fileno(), output.fileno()])


def test_a_worker_that_cannot_receive_the_output_of_a_job_gives_the_job_back() -> None:
    connection, process = start_worker(NO_ROOM)
    with connection, process:
        unpacker = Unpacker()
        for token in ("a", "b"):
            send_job(connection, token)
            frames: list[dict[str, object]] = []
            while not frames:
                data = connection.recv(1 << 16)
                assert data, process.communicate()[1]
                frames = unpacker.feed(data)
            assert frames == [{"withdrawn": {"token": token}}]
        connection.close()


def test_a_worker_sends_the_report_of_a_job_with_its_end_and_does_not_wait(tmp_path: Path) -> None:
    connection, process = start_worker()
    with connection, process:
        for token in ("a", "b"):
            send_job(connection, token, returns_result(token, tmp_path))
        unpacker, frames = Unpacker(), list[dict[str, Any]]()
        while len([frame for frame in frames if "ended" in frame]) < 2:
            data = connection.recv(1 << 16)
            assert data, process.communicate()[1]
            frames += unpacker.feed(data)
        assert [frame.get("op") or next(iter(frame)) for frame in frames] == ["began", "done", "ended"] * 2
        reports = [frame["args"]["report"] for frame in frames if "op" in frame]
        assert [(report["success"], report["result"]) for report in reports] == [(True, "a"), (True, "b")]
        assert ["id" in frame for frame in frames if "op" in frame] == [False, False]
        connection.close()


def test_a_worker_that_cannot_handle_a_frame_ends() -> None:
    connection, process = start_worker()
    with connection, process:
        connection.sendall(pack({"go": {}}))
        assert process.wait(20) == 121
