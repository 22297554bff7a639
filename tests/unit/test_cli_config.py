"""`paglets init`, `config` and `key`."""

from __future__ import annotations

import json
import os
import socket
import stat
import tomllib
from pathlib import Path

import pytest

from paglets.cli.host_flags import machine_name
from paglets.cli.main import main
from paglets.config import checked_config, host_options
from paglets.core.clock import SystemEntropy
from paglets.core.text import home_path
from paglets.settings import SETTINGS
from paglets.wire.keys import create_key

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, and an empty PAGLETS_HOME elsewhere."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("PAGLETS_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("PAGLETS_API_KEY", raising=False)
    return here


# init.


def test_init_writes_what_the_flags_say(folder: Path, capsys: Capture) -> None:
    flags = ["--bind-public", "auto", "--tag", "linux", "--tag", "gpu", "--memory", "16G", "--property", "python=3.12"]
    assert main(["init", "--name", "gpu-a", "--mesh-version", "analysis", "--peer", "http://laptop:8765", *flags]) == 0
    assert capsys.readouterr().out == "hosts.toml\n"
    tree = checked_config(folder / "hosts.toml")
    assert tree["mesh"] == {"mesh_version": "analysis", "peers": ["http://laptop:8765"]}
    made = host_options("gpu-a", flags={}, file=tree)
    assert (made.tags, made.memory_bytes, made.properties) == (("linux", "gpu"), 16 << 30, {"python": "3.12"})
    assert (made.bind_public, made.mesh_version, made.peers) == ("auto", "analysis", ("http://laptop:8765",))


def test_init_adds_a_host_and_keeps_what_is_there(folder: Path) -> None:
    file = folder / "my.toml"
    file.write_text('# mine\n[mesh]\nmesh_version = "analysis"\n[hosts.laptop]  # here\ntags = ["laptop"]')
    file.chmod(0o640)
    assert main(["init", "--config", str(file), "--name", "w1", "--tag", "linux"]) == 0
    text = file.read_text()
    assert text.startswith("# mine\n")
    assert "# here" in text
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert host_options("w1", flags={}, file=tomllib.loads(text)).mesh_version == "analysis"
    assert os.listdir(folder) == ["my.toml"]


def test_init_adds_a_host_to_a_file_of_an_editor_of_windows(folder: Path) -> None:
    (folder / "hosts.toml").write_bytes(b"\xef\xbb\xbf[hosts.w1]\r\n")
    assert main(["init", "--name", "w2"]) == 0
    assert list(checked_config(folder / "hosts.toml")["hosts"]) == ["w1", "w2"]


def test_init_writes_to_where_a_link_leads_and_paths_that_hold_anywhere(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "real.toml").write_text("[hosts.w1]\n")
    (folder / "hosts.toml").symlink_to(tmp_path / "real.toml")
    assert main(["init", "--name", "w2", "--key-file", "my.key"]) == 0
    assert (folder / "hosts.toml").is_symlink()
    assert tomllib.loads((tmp_path / "real.toml").read_text())["hosts"]["w2"] == {"key_file": str(folder / "my.key")}


def test_init_of_this_machine_needs_no_flags(folder: Path, capsys: Capture) -> None:
    assert main(["init"]) == 0
    assert list(checked_config(folder / "hosts.toml")["hosts"]) == [machine_name(socket.gethostname())]
    assert "bind_public" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("before", "arguments", "told", "code"),
    [
        ("[hosts.w1]\n", ["--name", "w1"], "has a section [hosts.w1]", 1),
        ("[hosts.w1]\ntagz = []\n", ["--name", "w2"], "unknown key 'tagz' in hosts.w1: did you mean 'tags'?", 2),
        ("[[", ["--name", "w2"], "is not TOML", 2),
        ('hosts = { w1 = { tags = ["x"] } }\n', ["--name", "w2"], "add it with an editor", 2),
        ("", ["--name", "w2", "--memory", "lots"], "--mem: 'lots' is not an amount of bytes", 2),
        ("", ["--name", "Not Good"], "Not Good", 2),
    ],
)
def test_init_that_cannot_be_changes_nothing(
    folder: Path, capsys: Capture, before: str, arguments: list[str], told: str, code: int
) -> None:
    (folder / "hosts.toml").write_text(before)
    assert main(["init", *arguments]) == code
    error = capsys.readouterr().err
    assert told in error
    assert "Traceback" not in error
    assert (folder / "hosts.toml").read_text() == before
    assert os.listdir(folder) == ["hosts.toml"]


