"""`paglets demo` of the built archive: its output is right, and it leaves nothing behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.rig import COMMAND_SECONDS, PATIENCE_SECONDS, Mesh, wait_until
from tests.acceptance.test_readme import BLOCKS, NUMBER, matches

FILES = 24


class Demo:
    """A runner of the command with its own temporary folder, which must be empty afterwards."""

    def __init__(self, mesh: Mesh, folder: Path) -> None:
        self.mesh = mesh
        self.temporary = folder
        folder.mkdir()

    def environment(self) -> dict[str, str]:
        # The demo cannot know that no host of the user runs in mesh.home, and must stay away from there.
        return self.mesh.environment(TMPDIR=self.temporary, NO_COLOR=1)

    def run(self, *flags: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.command(), *flags],
            env=self.environment(),
            cwd=self.mesh.work,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )

    def start(self) -> subprocess.Popen[str]:
        """Start the demo in a session of its own, so that only it receives a signal."""
        return subprocess.Popen(
            self.command(),
            env=self.environment(),
            cwd=self.mesh.work,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def command(self) -> list[str]:
        return [self.mesh.python, str(self.mesh.archive), "demo", "--files", str(FILES)]

    def check_nothing_left(self) -> None:
        assert os.listdir(self.temporary) == []
        assert [path.name for path in self.mesh.home.iterdir()] == ["cache"]  # the unpacked program
        wait_until(lambda: not self.mesh.processes(), what="no process to be left")


@pytest.fixture
def demo(mesh: Mesh, tmp_path: Path) -> Iterator[Demo]:
    made = Demo(mesh, tmp_path / "temporary")
    yield made
    made.check_nothing_left()


def test_the_demo_tells_the_whole_story_and_its_result_is_right(demo: Demo) -> None:
    done = demo.run()
    assert (done.returncode, done.stderr) == (0, "")
    told = iter(done.stdout.splitlines())
    for part in (
        "starting three hosts on this machine",
        f"input: {FILES} files of Python's standard library",
        "the laptop submitted 24 jobs",
        "detached:",
        "kill -9: the laptop, process ",
        "linux-a reports:",
        "24 done of 24 without the laptop",
        "WAITING_FOR_HOME; restarting the laptop",
        "the collector has moved home to the laptop",
        "fetched 24 databases from the laptop",
        "all equal",
        "stopped the hosts and removed their data",
        "IDENTIFIER",
        "self",
        "next:",
        "demo --keep",
    ):
        assert any(part in line for line in told), f"{part!r} is missing, or not in its place: {done.stdout}"
    among = [line for shown in BLOCKS[1][1].splitlines() for line in ("...", shown)]
    assert matches([*among, "..."], done.stdout.splitlines(), NUMBER), "README.md shows other lines"


def test_what_came_out_is_one_json_object_and_keep_keeps_the_data(demo: Demo) -> None:
    done = demo.run("--json", "--keep")
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    folder = Path(told.pop("folder"))
    assert {name: told[name] for name in ("files", "jobs", "done", "failed", "kills", "differences", "equal")} == {
        "files": FILES,
        "jobs": FILES,
        "done": FILES,
        "failed": 0,
        "kills": 1,
        "differences": 0,
        "equal": True,
    }
    assert told["rows"] > 0
    assert told["uses"][0]["identifier"] == "self"
    assert told["seconds"] > 0
    assert (folder / "home" / "hosts" / "laptop" / "paglets.db").is_file()
    assert str(folder) in done.stderr
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("number", "after"),
    [
        (signal.SIGINT, "the laptop submitted"),
        (signal.SIGHUP, "kill -9: the laptop"),
        (signal.SIGTERM, "starting three hosts"),
    ],
)
def test_a_signal_in_the_middle_leaves_nothing(demo: Demo, number: signal.Signals, after: str) -> None:
    process = demo.start()
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if after in line:
            break
    wait_until(lambda: demo.mesh.processes()[1:], what="its hosts to be seen beside it")
    process.send_signal(number)
    said += process.stdout.read()
    assert process.wait(PATIENCE_SECONDS) == 128 + number, said
    assert "interrupted; stopped the hosts and removed their data" in said


def test_who_reads_no_further_ends_it(demo: Demo) -> None:
    process = demo.start()
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(COMMAND_SECONDS) == 1
