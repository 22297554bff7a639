"""The permissions of host folders: made private, refused, or reported."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from paglets.core.clock import SystemEntropy
from paglets.core.errors import StartFailed
from paglets.host.datadir.data_directory import open_data_directory
from paglets.host.datadir.permissions import FolderAccess, Privacy, inspect, judge, refusal, secure

ME, OTHER = 1000, 1001


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (FolderAccess(owner=ME, mode=0o700), Privacy.PRIVATE),
        (FolderAccess(owner=ME, mode=0o755), Privacy.READABLE),
        (FolderAccess(owner=ME, mode=0o711), Privacy.READABLE),
        (FolderAccess(owner=ME, mode=0o775), Privacy.WRITABLE),
        (FolderAccess(owner=ME, mode=0o702), Privacy.WRITABLE),
        (FolderAccess(owner=ME, mode=0o775, is_empty=True), Privacy.READABLE),
        (FolderAccess(owner=OTHER, mode=0o700), Privacy.FOREIGN),
        (FolderAccess(owner=OTHER, mode=0o777, is_empty=True), Privacy.FOREIGN),
        (FolderAccess(owner=OTHER, mode=0o777, keeps_modes=False), Privacy.UNPROTECTED),
    ],
)
def test_a_folder_is_used_only_if_nobody_else_can_have_put_something_there(
    found: FolderAccess, verdict: Privacy
) -> None:
    assert judge(found, ME) is verdict


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_folder_is_private_and_nothing_is_said(tmp_path: Path) -> None:
    secured = secure(tmp_path / "a" / "b")
    assert (secured.changed, secured.warning, mode_of(tmp_path / "a" / "b")) == ("", "", 0o700)


def test_a_folder_that_others_can_read_is_tightened_and_said_once(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    folder.chmod(0o755)
    (folder / "file").touch()
    assert "(mode 0755); changed to 0700" in secure(folder).changed
    assert mode_of(folder) == 0o700
    assert secure(folder).changed == ""


def test_a_folder_that_others_can_write_to_is_refused_with_the_command(tmp_path: Path) -> None:
    folder = tmp_path / "da ta"
    folder.mkdir()
    folder.chmod(0o775)
    (folder / "file").touch()
    with pytest.raises(StartFailed, match=rf"run `chmod 700 '{folder}'`"):
        secure(folder)
    assert mode_of(folder) == 0o775


def test_a_link_is_judged_by_its_target(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real").chmod(0o755)
    (tmp_path / "link").symlink_to("real")
    assert secure(tmp_path / "link").changed
    assert mode_of(tmp_path / "real") == 0o700


def test_a_folder_of_another_user_is_refused_with_the_command(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    text = refusal(folder, FolderAccess(owner=12345, mode=0o755), Privacy.FOREIGN)
    assert "belongs to user 12345" in text
    assert f"{folder}`" in text
    assert "sudo chown -R " in text
    if os.geteuid() == 0:
        os.chown(folder, 12345, 12345)
        with pytest.raises(StartFailed, match="belongs to user 12345"):
            secure(folder)


def test_a_file_system_without_modes_is_a_warning_at_each_start(tmp_path: Path) -> None:
    folder = tmp_path / "stick"
    folder.mkdir()
    folder.chmod(0o777)
    (folder / "file").touch()
    for _ in range(2):
        secured = secure(folder, keeps_modes=lambda path: False)
        assert secured.changed == ""
        assert "its file system has no owners and modes" in secured.warning
    assert [path.name for path in folder.iterdir()] == ["file"]


def test_a_look_at_what_the_file_system_keeps_leaves_nothing_there(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    folder.chmod(0o755)
    assert secure(folder).changed
    assert list(folder.iterdir()) == []


def test_nobody_is_told_to_close_a_folder_of_all_users() -> None:
    assert "use a folder inside it" in refusal(Path("/tmp"), inspect(Path("/tmp")), Privacy.FOREIGN)


def test_permissions_that_an_earlier_version_left_are_removed_at_the_start(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with open_data_directory(tmp_path, SystemEntropy(), lambda error: None):
            (tmp_path / "earlier").touch(0o666)
            (tmp_path / "paglets.db").chmod(0o644)
        with open_data_directory(tmp_path, SystemEntropy(), lambda error: None):
            found = {path.name: mode_of(path) for path in tmp_path.iterdir()}
    finally:
        os.umask(before)
    assert {"paglets.db", "paglets.db-wal", "paglets.db-shm", "lock", "host.log", "earlier"} <= set(found)
    assert set(found.values()) == {0o600}