def test_init_says_where_it_cannot_write(capsys: Capture) -> None:
    assert main(["init", "--config", "nowhere/hosts.toml"]) == 2
    assert capsys.readouterr().err == "paglets: cannot write nowhere/hosts.toml: No such file or directory\n"


# config.


def test_a_right_file_is_told_with_its_hosts(folder: Path, capsys: Capture) -> None:
    (folder / "hosts.toml").write_text("[hosts.w1]\n[hosts.w2]\n")
    assert main(["config", "check"]) == 0
    assert capsys.readouterr().out == "hosts.toml is valid and describes w1, w2\n"
    assert main(["config", "check", "hosts.toml", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"file": "hosts.toml", "hosts": ["w1", "w2"], "addresses": {}}


def test_addresses_that_are_written_short_are_told_as_they_are_read(folder: Path, capsys: Capture) -> None:
    peers = "peers = ['w1', 'http://w2:8765', '10.0.0.7:9000']"
    (folder / "hosts.toml").write_text(f"[mesh]\n{peers}\n[hosts.w1]\npublic_url = 'W1.example'\n")
    assert main(["config", "check"]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        "w1 is read as http://w1:8765",
        "10.0.0.7:9000 is read as http://10.0.0.7:9000",
        "W1.example is read as http://w1.example:8765",
    ]
    assert main(["config", "check", "--json"]) == 0
    read = json.loads(capsys.readouterr().out)["addresses"]
    assert (read["w1"], read["http://w2:8765"]) == ("http://w1:8765", "http://w2:8765")
    assert main(["config", "show", "--name", "w1"]) == 0
    shown = capsys.readouterr().out
    assert "http://w1:8765, http://w2:8765, http://10.0.0.7:9000" in shown
    assert "host_lost_after         120 s" in shown
    assert "input_wait              604800 s" in shown


@pytest.mark.parametrize("command", [["config", "check"], ["config", "show", "--name", "w1"], ["host", "--name", "w1"]])
def test_a_wrong_key_is_told_with_its_file_and_the_nearest_right_one(
    folder: Path, capsys: Capture, command: list[str]
) -> None:
    (folder / "hosts.toml").write_text("[hosts.w1]\nbind_pubic = 'auto'\n")
    assert main(command) == 2
    assert "hosts.toml: unknown key 'bind_pubic' in hosts.w1: did you mean 'bind_public'?" in capsys.readouterr().err


def test_all_mistakes_of_a_file_are_told_by_the_check_and_the_first_elsewhere(folder: Path, capsys: Capture) -> None:
    (folder / "hosts.toml").write_text(
        "x = 1\n[mesh]\nmesh_version = 3\n[hosts.w1]\nbind_pubic = 'auto'\nport = 70000\ntags = ['a,b']\n"
        "[hosts.Big_Name]\ngpus = true\n[hosts]\nw2 = 1\n"
    )
    assert main(["config", "check"]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    lines = told.err.splitlines()
    expected = (
        "unknown key 'x' in the file: ",
        "mesh.mesh_version: ",
        "'Big_Name' cannot name a host: ",
        "unknown key 'bind_pubic' in hosts.w1: did you mean 'bind_public'?",
        "hosts.w1.port: ",
        "hosts.w1.tags: 'a,b' has a comma: ",
        "hosts.Big_Name.gpus: ",
        "hosts.w2 must be a table, got 1",
    )
    assert len(lines) == len(expected)
    assert all(line.startswith(f"paglets: hosts.toml: {words}") for line, words in zip(lines, expected, strict=True))
    assert main(["config", "show", "--name", "w1"]) == 2
    said = capsys.readouterr().err
    file = folder / "hosts.toml"
    assert said.startswith(f"paglets: {file}: unknown key 'x' in the file: ")
    assert "(and 7 further mistakes); `" in said
    assert said.endswith(f"config check {file}` names them\n")


def test_each_setting_is_shown_with_where_it_comes_from(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    (folder / "hosts.toml").write_text(
        "[mesh]\nmesh_version = 'm'\ntags = ['all']\n[hosts.w1]\nport = 9\nmemory = '2G'\nproperties = { a = 'b' }\n"
    )
    assert main(["config", "show", "--name", "w1", "--tag", "x", "--gpus", "0", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    settings = told["settings"]
    assert told["name"] == "w1"
    assert list(settings) == list(SETTINGS)
    assert settings["tags"] == {"value": ["x"], "source": "--tag"}
    assert settings["mesh_version"] == {"value": "m", "source": "[mesh]"}
    assert settings["memory"] == {"value": 2 << 30, "source": "[hosts.w1]"}
    assert settings["cpu_cores"] == {"value": None, "source": "default"}
    assert settings["data_dir"] == {"value": str(tmp_path / "home" / "hosts" / "w1"), "source": "default"}
    assert main(["config", "show", "--name", "w1", "--gpus", "0"]) == 0
    lines = {line.split()[0]: line.split(maxsplit=1)[1] for line in capsys.readouterr().out.splitlines()[1:]}
    assert lines["memory"].split() == ["2", "GiB", "[hosts.w1]"]
    assert lines["gpus"].split() == ["0", "--gpus"]
    assert lines["cpu_cores"].startswith("all of this machine")
    assert lines["properties"].split() == ["a=b", "[hosts.w1]"]
    assert lines["artifact_max_size"].startswith("no limit")


def test_init_says_who_makes_the_key_where_there_is_none(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "home" / "mesh.key"
    assert main(["init", "--name", "w1"]) == 0
    assert f"{home_path(path)} (the first start of a host creates it)" in capsys.readouterr().err
    create_key(path, SystemEntropy())
    assert main(["init", "--name", "w2"]) == 0
    assert f"the mesh key {home_path(path)}" in capsys.readouterr().err


# key.


def test_the_key_and_its_place_are_shown(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "home" / "mesh.key"
    key = create_key(path, SystemEntropy())
    assert main(["key", "show"]) == main(["key", "path"]) == 0
    assert capsys.readouterr().out == f"{key.text}\n{path}\n"
    assert main(["key", "path", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"path": str(path)}


def test_a_new_key_takes_the_place_of_none(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "home" / "mesh.key"
    assert main(["key", "new"]) == 0
    told = capsys.readouterr()
    assert told.out == f"{path}\n"
    assert "copy this file with mode 600 to every machine of the mesh" in told.err
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = path.read_text()
    assert main(["key", "new"]) == 1
    assert f"{path} exists" in capsys.readouterr().err
    assert path.read_text() == before
    assert main(["key", "new", "--key-file", "other.key"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'here' / 'other.key'}\n"


def test_no_key_is_made_in_the_place_of_a_link_to_nothing(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "mesh.key").symlink_to("gone")
    assert main(["key", "new"]) == 1
    assert "mesh.key is a link to gone, which does not exist: " in capsys.readouterr().err


def test_the_home_of_nobody_is_a_mistake_of_who_wrote_it(capsys: Capture) -> None:
    path = "~nosuchuser/x"
    for command in (["config", "check", path], ["host", "--config", path], ["key", "new", "--key-file", path]):
        assert main(command) == 2
        assert "the home directory '~nosuchuser' is not known on this machine" in capsys.readouterr().err


def test_without_a_key_it_is_told_how_to_get_one(capsys: Capture) -> None:
    assert main(["key", "path"]) == main(["key", "show"]) == 5
    assert "scp -p FIRST-MACHINE" in capsys.readouterr().err


def test_a_key_of_the_environment_has_no_path(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAGLETS_API_KEY", "k" * 43)
    assert main(["key", "show"]) == 0
    assert capsys.readouterr().out == "k" * 43 + "\n"
    assert main(["key", "path"]) == 1
    assert "PAGLETS_API_KEY" in capsys.readouterr().err
