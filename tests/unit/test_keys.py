from __future__ import annotations

import json
import os
import stat
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from paglets.core.clock import SystemEntropy
from paglets.core.errors import NotAllowed, PagletsError, StartFailed
from paglets.wire.keys import (
    MeshKey,
    client_key,
    create_key,
    default_key_file,
    find_key,
    first_key,
    host_key,
    paglets_home,
    parse_key,
    read_key,
)

FIRST, SECOND, THIRD, FOURTH = ("A" * 43, "b" * 43, "-" * 43, "9" * 43)
posix_only = pytest.mark.skipif(os.name != "posix", reason="modes mean something on POSIX only")


def write_key(path: Path, text: str, mode: int = 0o600) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def test_the_home_is_the_variable_else_a_folder_of_the_user(tmp_path: Path) -> None:
    assert paglets_home({"PAGLETS_HOME": str(tmp_path)}) == tmp_path
    assert paglets_home({}) == Path.home() / ".paglets"


def test_a_relative_home_stays_where_it_is_when_the_working_folder_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    home = paglets_home({"PAGLETS_HOME": "mesh/home"})
    monkeypatch.chdir(Path.home())
    assert home == tmp_path / "mesh" / "home"


def test_a_relative_home_in_a_removed_working_folder_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(StartFailed, match="relative to a working directory that was removed"):
        paglets_home({"PAGLETS_HOME": "home"})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "A" * 42,
        "A" * 44,
        "A" * 42 + "=",
        "A" * 42 + "/",
        "A" * 42 + "\n",
        "A" * 43 + "\n\n",
        " " + "A" * 42,
        "ä" * 43,
    ],
)
def test_what_is_not_43_base64url_characters_is_no_key_and_is_not_shown(text: str) -> None:
    with pytest.raises(StartFailed) as caught:
        parse_key(text, "the flag")
    assert "the flag has no mesh key" in str(caught.value)
    assert "AAAA" not in str(caught.value)


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_one_end_of_line_belongs_to_the_file_and_not_to_the_key(end: str) -> None:
    assert parse_key(FIRST + end, "x").text == FIRST


def test_a_key_is_never_shown() -> None:
    key = MeshKey(text=FIRST, source="somewhere")
    assert FIRST not in f"{key!r} {key}"
    assert "somewhere" in repr(key)


def test_a_key_matches_itself_only() -> None:
    key = MeshKey(text=FIRST, source="x")
    assert key.matches(FIRST)
    for other in (SECOND, "", FIRST + "\n", FIRST[:-1], "ä"):
        assert not key.matches(other)


def test_the_first_key_found_wins_in_the_order_flag_variable_configuration_home(tmp_path: Path) -> None:
    flag, config = write_key(tmp_path / "flag", FIRST), write_key(tmp_path / "config", THIRD)
    home = {"PAGLETS_HOME": str(tmp_path / "home")}
    both = {**home, "PAGLETS_API_KEY": SECOND}
    write_key(default_key_file(home), FOURTH + "\n")

    found = [
        find_key(both, key_file=flag, config_key_file=config),
        find_key(both, config_key_file=config),
        find_key(home, config_key_file=config),
        find_key(home),
    ]

    assert [key.text for key in found if key] == [FIRST, SECOND, THIRD, FOURTH]


def test_a_named_key_that_is_missing_or_wrong_is_not_skipped_for_the_next(tmp_path: Path) -> None:
    home = {"PAGLETS_HOME": str(tmp_path)}
    write_key(default_key_file(home), FOURTH)
    with pytest.raises(StartFailed, match="does not exist"):
        find_key(home, key_file=tmp_path / "nowhere")
    with pytest.raises(StartFailed, match="PAGLETS_API_KEY has no mesh key"):
        find_key({**home, "PAGLETS_API_KEY": "short"})
    with pytest.raises(StartFailed, match="does not exist"):
        find_key(home, config_key_file=tmp_path / "nowhere")


@posix_only
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o611, 0o777])
def test_a_key_file_that_others_can_use_is_refused_with_the_command_that_mends_it(tmp_path: Path, mode: int) -> None:
    path = write_key(tmp_path / "mesh.key", FIRST, mode)
    with pytest.raises(StartFailed, match=f"chmod 600 {path}"):
        read_key(path)


@posix_only
def test_a_pipe_or_a_folder_is_no_key_file_and_nobody_waits_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(
            StartFailed, match=r"it is a (pipe|folder), not a regular file\nhint: move it away, and copy"
        ):
            read_key(path)


@posix_only
def test_a_link_to_nothing_is_named_as_one_also_where_a_key_would_be_made(tmp_path: Path) -> None:
    path = tmp_path / "mesh.key"
    path.symlink_to("gone")
    told = "mesh.key is a link to gone, which does not exist: put the key there, or remove the link"
    with pytest.raises(StartFailed, match=told):
        host_key({"PAGLETS_HOME": str(tmp_path)})
    with pytest.raises(StartFailed, match=told):
        create_key(path, SystemEntropy())
    assert os.listdir(tmp_path) == ["mesh.key"]


