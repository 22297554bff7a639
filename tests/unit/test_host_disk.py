"""Scratch directories as jobs leave them: gone in the end, and nothing else touched."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from paglets.host.disk import HostDisk

posix = pytest.mark.skipif(os.name != "posix", reason="rights as POSIX has them")


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def disk(tmp_path: Path, said: list[str]) -> HostDisk:
    (tmp_path / "host").mkdir()
    return HostDisk(tmp_path / "host", lambda act: act(), said.append)


@posix
@pytest.mark.parametrize(
    "put", [lambda path, target: path.symlink_to(target), lambda path, target: path.write_text("")]
)
def test_what_a_job_put_in_the_place_of_its_directory_goes(
    disk: HostDisk, said: list[str], tmp_path: Path, put: Callable[[Path, Path], object]
) -> None:
    precious = tmp_path / "precious"
    precious.mkdir(mode=0o755)
    (precious / "data").touch()
    work = Path(disk.prepare("j1", fresh=True))
    shutil.rmtree(work)
    put(work, precious)

    disk.discard("j1")

    assert list((tmp_path / "host" / "trash").iterdir()) == []
    assert said == []
    assert precious.stat().st_mode & 0o777 == 0o755
    assert (precious / "data").exists()


@posix
def test_a_directory_without_rights_goes_and_what_its_links_name_keeps_its_rights(
    disk: HostDisk, said: list[str], tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.touch(mode=0o640)
    closed = Path(disk.prepare("j1", fresh=True)) / "closed"
    closed.mkdir()
    (closed / "soft").symlink_to(data)
    (closed / "hard").hardlink_to(data)
    closed.chmod(0o500)

    disk.discard("j1")

    assert list((tmp_path / "host" / "trash").iterdir()) == []
    assert said == []
    assert data.stat().st_mode & 0o777 == 0o640
