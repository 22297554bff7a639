from __future__ import annotations

import os
from pathlib import Path

import pytest

from paglets.config import MOST_TOLD, HostOptions, checked_config, host_options, read_config
from paglets.core.errors import Invalid, StartFailed
from paglets.settings import parse_bytes, parse_property

FILE = """
[mesh]
mesh_version = "analysis"
host_lost_after = 60
peers = ["http://laptop:8765"]
key_file = "/keys/mesh.key"

[hosts.laptop]
peers = []
tags = ["laptop"]

[hosts.gpu-a]
bind_public = "auto"
tags = ["linux", "gpu"]
memory = "24 GiB"
temp_storage = 1000
artifact_max_size = "4 GiB"
artifact_storage_quota = 0
properties = { python = "3.12" }
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "hosts.toml"
    path.write_text(text)
    return path


def test_a_host_takes_its_section_over_that_of_the_mesh(tmp_path: Path) -> None:
    file = read_config(written(tmp_path, FILE))
    assert host_options("gpu-a", flags={}, file=file) == HostOptions(
        name="gpu-a",
        bind_public="auto",
        mesh_version="analysis",
        peers=("http://laptop:8765",),
        tags=("linux", "gpu"),
        memory_bytes=24 << 30,
        temp_storage_bytes=1000,
        artifact_max_bytes=4 << 30,
        artifact_quota_bytes=0,
        host_lost_after_seconds=60.0,
        properties={"python": "3.12"},
        config_key_file=Path("/keys/mesh.key"),
    )
    assert host_options("laptop", flags={}, file=file).peers == ()


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    file = read_config(written(tmp_path, FILE))
    options = host_options("gpu-a", flags={"tags": ["x"], "memory": 5, "key_file": "/k"}, file=file)
    assert (options.tags, options.memory_bytes, options.mesh_version) == (("x",), 5, "analysis")
    assert (options.key_file, options.config_key_file) == (Path("/k"), None)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("[hosts.a]\ntag = ['x']", "unknown key 'tag' in hosts.a: did you mean 'tags'?"),
        ("[host.a]", "unknown key 'host' in the file: did you mean 'hosts'?"),
        ("[hosts.a]\nzzz = 1", "unknown key 'zzz' in hosts.a: known are host"),
        ("[hosts.a]\nport = '1'", "hosts.a.port"),
        ("[hosts.a]\nport = 70000", "hosts.a.port"),
        ("[hosts.a]\ngpus = true", "hosts.a.gpus"),
        ("[hosts.a]\ncpu_cores = 0", "hosts.a.cpu_cores"),
        ("[hosts.a]\nmemory = '4 cows'", "hosts.a.memory"),
        ("[hosts.a]\nartifact_max_size = -1", "hosts.a.artifact_max_size"),
        ("[hosts.a]\nartifact_quota = 1", "unknown key 'artifact_quota' in hosts.a: did you mean 'artifact_"),
        ("[hosts.a]\ntags = 'linux'", "hosts.a.tags"),
        ("[hosts.a]\npeers = ['ftp://x']", "hosts.a.peers"),
        ("[hosts.a]\nproperties = { a = 1 }", "hosts.a.properties"),
        ("[hosts]\na = 1", "hosts.a must be a table"),
        ("[hosts.Big_Name]", "Big_Name"),
        ("[mesh]\nmesh_version = ''", "mesh.mesh_version"),
        ("[hosts.a]\ndata_dir = '~nosuchuser/x'", "hosts.a.data_dir: the home directory '~nosuchuser' is not known"),
        (
            "[hosts.a]\ncode_paths = ['~nosuchuser']",
            "hosts.a.code_paths: the home directory '~nosuch",
        ),
        ("[mesh]\nkey_file = '~nosuchuser/x'", "mesh.key_file: the home directory '~nosuchuser' is not known"),
        ("[hosts.a]\nmemory = 1.5", 'expected a number of bytes, such as 1048576 or "24 GiB", got 1.5'),
        ("[hosts.a]\ntags = ['']", "hosts.a.tags: expected text that is not empty"),
        ("[mesh]\ninput_wait = 0", "expected a number of seconds above 0, at most 315,360,000, got 0"),
        ("[mesh]\nhost_lost_after = 9", "expected a number of seconds from 10, at most 315,360,000, got 9"),
        ("[mesh]\nhost_lost_after = nan", "from 10, at most 315,360,000, got nan"),
    ],
)
def test_a_mistake_anywhere_in_the_file_is_named(tmp_path: Path, text: str, what: str) -> None:
    with pytest.raises(Invalid) as caught:
        host_options("other", flags={}, file=read_config(written(tmp_path, text)))
    assert what in caught.value.message


def test_what_is_far_too_long_or_deep_is_named_and_not_shown(tmp_path: Path) -> None:
    digits = f"0x{'f' * 5000}"
    for text, what in (
        (f"port = {digits}", "hosts.a.port: a number of thousands of digits is more than any machine has"),
        (f"tags = [{digits}]", "hosts.a.tags: expected text, got a number of thousands of digits"),
        (f"peers = {digits}", "hosts.a.peers: expected a list of texts, got a number of thousands of digits"),
        (f"memory = '{'9' * 100_000}'", "hosts.a.memory: '9999"),
        (f"memory = '{'9' * 400}.5'", "hosts.a.memory: '9999"),
        (f"tags = '{'x' * 100_000}'", "hosts.a.tags: expected a list of texts, got 'xxx"),
        (f"{'x' * 100_000} = 1", "unknown key 'xxx"),
        (f"tags{'.a' * 5000} = 1", "hosts.a.tags: expected a list of texts, got "),
    ):
        with pytest.raises(Invalid) as caught:
            checked_config(written(tmp_path, f"[hosts.a]\n{text}"))
        (told,) = caught.value.details["mistakes"]
        assert told.startswith(what)
        assert len(told) < 600


@pytest.mark.parametrize("properties", [{"about": "x" * 500}, {f"name-{n}": "x" for n in range(63)}])
def test_properties_that_other_hosts_would_not_take_are_refused_here(properties: dict[str, str]) -> None:
    with pytest.raises(Invalid, match="--property: at most 62 properties of 500 characters"):
        host_options("home", flags={"properties": properties}, file={})


def test_a_file_that_is_not_toml_is_named_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(StartFailed, match=r"hosts\.toml is not TOML: .*line 2"):
        read_config(written(tmp_path, "[mesh]\nx = = 1"))
    with pytest.raises(StartFailed, match="cannot be read"):
        read_config(tmp_path / "nowhere.toml")
    with pytest.raises(StartFailed, match="too many for a configuration file"):
        read_config(written(tmp_path, "#" * (2 << 20)))
    with pytest.raises(StartFailed, match="nested too deep"):
        read_config(written(tmp_path, f"x = {'[' * 50_000}"))
    with pytest.raises(StartFailed, match=r"hosts\.toml cannot be read: a number in it has too many digits"):
        read_config(written(tmp_path, f"[mesh]\nport = {'1' * 5000}"))


def test_what_is_no_plain_file_is_no_configuration_and_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, kind in ((tmp_path / "pipe", "a pipe"), (Path("/dev/zero"), "a device"), (tmp_path, "a folder")):
        with pytest.raises(StartFailed, match=f"{path} cannot be read: it is {kind}, not a regular file"):
            read_config(path)


def test_the_mark_at_the_start_that_editors_of_windows_write_is_no_mistake(tmp_path: Path) -> None:
    (tmp_path / "hosts.toml").write_bytes(b"\xef\xbb\xbf[mesh]\r\nport = 1\r\n")
    assert read_config(tmp_path / "hosts.toml") == {"mesh": {"port": 1}}


def test_of_many_mistakes_the_first_are_told_and_the_others_counted(tmp_path: Path) -> None:
    text = "[hosts.a]\nzzz = 1\n" + "".join(f"q{number} = 1\n" for number in range(20_000)) + "tag = []\n"
    with pytest.raises(Invalid) as caught:
        checked_config(written(tmp_path, text))
    told = caught.value.details["mistakes"]
    assert len(told) == MOST_TOLD + 1
    assert told[0].startswith("unknown key 'zzz' in hosts.a: known are host, ")
    assert told[3:5] == ["unknown key 'q2' in hosts.a", "unknown key 'q3' in hosts.a"]
    assert told[-1] == "and 19,982 further mistakes"
    assert len(str(told)) < 5000


def test_a_wrong_flag_is_named_as_a_flag() -> None:
    with pytest.raises(Invalid, match=r"^--peer: "):
        host_options("a", flags={"peers": ["ftp://x"]})
    with pytest.raises(Invalid, match=r"^--cores: "):
        host_options("a", flags={"cpu_cores": 0})


@pytest.mark.parametrize(
    ("text", "count"),
    [("0", 0), ("2000", 2000), ("16G", 16 << 30), ("16 GiB", 16 << 30), ("1.5gb", 3 << 29), ("512 m", 512 << 20)],
)
def test_amounts_of_bytes_have_units(text: str, count: int) -> None:
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "G", "-1", "1e30", "16 GX", "1,5G", "9" * 30])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        parse_bytes(text)


def test_a_property_is_key_and_value() -> None:
    assert parse_property("a=b=c") == ("a", "b=c")
    with pytest.raises(Invalid, match="KEY=VALUE"):
        parse_property("python")