def test_an_empty_key_file_is_told_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(
        StartFailed, match=r"is empty\nhint: remove it, and copy the key again from a machine of the mesh"
    ):
        read_key(write_key(tmp_path / "mesh.key", ""))


def test_a_huge_file_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = write_key(tmp_path / "mesh.key", "A" * 5_000_000)
    with pytest.raises(StartFailed, match="got 1025 characters"):
        read_key(path)


@posix_only
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_a_new_key_file_is_for_this_user_only_under_any_umask(tmp_path: Path, umask: int) -> None:
    path = tmp_path / "mesh.key"
    before = os.umask(umask)
    try:
        key = create_key(path, SystemEntropy())
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text() == key.text + "\n"
    assert os.listdir(tmp_path) == ["mesh.key"]


@posix_only
def test_a_new_home_is_for_this_user_only(tmp_path: Path) -> None:
    create_key(tmp_path / "home" / "mesh.key", SystemEntropy())
    assert stat.S_IMODE((tmp_path / "home").stat().st_mode) & 0o077 == 0


def test_keys_differ(tmp_path: Path) -> None:
    assert len({create_key(tmp_path / f"{index}.key", SystemEntropy()).text for index in range(5)}) == 5


def test_many_that_start_at_once_end_up_with_one_key(tmp_path: Path) -> None:
    path, texts = tmp_path / "mesh.key", list[str]()
    start = threading.Barrier(20)

    def make() -> None:
        start.wait()
        texts.append(create_key(path, SystemEntropy()).text)

    threads = [threading.Thread(target=make) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(texts) == 20
    assert set(texts) == {read_key(path).text}
    assert os.listdir(tmp_path) == ["mesh.key"]


def test_a_place_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StartFailed, match="cannot be written"):
        create_key(tmp_path / "file" / "mesh.key", SystemEntropy())


def test_a_first_host_makes_a_key_and_one_with_peers_says_how_to_copy_it(tmp_path: Path) -> None:
    environ = {"PAGLETS_HOME": str(tmp_path)}
    with pytest.raises(StartFailed, match="this machine has no mesh key") as refused:
        host_key(environ, peers=["http://other:8765"])
    copy, first = refused.value.advice()
    assert copy == f"hint: copy the key of the mesh: scp -p FIRST-MACHINE:.paglets/mesh.key {tmp_path}/mesh.key"
    assert first.startswith("hint: in a new mesh start the first host without peers")
    assert host_key(environ) is None
    made = first_key(environ, SystemEntropy(), [])
    again = host_key(environ, peers=["http://other:8765"])
    assert again is not None
    assert made.text == again.text == client_key(environ).text


def test_a_host_that_was_in_a_mesh_creates_no_key_and_says_where_to_get_it(tmp_path: Path) -> None:
    environ = {"PAGLETS_HOME": str(tmp_path)}
    others = [f"w{n}" for n in range(7)]
    with pytest.raises(StartFailed, match="was in a mesh with w0, w1, w2, w3, w4 and 2 more") as refused:
        first_key(environ, SystemEntropy(), others)
    advice = "\n".join(refused.value.advice())
    assert "start this host with the --key-file or PAGLETS_API_KEY that it had" in advice
    assert f"restore {tmp_path / 'mesh.key'} (mode 600) from a backup" in advice
    assert "create another key with `paglets key new` only if" in advice
    assert os.listdir(tmp_path) == []


def test_a_command_without_a_key_is_told_where_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(NotAllowed, match="scp "):
        client_key({"PAGLETS_HOME": str(tmp_path)})


def test_where_a_host_runs_without_the_file_of_its_key_no_new_one_is_advised(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    tree = {"name": "w1", "url": "http://127.0.0.1:1", "store_id": "s", "pid": os.getpid()}
    (tmp_path / "run" / "w1.json").write_text(json.dumps(tree))
    environ = {"PAGLETS_HOME": str(tmp_path)}
    asks: tuple[tuple[Callable[[Mapping[str, str]], object], type[PagletsError], str], ...]
    asks = (
        (client_key, NotAllowed, "set PAGLETS_API_KEY to the key of the host"),
        (host_key, StartFailed, "start this host with the --key-file or PAGLETS_API_KEY of w1"),
    )
    for ask, error, same in asks:
        with pytest.raises(error, match="the host w1 runs here") as refused:
            ask(environ)
        advice = "\n".join(refused.value.advice())
        assert "start a host here" not in advice
        assert same in advice
        assert "from a backup" in advice
    create_key(tmp_path / "mesh.key", SystemEntropy())
    assert host_key(environ) is not None
