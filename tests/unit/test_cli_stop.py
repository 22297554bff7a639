"""The hosts that `paglets stop` stops. It never signals another process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from paglets.cli.commands.stop import Stopped, send, stopped_text
from paglets.cli.main import main
from paglets.core.text import home_path
from paglets.wire.local_hosts import RunningHost, is_running, running_hosts, start_of


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PAGLETS_HOME", str(tmp_path))
    (tmp_path / "run").mkdir()
    return tmp_path


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield process
    process.kill()
    process.wait()


def host_of(pid: int, name: str = "a") -> RunningHost:
    return RunningHost(name=name, url="http://127.0.0.1:1", store_id="s", pid=pid, began=start_of(pid))


def runs_here(home: Path, name: str, pid: int) -> None:
    tree = {"name": name, "url": "http://127.0.0.1:1", "store_id": "s", "pid": pid, "began": start_of(pid)}
    (home / "run" / f"{name}.json").write_text(json.dumps(tree))


def test_the_process_of_a_host_gets_the_signal_and_is_awaited(
    sleeper: subprocess.Popen[bytes],
) -> None:
    host = host_of(sleeper.pid)
    assert send(host, signal.SIGTERM)
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)  # a zombie from here on
    assert not is_running(host)
    assert not send(host, signal.SIGTERM)


def test_a_process_that_has_the_number_of_a_host_by_now_is_left_alone(sleeper: subprocess.Popen[bytes]) -> None:
    before = replace(host_of(sleeper.pid), began=f"{start_of(sleeper.pid)}0")
    assert not send(before, signal.SIGKILL)
    assert sleeper.poll() is None


def test_of_several_hosts_one_must_be_named(
    home: Path, sleeper: subprocess.Popen[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        runs_here(home, name, sleeper.pid)
    assert main(["stop"]) == main(["stop", "a", "--all"]) == 2
    told = capsys.readouterr().err.splitlines()
    assert told[0] == "paglets: 2 hosts run on this machine: a, b"
    assert [line.rpartition("paglets ")[2] for line in told[1:3]] == ["stop NAME", "stop --all"]
    assert sleeper.poll() is None


def test_where_none_runs_there_is_nothing_to_do(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "run" / "a.store").write_text("{}")
    assert main(["stop", "--json"]) == main(["stop", "a"]) == 0
    told = capsys.readouterr()
    assert told.err.splitlines() == ["no host runs on this machine", "host a is not running"]
    assert json.loads(told.out) == {"stopped": []}


def test_a_host_of_another_computer_is_stopped_there(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs_here(home, "a", os.getpid())
    assert main(["stop", "gpu-a"]) == 1
    first, second, third = capsys.readouterr().err.splitlines()
    assert first == "paglets: no host 'gpu-a' was ever started on this machine"
    assert second == "hint: running here: a"
    assert third.startswith("hint: run `paglets stop gpu-a`")


@pytest.mark.parametrize(
    ("running_jobs", "text"),
    [
        (None, "host a has stopped"),
        (0, "host a has stopped"),
        (1, "host a has stopped; 1 job was running and will run again when it restarts"),
        (1200, "host a has stopped; 1,200 jobs were running and will run again when it restarts"),
    ],
)
def test_what_was_running_is_told(running_jobs: int | None, text: str) -> None:
    assert stopped_text(Stopped(name="a", pid=1, running_jobs=running_jobs)) == text


def test_a_run_file_of_an_ended_process_is_of_no_host(home: Path) -> None:
    process = subprocess.Popen(["true"])
    runs_here(home, "a", process.pid)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert running_hosts(home) == ()
    process.wait()


def test_paths_below_the_home_folder_are_shown_as_people_write_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert home_path(Path("/home/me/.paglets/x")) == "~/.paglets/x"
    assert home_path("/home/meg/x") == "/home/meg/x"
    monkeypatch.setenv("HOME", "/")
    assert home_path("/x") == "/x"
