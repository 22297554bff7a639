"""`paglets doctor`: what it makes of a machine and of a mesh."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from paglets.api.hosts import HostIdentity, MemberView
from paglets.cli.doctor import BAD, GOOD, WARNING, machine_checks, member_check, strangers
from paglets.cli.main import main
from paglets.core.clock import SystemEntropy
from paglets.remote.keys import create_key
from paglets.remote.local import RunningHost
from paglets.testing.mesh import identity, member

MEMBER = member("w1")
IDENTITY = identity("w1", build="ab")
VIEW = MemberView(member=MEMBER, online=True, silent_seconds=0.0)


@pytest.mark.parametrize(
    ("view", "identity", "skew", "state", "words"),
    [
        (VIEW, IDENTITY, 1.0, GOOD, "online"),
        (replace(VIEW, problem="not joined: another key"), IDENTITY, 0.0, BAD, "another key"),
        (replace(VIEW, online=False, silent_seconds=90.0), None, 0.0, WARNING, "silent for 1 min 30 s"),
        (replace(VIEW, member=replace(MEMBER, reachable=False)), IDENTITY, 0.0, WARNING, "--bind-public auto"),
        (VIEW, IDENTITY, -7200.0, WARNING, "2 h behind"),
        (VIEW, replace(IDENTITY, build="cd"), 0.0, WARNING, "another paglets.pyz than w1"),
    ],
)
def test_each_trouble_of_a_host_is_told_with_what_to_do(
    view: MemberView, identity: HostIdentity | None, skew: float, state: str, words: str
) -> None:
    check = member_check(view, identity, IDENTITY, skew)
    assert (check.name, check.state) == ("host w1", state)
    assert words in f"{check.found} {check.advice}"
    assert bool(check.advice) == (state == WARNING)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PAGLETS_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("PAGLETS_API_KEY", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


def test_a_machine_that_is_ready_has_no_bad_check(home: Path) -> None:
    create_key(home / "mesh.key", SystemEntropy())
    states = {check.name: check.state for check in machine_checks()}
    assert BAD not in states.values()
    assert set(states) == {"python", "program", "psutil", "home", "key"}


def test_what_is_missing_or_wrong_is_named_and_is_the_exit_code(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("hosts.toml").write_text("[hosts.w1]\ntagz = []\n")
    assert main(["doctor", "--json"]) == 1
    checks = {check["name"]: check for check in json.loads(capsys.readouterr().out)["checks"]}
    assert "scp" in checks["key"]["found"]
    assert checks["hosts.toml"]["found"] == "unknown key 'tagz' in hosts.w1: did you mean 'tags'?"
    assert "host" not in checks


def test_without_a_host_to_ask_it_says_how_to_start_one(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    create_key(home / "mesh.key", SystemEntropy())
    assert main(["doctor"]) == 0
    told = capsys.readouterr()
    assert "warning  host: no host is running on this machine: start one with `paglets host`" in told.out
    assert told.err == ""


def test_a_host_that_runs_here_without_the_others_is_named_with_the_flag_that_joins_it() -> None:
    running = [RunningHost(name=name, url=f"http://{name}:1", store_id=f"store-{name}", pid=1) for name in ("w1", "x")]
    (check,) = strangers(running, [VIEW], IDENTITY)
    assert (check.name, check.state) == ("host x", WARNING)
    assert "--peer http://w1:8765" in check.advice


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="rights say nothing to this user")
def test_a_home_that_cannot_be_written_is_bad(home: Path) -> None:
    home.mkdir(mode=0o500)
    assert {check.name: check.state for check in machine_checks()}["home"] == BAD
