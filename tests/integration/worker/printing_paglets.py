"""Paglets that print."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

from worker_paglets import Plain, note_pid_and_sleep

MIB = 1 << 20


def numbered(count: int) -> bytes:
    """Return `count` bytes. Each group of eight is its own offset."""
    return b"".join(b"%07d\n" % nth for nth in range(count // 8))


def write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


class PrintsMuch(Plain):
    """A job that prints `number` MiB to stdout and the same to stderr."""

    def compute_attempt(self) -> None:
        data = numbered(self.state.number * MIB)
        write_all(1, data)
        write_all(2, data)


class PrintsBytes(Plain):
    def compute_attempt(self) -> None:
        write_all(1, bytes(range(256)) * 3)
        sys.stdout.write("no newline")


class PrintsForEver(Plain):
    def compute_attempt(self) -> None:
        while True:
            write_all(1, b"and so on\n" * 6000)


class ClosesItsStdout(Plain):
    def compute_attempt(self) -> None:
        print("said before")
        os.close(1)
        print("said after", file=sys.stderr)
        self.context.report({"success": True, "result": {}})


class LeavesAPrinter(Plain):
    """A job whose child, in its own session, keeps stdout open and prints forever."""

    def compute_attempt(self) -> None:
        code = "import sys\nwhile True: sys.stdout.write('still here\\n' * 1000)"
        subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
        print("it was the last word", file=sys.stderr)


class SaysWhatItMay(Plain):
    """A job that prints its limit of descriptors and then waits."""

    def compute_attempt(self) -> None:
        Path(self.state.path + ".limit").write_text(str(resource.getrlimit(resource.RLIMIT_NOFILE)[0]))
        note_pid_and_sleep(self.state.path)
