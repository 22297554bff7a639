"""A host from the archive goes on if the file changes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from paglets.core.command import COMMAND_VARIABLE
from tests.fakes.waiting import wait_until


@pytest.fixture
def host(pyz: Path, tmp_path: Path) -> Iterator[psutil.Popen]:
    """Start a host in its own process from tmp_path/paglets.pyz."""
    (tmp_path / "paglets.pyz").write_bytes(pyz.read_bytes())
    with (tmp_path / "host.err").open("wb") as errors:
        process = psutil.Popen(
            [sys.executable, "paglets.pyz", "host", "--name", "alone", "--port", "0"],
            cwd=tmp_path,
            env=os.environ | {"PAGLETS_HOME": str(tmp_path / "home")},
            stdin=subprocess.DEVNULL,
            stderr=errors,
        )
    try:
        ready = lambda: "is ready" in (tmp_path / "host.err").read_text()  # noqa: E731
        wait_until(ready, timeout_seconds=60, what="the host to be ready")
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        finally:
            if process.is_running():
                process.kill()


def zygote_of(host: psutil.Popen) -> Callable[[], psutil.Process | None]:
    def find() -> psutil.Process | None:
        return next((child for child in host.children() if is_zygote(child)), None)

    return find


def is_zygote(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE and process.cmdline()[-1:] == ["_zygote"]
    except psutil.NoSuchProcess:  # the process ended between two checks
        return False


def test_a_host_and_what_it_starts_later_run_from_the_copy(host, run, pyz, tmp_path):
    (tmp_path / "paglets.pyz").write_bytes(b"another file")
    (copy,) = (tmp_path / "home" / "cache" / "app").iterdir()
    first = wait_until(zygote_of(host), timeout_seconds=60, what="the zygote")
    first.kill()

    def next_one() -> psutil.Process | None:
        found = zygote_of(host)()
        return found if found is not None and found.pid != first.pid else None

    second = wait_until(next_one, timeout_seconds=60, what="the next zygote")
    assert str(copy) in second.cmdline()
    # Others read the output of jobs, so it must not name a path of this machine.
    assert second.environ()[COMMAND_VARIABLE] == f"paglets\t{copy}"
    seen = run(sys.executable, pyz, "mesh", "hosts", "--json")
    assert seen.returncode == 0, seen.stderr
    # A command that a busy machine delays prints what it waits for.
    assert [line for line in seen.stderr.splitlines() if not line.startswith("paglets: waiting for ")] == []
    assert "alone" in seen.stdout
