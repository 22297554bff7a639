"""A long process goes on in a copy of its archive, and copies that nobody runs are collected."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from paglets.program import COPY_GRACE_SECONDS, Program, collect_copies, keep_copy
from tests.fakes.waiting import wait_until

ENTER = "from pathlib import Path; from paglets.program import enter_copy; enter_copy(Path({home!r}), ['version'])"
WHERE = "from paglets.program import this_program; print('running', this_program().path)\n"
IMPORT_LATE = (
    "import pkgutil, paglets.core.record, paglets.store.migrations.steps\n"
    "print('late', paglets.core.record.__file__, bool(pkgutil.get_data('paglets.store', 'schema.sql')))\n"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Talk:
    """An interpreter that reads lines from its standard input, and the file that it writes to."""

    process: subprocess.Popen[bytes]
    output: Path

    def say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode())
        self.process.stdin.flush()

    def hear(self, start: str) -> str:
        """What follows `start` on the first line that begins so."""
        text = wait_until(lambda: self._lines_after(start), timeout_seconds=60, what=f"{start!r} in {self.output}")
        return text[0]

    def _lines_after(self, start: str) -> list[str]:
        whole = self.output.read_text().rpartition("\n")[0].splitlines()
        return [line.removeprefix(start) for line in whole if line.startswith(start)]


@contextmanager
def process_in_copy(pyz: Path, home: Path) -> Iterator[Talk]:
    """An interpreter that entered the copy as a host does, ran `version`, and then waits for more (-i)."""
    output = pyz.with_suffix(".out")
    with (
        output.open("wb") as file,
        subprocess.Popen(
            [sys.executable, "-u", "-i", "-c", ENTER.format(home=str(home))],
            env=os.environ | {"PYTHONPATH": str(pyz)},
            cwd=pyz.parent,  # -c imports from there first
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=subprocess.DEVNULL,
        ) as process,
    ):
        try:
            yield Talk(process=process, output=output)
        finally:
            process.kill()


@pytest.fixture
def mine(pyz: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "paglets.pyz"
    copy.write_bytes(pyz.read_bytes())
    return copy


@pytest.mark.parametrize("way", ["replaced", "overwritten", "deleted"])
def test_a_process_in_the_copy_does_not_mind_what_becomes_of_the_file(mine, tmp_path, way):
    with process_in_copy(mine, tmp_path / "home") as talk:
        talk.say(WHERE)
        copy = talk.hear("running ")
        assert copy.startswith(str(tmp_path / "home" / "cache" / "app"))
        if way == "replaced":
            (tmp_path / "new").write_bytes(b"another file")
            os.replace(tmp_path / "new", mine)
        elif way == "overwritten":
            mine.write_bytes(b"another file")
        else:
            mine.unlink()
        talk.say(IMPORT_LATE)
        file, data = talk.hear("late ").split()
    assert file.startswith(copy)
    assert data == "True"


def test_a_copy_is_kept_once_and_mended_where_it_was_harmed(mine, tmp_path):
    program = Program(path=mine, is_archive=True)
    first = keep_copy(program, tmp_path / "home")
    first.path.write_bytes(b"harmed")
    again = keep_copy(program, tmp_path / "home")
    assert again == first
    assert first.path.parent.name == program.sha256() == first.sha256()
    assert [path.name for path in first.path.parent.iterdir()] == ["paglets.pyz"]
    assert (tmp_path / "home").stat().st_mode & 0o777 == 0o700


def test_many_first_starts_at_once_keep_one_whole_copy(mine, tmp_path, run):
    code = f"{ENTER.format(home=str(tmp_path / 'home'))}"
    command = [sys.executable, "-c", code]
    environment = os.environ | {"PYTHONPATH": str(mine)}
    processes = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, cwd=tmp_path) for _ in range(20)
    ]
    outputs = {process.communicate(timeout=300)[0] for process in processes}
    assert {process.returncode for process in processes} == {0}
    assert len(outputs) == 1
    files = [path for path in (tmp_path / "home" / "cache" / "app").rglob("*") if path.is_file()]
    assert [path.read_bytes() == mine.read_bytes() for path in files] == [True]


def test_a_home_that_cannot_be_written_is_said_and_the_process_goes_on(mine, run):
    code = (
        "from pathlib import Path; from paglets.program import enter_copy; print(enter_copy(Path('/dev/null/x'), []))"
    )
    done = run(sys.executable, "-c", code, PYTHONPATH=mine)
    assert done.stdout.startswith(f"no copy of {mine} could be kept in /dev/null/x: ")


def test_a_process_that_runs_from_no_copy_collects_nothing(mine, tmp_path):
    home = tmp_path / "home"
    assert collect_copies(home, Program(path=mine, is_archive=True)) == []
    kept = keep_copy(Program(path=mine, is_archive=True), home)
    make_old(kept.path.parent)
    assert collect_copies(home, Program(path=mine, is_archive=True)) == []
    assert kept.path.is_file()


def make_old(folder: Path) -> None:
    long_ago = time.time() - 2 * COPY_GRACE_SECONDS
    os.utime(folder, (long_ago, long_ago))


def test_only_old_copies_that_no_process_runs_from_are_collected(mine, tmp_path):
    home = tmp_path / "home"
    with process_in_copy(mine, home) as talk:
        talk.say(WHERE)
        used = Path(talk.hear("running "))
        talk.say("from paglets.program import enter_copy; from pathlib import Path\n")
        talk.say(f"print('locked', enter_copy(Path({str(home)!r}), []))\n")
        talk.hear("locked")
        other = tmp_path / "other.pyz"
        other.write_bytes(mine.read_bytes() + b"more")
        own = keep_copy(Program(path=other, is_archive=True), home)
        unused, fresh, torn = (home / "cache" / "app" / name for name in ("unused", "fresh", "torn"))
        for folder in (unused, fresh):
            folder.mkdir()
            (folder / "paglets.pyz").write_bytes(b"")
        torn.mkdir()
        for folder in (used.parent, unused, torn):
            make_old(folder)
        assert collect_copies(home, own) == ["torn", "unused"]
        assert used.is_file()
    make_old(used.parent)
    assert wait_until(lambda: collect_copies(home, own), what="the used copy to be free") == [used.parent.name]
    assert own.path.is_file()
    assert fresh.is_dir()
