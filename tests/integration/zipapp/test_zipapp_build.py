"""The output of build_zipapp.py, which is the same everywhere."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import sys
import zipfile
import zlib

import pytest

from build_zipapp import EARLIEST_ZIP_TIME, MOST_BYTES, PSUTIL_WHEELS, ROOT, fetch
from paglets.core.unpacking import content_of
from tests.acceptance import test_guide, test_readme
from tests.integration.zipapp.interpreters import INTERPRETERS

WRONG = """\
import paglets


class Hello(paglets.Job):
    def run_compute_job(self) -> None:
        self.state.no_such_field


class Counts(paglets.JobState):
    pass


class Count(paglets.Job[Counts]):
    State = Counts


client = paglets.HostClient(7)
paglets.submit_compute_job_group(client, Count, [paglets.JobState()])
paglets.Jobs
"""
MISTAKES = [("6", "attr-defined"), ("17", "arg-type"), ("18", "misc"), ("19", "attr-defined")]
"""A line in WRONG and mypy's code of the error in that line."""


def test_builds_in_other_folders_time_zones_and_by_other_interpreters_are_equal(pyz, run, another_checkout):
    own = sys.version_info[:2]
    others = {version: python for version, python in INTERPRETERS.items() if version != own}
    # This version of Python built `pyz`. Without another version it builds again.
    for number, python in enumerate((others or {own: sys.executable}).values()):
        place = another_checkout(f"deep{number}/er")
        built = run(
            "sh", "-c", 'umask 077; exec "$@"', "sh", python, place / "build_zipapp.py",
            TZ="Asia/Tokyo", PYTHONHASHSEED=number + 1, SOURCE_DATE_EPOCH=1, USER=f"user{number}",
        )  # fmt: skip
        assert built.returncode == 0, built.stderr
        assert (place / "dist" / "paglets.pyz").read_bytes() == pyz.read_bytes()


def test_the_archive_is_executable_and_its_entries_say_nothing_of_the_builder(pyz, checkout):
    names = zipfile.ZipFile(pyz).namelist()
    assert names == sorted(names)
    assert pyz.read_bytes().startswith(b"#!/usr/bin/env python3\n")
    assert pyz.stat().st_mode & 0o777 == 0o755
    assert str(checkout).encode() not in pyz.read_bytes()
    for entry in zipfile.ZipFile(pyz).infolist():
        seen = (entry.date_time, entry.compress_type, entry.create_system, entry.external_attr)
        assert seen == (EARLIEST_ZIP_TIME, zipfile.ZIP_STORED, 3, 0o100644 << 16), entry.filename


def test_the_archive_holds_the_program_once_and_is_small(pyz, checkout):
    archive = zipfile.ZipFile(pyz)
    source = {name[len("src/") :] for name in archive.namelist() if name.startswith("src/")}
    modules = {path.relative_to(checkout).as_posix() for path in (checkout / "paglets").rglob("*.py")}
    assert modules | {"paglets/store/migrations/0001_first.sql", "vendor/tomli_w/__init__.py"} <= source
    assert "paglets/store/schema.sql" not in source
    assert len(archive.namelist()) == len(source) + 2
    assert pyz.stat().st_size <= MOST_BYTES
    files = {name: archive.read(f"src/{name}") for name in source}
    assert f'CONTENT = "{content_of(files)}"' in archive.read("paglets/__init__.py").decode()


def test_the_archive_brings_psutil_for_eight_platforms_as_published(pyz):
    archive = zipfile.ZipFile(pyz)
    listed = json.loads(archive.read("src/archive.json"))["psutil"]
    assert len(listed["platforms"]) == 8
    for wheel in PSUTIL_WHEELS:
        published = zipfile.ZipFile(io.BytesIO(fetch(wheel)))
        extension = listed["platforms"][wheel.platform]["extension"]
        names = {extension: f"{wheel.platform}/{extension}"} | {
            name: f"all/{name}" for name in listed["all"] if name.endswith(".py")
        }
        for name, place in names.items():
            content = zlib.decompress(archive.read(f"src/native/{place}.deflate"), -15)
            assert content.replace(b"\r\n", b"\n") == published.read(name).replace(b"\r\n", b"\n"), name


@pytest.mark.parametrize("content", [b"", b"another wheel"])
def test_a_wheel_with_another_hash_is_never_taken(run, another_checkout, content):
    place = another_checkout("tampered")
    (place / "build" / "wheels" / PSUTIL_WHEELS[0].name).write_bytes(content)
    built = run(
        sys.executable, place / "build_zipapp.py", PIP_NO_INDEX=1, PIP_FIND_LINKS=place, PIP_CONFIG_FILE=os.devnull
    )
    assert built.returncode == 1
    assert f"cannot fetch {PSUTIL_WHEELS[0].name}" in built.stderr
    assert not (place / "dist").exists()


def test_an_unpacked_archive_type_checks_the_scripts_of_the_documents(run, pyz, tmp_path):
    """Type checkers use the unpacked archive as the guide says, for users who have only the file."""
    unpacked = run(sys.executable, "-m", "zipfile", "-e", pyz, tmp_path / "paglets-files")
    assert unpacked.returncode == 0, unpacked.stderr
    folder = tmp_path / "scripts"
    folder.mkdir()
    for name, text in (test_readme.scripts() | test_guide.all_scripts() | {"wrong.py": WRONG}).items():
        (folder / name).write_text(text)
    shutil.copy(ROOT / "paglets" / "examples" / "identifiers.py", folder)
    words = ("--strict", "--no-site-packages", "--cache-dir", tmp_path / "cache", ".")
    checked = run(sys.executable, "-m", "mypy", *words, cwd=folder, MYPYPATH=tmp_path / "paglets-files" / "src")
    found = re.findall(r"^(.+):(\d+): error: .*\[(.+)\]$", checked.stdout, re.MULTILINE)
    assert found == [("wrong.py", *mistake) for mistake in MISTAKES], checked.stdout + checked.stderr
