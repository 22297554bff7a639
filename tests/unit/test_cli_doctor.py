"""`paglets doctor` on a machine and a mesh."""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from paglets.api.hosts import HostIdentity, MeshHostView
from paglets.cli.commands.doctor import foreign_hosts, host_check, machine_checks, sqlite_text
from paglets.cli.data_directory_checks import BAD, GOOD, WARNING, LockHolder, folder_checks, holder_of
from paglets.cli.main import main
from paglets.core.clock import SystemEntropy
from paglets.core.errors import StoreDamaged
from paglets.host.datadir import damage
from paglets.host.datadir.data_directory import open_data_directory
from paglets.mesh.view import OLD_STORE, no_route_text
from paglets.slots.model import Resources
from paglets.wire.keys import create_key
from paglets.wire.local_hosts import RunningHost, start_of
from paglets.worker.host.supervisor import ZYGOTE_LABEL
from tests.fakes.mesh import identity, member

MEMBER = member("w1")
IDENTITY = identity("w1", build="ab")
OLD = f"{OLD_STORE} (0a1b2c3d): the name w1 is that of another one now"
VIEW = MeshHostView(host=MEMBER, online=True, seconds_since_seen=0.0)


@pytest.mark.parametrize(
    ("view", "identity", "skew", "state", "words"),
    [
        (VIEW, IDENTITY, 1.0, GOOD, "online"),
        (replace(VIEW, problem="not joined: another key"), IDENTITY, 0.0, BAD, "another key"),
        (
            replace(VIEW, online=False, seconds_since_seen=90.0),
            None,
            0.0,
            WARNING,
            "offline, last seen 1 min 30 s ago",
        ),
        (replace(VIEW, online=False, problem="http://w1:1 cannot be reached"), None, 0.0, WARNING, "cannot be reached"),
        (
            replace(VIEW, online=False, seconds_since_seen=2.3, was_seen=False),
            None,
            0.0,
            WARNING,
            "not seen by the answering host, which has listened for 2.3 s",
        ),
        (
            replace(VIEW, online=False, problem=no_route_text("w1", "w2")),
            None,
            0.0,
            WARNING,
            "start a host that both can",
        ),
        (replace(VIEW, online=False, problem=OLD), None, 0.0, WARNING, "with its old data directory"),
        (replace(VIEW, online=False, problem="offline; its mesh version was 'v2'"), None, 0.0, WARNING, "offline; its"),
        (
            replace(VIEW, online=False, offline_seconds=9e4),
            None,
            0.0,
            WARNING,
            "restarts; if it will not come back, `paglets mesh forget w1` removes it",
        ),
        (replace(VIEW, host=replace(MEMBER, reachable=False)), IDENTITY, 0.0, GOOD, "online, pulls requests"),
        (VIEW, IDENTITY, -7200.0, WARNING, "2 h behind"),
        (VIEW, replace(IDENTITY, build="cd"), 0.0, WARNING, "differs from that of w1"),
    ],
)
def test_each_trouble_of_a_host_is_told_with_what_to_do(
    view: MeshHostView, identity: HostIdentity | None, skew: float, state: str, words: str
) -> None:
    check = host_check(view, identity, IDENTITY, skew)
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
    assert "scp" in checks["key"]["advice"]
    assert checks["hosts.toml"]["found"] == "unknown key 'tagz' in hosts.w1: did you mean 'tags'?"
    assert "host" not in checks


def test_without_a_host_to_ask_it_says_how_to_start_one(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    create_key(home / "mesh.key", SystemEntropy())
    assert main(["doctor"]) == 0
    told = capsys.readouterr()
    assert "warning  host: no host runs on this machine\n         paglets host --background" in told.out
    assert told.err == ""


def test_a_host_outside_the_mesh_is_named_with_the_flag_that_joins_it() -> None:
    running = [RunningHost(name=name, url=f"http://{name}:1", store_id=f"store-{name}", pid=1) for name in ("w1", "x")]
    (check,) = foreign_hosts(running, [VIEW], IDENTITY)
    assert (check.name, check.state) == ("host x", WARNING)
    assert "--peer http://w1:8765" in check.advice


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="rights say nothing to this user")
def test_a_home_that_cannot_be_written_is_bad(home: Path) -> None:
    home.mkdir(mode=0o500)
    assert {check.name: check.state for check in machine_checks()}["home"] == BAD


