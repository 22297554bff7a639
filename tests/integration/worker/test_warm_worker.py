"""The process of a warm worker, without a launcher."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from paglets.worker.frames import Unpacker, pack

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
        return ours, subprocess.Popen(program, pass_fds=[theirs.fileno()], stderr=subprocess.PIPE)


def send_job(connection: socket.socket, token: str) -> None:
    with open(os.devnull, "wb") as output:
        data = pack({"go": {"stamp": {"token": token}}})
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


def test_a_worker_that_cannot_handle_a_frame_ends() -> None:
    connection, process = start_worker()
    with connection, process:
        connection.sendall(pack({"go": {}}))
        assert process.wait(20) == 121
