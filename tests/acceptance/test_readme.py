"""`README.md` and `docs/tutorial.md`, run from their first block to their last, as a reader types them.

Two machines are two home folders: `ssh` and `scp` on the PATH act on the second one. The test replaces what a reader
replaces: the name of the laptop, the address that its host prints, and the port, since other hosts may run here.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator

import pytest

from build_zipapp import ROOT
from paglets.cli.host_flags import machine_name
from tests.acceptance.rig import COMMAND_SECONDS, MARK, MakeMesh, Mesh, free_port, wait_until

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
BLOCKS = BLOCK.findall((ROOT / "README.md").read_text())
TUTORIAL = BLOCK.findall((ROOT / "docs" / "tutorial.md").read_text())
SCRIPT = re.compile(r"# (\w+\.py)\n")
DEMO = "python3 build_zipapp.py && python3 dist/paglets.pyz demo\n"
TESTS = "python3 -m venv .venv && .venv/bin/pip install -q -r requirements-dev.txt && .venv/bin/python -m pytest\n"

SSH = """#!/bin/sh
[ "$1" = linux-a ] && shift || exit 255
cd "$OTHER_HOME" && HOME=$OTHER_HOME PATH=$BARE_PATH exec sh -c "$*"
"""
SCP = """#!/bin/sh
[ "$1" = -p ] && shift
exec cp -p "$1" "$OTHER_HOME/${2#linux-a:}"
"""

AMOUNT = r"[\d.,]+ (?:s|ms|min|cores?|[KMG]iB)\b|[\d.,]+ of [\d.,]+(?: [KMG]iB)?"
VARY = re.compile(rf"(?:{AMOUNT})")
"""An expression for durations, sizes and amounts, which may differ from those in the document."""
ADDRESS = re.compile(r"listening at (\S+) ")
NUMBER = re.compile(r"\d[\d.,]*")
SLOW = re.compile(r"\S+: (?:waiting for .*|\d+ done.* pending of .*)")
"""An expression for lines that only a slow machine prints."""


def commands(kind: str, text: str) -> Iterator[tuple[str, list[str] | None]]:
    """Yield the commands of a block with their shown output. A shell script is one command without output."""
    if kind == "sh":
        yield text, None
        return
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, *shown = part.splitlines()
        yield command, shown


SOON = ("paglets mesh hosts", "paglets jobs groups curves")
"""Commands to repeat until the hosts see each other, or the collector is at home."""


def matches(shown: list[str], printed: list[str], vary: re.Pattern[str]) -> bool:
    """Return True if these lines were printed. A line `...` stands for any lines, `...` in a line for any text."""
    if not shown:
        return not printed
    if shown[0] == "...":
        return any(matches(shown[1:], printed[skipped:], vary) for skipped in range(len(printed) + 1))
    same = printed and re.fullmatch(pattern(shown[0], vary), printed[0])
    return bool(same) and matches(shown[1:], printed[1:], vary)


def pattern(line: str, vary: re.Pattern[str]) -> str:
    """Return an expression for a line of the document. Columns may be wider or narrower."""
    text = vary.pattern.join(re.escape(part) for part in vary.split(line))
    return re.sub(r"(?:\\ )+", " +", text).replace(r"\.\.\.", ".*") + " *"


def scripts() -> dict[str, str]:
    """Return the complete scripts of both documents by name."""
    return {name[1]: text for kind, text in BLOCKS + TUTORIAL if kind == "python" and (name := SCRIPT.match(text))}


class Reader:
    """A reader with the built file, two machines and an empty home on each."""

    def __init__(self, mesh: Mesh) -> None:
        self.home = mesh.folder / "laptop"
        self.folder = self.home / "checkout"
        self.other = mesh.folder / "linux-a"
        self.name = machine_name(socket.gethostname())
        tools = mesh.folder / "bin"
        for each in (self.folder / "dist", self.other, tools):
            each.mkdir(parents=True)
        shutil.copy(mesh.archive, self.folder / "dist" / "paglets.pyz")
        (tools / "python3").symlink_to(os.path.realpath(mesh.python))
        for name, text in (("ssh", SSH), ("scp", SCP)):
            (tools / name).write_text(text)
            (tools / name).chmod(0o755)
        for folder in (self.folder, self.other):
            (folder / "hosts.toml").write_text(f"[mesh]\nport = {free_port()}\n")
        bare = f"{tools}:/usr/bin:/bin"
        self.environment = {"PATH": bare, "BARE_PATH": bare, "HOME": str(self.home), "OTHER_HOME": str(self.other)}
        self.addresses: dict[str, str] = {}
        self.code, self.printed = 0, ""
        self.environment |= {"TMPDIR": str(mesh.folder), MARK: mesh.mark, "PYTHONUNBUFFERED": "1"}

    def install(self) -> None:
        """Put `paglets` on the PATH, as `README.md` says."""
        (self.home / ".local" / "bin").mkdir(parents=True)
        shutil.copy(self.folder / "dist" / "paglets.pyz", self.home / ".local" / "bin" / "paglets")
        self.environment["PATH"] = f"{self.home}/.local/bin:{self.environment['PATH']}"

    def run(self, command: str) -> None:
        """Run a command and keep its output. A changed PATH applies to later commands, as in a terminal."""
        left = self.home / "PATH"
        line = f'{self.replaced(command)}\ncode=$?; printf %s "$PATH" > {left}; exit $code'
        done = subprocess.run(
            ["/bin/bash", "-c", line],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        self.environment["PATH"] = left.read_text()
        self.code, self.printed = done.returncode, done.stdout

    def shows(self, shown: list[str]) -> bool:
        """Return True if the last command printed these lines."""
        printed = [line for line in self.printed.splitlines() if not SLOW.fullmatch(line)]
        return matches([self.replaced(line) for line in shown], printed, VARY)

    def follows(self, command: str, shown: list[str] | None) -> bool:
        """Run a command, and return True if its output is as shown. A script only has to succeed."""
        self.run(command)
        if shown is None:
            return self.code == 0
        if command in SOON:
            wait_until(lambda: self.shows(shown) or self.run(command), what=command)
        self.addresses |= zip(ADDRESS.findall("\n".join(shown)), ADDRESS.findall(self.printed), strict=False)
        return self.shows(shown)

    def replaced(self, text: str) -> str:
        """Return the text with the name of this machine and the addresses that the hosts printed."""
        for shown, printed in self.addresses.items():
            text = text.replace(shown, printed)
        return re.sub(r"\blaptop\b", self.name, text)


@pytest.fixture
def reader(make_mesh: MakeMesh) -> Iterator[Reader]:
    with make_mesh("readme") as made:
        yield Reader(made)
        left = made.processes()
        for each in left:
            each.kill()
        assert not left, "the document stops its hosts"


def run_blocks(reader: Reader, blocks: list[tuple[str, str]]) -> None:
    for kind, text in blocks:
        if kind == "python":
            (reader.folder / SCRIPT.match(text)[1]).write_text(text)
        else:
            assert kind in ("sh", "console"), text
            for command, shown in commands(kind, text):
                assert reader.follows(command, shown), f"$ {command}\n{reader.printed}"


def test_its_first_two_commands_show_it_at_work_and_run_the_tests() -> None:
    assert BLOCKS[0] == ("sh", DEMO + TESTS)


def test_every_block_runs_as_printed(reader: Reader) -> None:
    assert BLOCKS[1][0] == "text"  # what the demo prints: test_demo.py runs it
    run_blocks(reader, BLOCKS[2:])


def test_every_block_of_the_tutorial_runs_as_printed(reader: Reader) -> None:
    reader.install()
    run_blocks(reader, TUTORIAL)