def found(folder: Path, deep: bool = False) -> dict[str, tuple[str, str]]:
    """Return state and text of each check of a data directory, by name."""
    return {check.name: (check.state, check.found) for check in folder_checks(folder, deep=deep)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "w1"
    with open_data_directory(path, SystemEntropy(), lambda error: None):
        pass
    path.chmod(0o700)
    return path


def test_a_sound_data_directory_is_told_as_such_and_nothing_in_it_is_changed(folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    checks = found(folder, deep=True)
    assert {state for state, _ in checks.values()} == {GOOD}
    assert checks["w1 host"][1] == f"no host runs in {folder}"
    assert checks["w1 database"][1].startswith("sound, ")
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_the_process_that_has_a_data_directory_is_named(folder: Path) -> None:
    with open_data_directory(folder, SystemEntropy(), lambda error: None):
        checks = found(folder)
    assert f"process {os.getpid()}" in checks["w1 host"][1]
    assert checks["w1 database"][0] == GOOD


@pytest.mark.parametrize(
    ("harm", "name", "words"),
    [
        (lambda path: (path / "paglets.db").write_bytes(b""), "w1 database", "is empty, but this host had one"),
        (lambda path: (path / "paglets.db").write_bytes(b"text " * 999), "w1 database", "not a database"),
        (lambda path: os.truncate(path / "paglets.db", 8192), "w1 database", "malformed"),
        (lambda path: newer(path / "paglets.db"), "w1 database", "this program knows"),
        (lambda path: rewound(path), "w1 database", "older than the host"),
        (lambda path: of_another_host(path), "w1 database", "belongs to store"),
        (lambda path: full_of_photos(path / "paglets.db"), "w1 database", "has the tables photos"),
        (lambda path: (path / "work").symlink_to("/dev/full"), "w1 disk", "/work"),
        (lambda path: with_blob(path / "paglets.db"), "w1 blobs", "1 of 1 are damaged or missing"),
    ],
)
def test_what_is_wrong_in_a_data_directory_is_bad(
    folder: Path, harm: Callable[[Path], object], name: str, words: str
) -> None:
    harm(folder)
    state, text = found(folder)[name]
    assert state == BAD
    assert words in text


def newer(database: Path) -> None:
    with closing(sqlite3.connect(database)) as base, base:
        base.execute("INSERT INTO migrations VALUES (99, 'later', 1.0)")


def rewound(path: Path) -> None:
    known = damage.read_note(path)
    assert known is not None
    damage.write_note(path, replace(known, boot_count=7))


def of_another_host(path: Path) -> None:
    known = damage.read_note(path)
    assert known is not None
    damage.write_note(path, replace(known, store_id="mine"))


def full_of_photos(database: Path) -> None:
    database.unlink()
    with closing(sqlite3.connect(database)) as base:
        base.execute("CREATE TABLE photos (name TEXT)")


def with_blob(database: Path) -> None:
    with closing(sqlite3.connect(database)) as base, base:
        base.execute("INSERT INTO blobs VALUES (?, 3, 0.0)", ("ab" * 32,))


def test_a_missing_data_directory_is_bad_but_a_missing_database_is_not(tmp_path: Path) -> None:
    assert found(tmp_path / "nobody")["data nobody"][0] == BAD
    (tmp_path / "new").mkdir(mode=0o700)
    assert found(tmp_path / "new")["new database"] == (GOOD, "not created yet: no host was started in this folder")


def test_after_a_move_aside_it_says_that_the_next_start_begins_anew(folder: Path) -> None:
    (folder / "paglets.db").write_bytes(b"")
    with pytest.raises(StoreDamaged), open_data_directory(folder, SystemEntropy(), lambda error: None):
        pass
    assert found(folder)["w1 database"] == (WARNING, "moved aside; the next start creates an empty database")


def test_what_was_only_told_has_no_size_of_what_was_moved(folder: Path) -> None:
    rewound(folder)
    with pytest.raises(StoreDamaged), open_data_directory(folder, SystemEntropy(), lambda error: None):
        pass
    (check,) = [check for check in folder_checks(folder, deep=False) if check.name == "w1 damage"]
    assert "has only this message" in check.advice


def test_a_blob_that_a_host_removed_meanwhile_is_not_wrong(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_blob(folder / "paglets.db")

    def is_intact(*row: object) -> bool:
        """Remove row and file during the check, as a running host may."""
        with closing(sqlite3.connect(folder / "paglets.db")) as base, base:
            base.execute("DELETE FROM blobs")
        return False

    monkeypatch.setattr("paglets.cli.data_directory_checks._is_right", is_intact)
    assert found(folder)["w1 blobs"][0] == GOOD


def test_the_folder_that_the_configuration_file_names_is_looked_at(
    home: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    create_key(home / "mesh.key", SystemEntropy())
    Path("hosts.toml").write_text(
        f'[hosts.gpu-a]\ndata_dir = "{folder}"\n[hosts.elsewhere]\ndata_dir = "/not/of/this/machine"\n'
    )
    for arguments in (["--name", "gpu-a"], []):
        assert main(["doctor", *arguments]) == 0
        told = capsys.readouterr().out
        assert f"w1 host: no host runs in {folder}" in told
        assert "elsewhere host" not in told


def test_who_holds_a_directory_is_told_or_that_it_cannot_be_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert holder_of(tmp_path) == LockHolder(runs=False)
    with (tmp_path / "lock").open("a") as held:
        assert holder_of(tmp_path) == LockHolder(runs=False)
        fcntl.flock(held, fcntl.LOCK_EX)
        assert holder_of(tmp_path) == LockHolder(runs=True, pid=os.getpid())
        monkeypatch.setattr(os, "major", lambda device: 999)
        assert holder_of(tmp_path) == LockHolder(runs=None)


@pytest.mark.parametrize(
    ("mode", "state", "text"), [(0o755, WARNING, "other users can enter"), (0o777, BAD, "can write")]
)
def test_a_folder_that_is_open_to_others_is_told_as_a_start_would(
    folder: Path, mode: int, state: str, text: str
) -> None:
    folder.chmod(mode)
    told = found(folder)["w1 permissions"]
    assert told[0] == state
    assert text in told[1]
    folder.chmod(0o700)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root gives files away")
def test_root_that_looks_at_the_folder_of_another_user_finds_nothing_foreign_in_it(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        os.chown(path, 12345, -1)
    assert "w1 permissions" not in found(folder)
    os.chown(folder / "paglets.db", 0, -1)
    assert "has another owner than" in found(folder)["w1 permissions"][1]


@pytest.mark.parametrize(("version", "has_bug"), [((3, 40, 1), True), ((3, 51, 2), True), ((3, 51, 3), False)])
def test_a_version_of_sqlite_that_can_damage_a_database_is_told(version: tuple[int, ...], has_bug: bool) -> None:
    assert ("WAL-reset bug" in sqlite_text(version)) == has_bug


def test_a_host_that_was_damaged_or_starts_nothing_is_a_warning() -> None:
    damaged = replace(IDENTITY, properties={"damaged": "2026-01-01 00:00:00 UTC"})
    stuck = replace(IDENTITY, free=Resources(), running_jobs=0)
    for told, words in ((damaged, "was damaged"), (stuck, "starts no jobs")):
        check = host_check(VIEW, told, IDENTITY, 0.0)
        assert (check.state, words in check.found) == (WARNING, True)
        assert "doctor --name w1" in check.advice


# A host that runs while its files are gone.


def test_a_host_without_its_lock_is_found_by_run_file_and_open_database(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, other = home / "hosts" / "w1", home / "hosts" / "w2"
    create_key(home / "mesh.key", SystemEntropy())
    with open_data_directory(other, SystemEntropy(), lambda error: None):
        pass
    (home / "run").mkdir()
    tree = {
        "name": "w1",
        "url": "http://127.0.0.1:9",
        "store_id": "s",
        "pid": os.getpid(),
        "began": start_of(os.getpid()),
    }
    (home / "run" / "w1.json").write_text(json.dumps(tree))
    with open_data_directory(folder, SystemEntropy(), lambda error: None):
        (folder / "lock").unlink()
        assert main(["doctor"]) == 1
    told = capsys.readouterr().out
    assert f"bad      w1 host: a host runs in {folder}, process {os.getpid()}, but its file lock was removed" in told
    assert "start no other host in this folder" in told
    assert f"ok       w2 host: no host runs in {other}" in told
    assert main(["doctor", "--name", "w1"]) == 0
    assert f"ok       w1 host: no host runs in {folder}" in capsys.readouterr().out


def test_where_the_system_does_not_tell_who_holds_a_lock_it_is_not_said_to_be_gone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = [RunningHost(name="w1", url="http://127.0.0.1:9", store_id="s", pid=os.getpid())]
    monkeypatch.setattr(os, "major", lambda device: 999)  # as on btrfs
    with open_data_directory(folder, SystemEntropy(), lambda error: None):
        host = next(check for check in folder_checks(folder, deep=False, running=running) if check.name == "w1 host")
        assert (host.state, host.found) == (GOOD, f"a host runs in {folder}, process {os.getpid()}")
        (folder / "lock").unlink()
        assert holder_of(folder, running) == LockHolder(runs=True, pid=os.getpid(), is_locked=False)


def test_of_a_host_that_runs_without_a_run_file_both_is_not_said(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    create_key(home / "mesh.key", SystemEntropy())
    with open_data_directory(home / "hosts" / "w1", SystemEntropy(), lambda error: None):
        main(["doctor"])
    told = capsys.readouterr().out
    assert "ok       w1 host: a host runs in" in told
    assert "no host runs on" not in told
    assert "warning  host: a host runs in" in told
    assert "--at URL" in told


def test_where_the_key_is_gone_and_a_host_runs_it_says_where_the_key_is_to_be_had(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_data_directory(home / "hosts" / "w1", SystemEntropy(), lambda error: None):
        assert main(["doctor"]) == 1
    told = capsys.readouterr().out
    assert "it has no mesh key" not in told
    assert "from a backup, or from another machine of the mesh" in told


def test_a_run_file_that_is_none_is_a_warning(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    create_key(home / "mesh.key", SystemEntropy())
    (home / "run").mkdir()
    (home / "run" / "w1.json").write_text("{")
    assert main(["doctor"]) == 0
    assert f"warning  run files: ignored {home / 'run' / 'w1.json'}: it is no run file" in capsys.readouterr().out
    assert main(["mesh", "hosts"]) == 4
    told = capsys.readouterr().err
    assert told.count("w1.json: it is no run file") == 1
    assert "no host runs on" in told


def test_why_a_host_starts_nothing_is_told_as_it_says_it() -> None:
    stuck = replace(IDENTITY, properties={"blocked": "its copy of the program is gone: restart it"})
    check = host_check(VIEW, stuck, IDENTITY, 0.0)
    assert (check.state, check.found) == (
        WARNING,
        "online, and starts nothing: its copy of the program is gone: restart it",
    )


def test_a_zygote_that_does_not_answer_is_told_with_what_its_host_does_about_it() -> None:
    stuck = replace(IDENTITY, properties={"blocked": f"{ZYGOTE_LABEL} (zygote, process 7) does not answer"})
    check = host_check(VIEW, stuck, IDENTITY, 0.0)
    assert check.state == WARNING
    assert "starts nothing: the process that starts jobs (zygote, process 7) does not answer" in check.found
    assert check.advice == "nothing to do: the host replaces that process after 30 s, and its jobs restart"


def test_a_hook_that_takes_long_is_told_with_its_paglet() -> None:
    hooks = ("p1: on_arrival has been running for 12 min on w1", "p2: on_creation has been running for 11 min on w1")
    check = host_check(VIEW, replace(IDENTITY, long_hooks=hooks), IDENTITY, 0.0)
    assert (check.state, check.found) == (WARNING, f"online; {hooks[0]}, and 1 more hook")
    assert "jobs logs p1" in check.advice


def test_a_host_says_how_much_memory_the_imports_of_jobs_hold() -> None:
    identity = replace(IDENTITY, templates=2, template_bytes=64 << 20)
    check = host_check(VIEW, identity, IDENTITY, 0.0)
    assert check.found.endswith(", 64 MiB of memory used by 2 preloaded job modules")
