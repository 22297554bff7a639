"""The files, functions, packages and commands that CONTRIBUTING.md names exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.unit.test_layers import LEVELS

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
FILE = re.compile(r"`((?:paglets|tests|docs|hosts\.)[\w./]*)`")
STEPS = [row.split("|") for row in re.findall(r"^\| \d+ \|.*$", TEXT, re.MULTILINE)]
MOST_LINES = 200


def test_it_stays_short() -> None:
    assert len(TEXT.splitlines()) <= MOST_LINES


@pytest.mark.parametrize("name", sorted(set(FILE.findall(TEXT))))
def test_a_path_that_is_named_exists(name: str) -> None:
    path = ROOT / name
    as_module = ROOT.joinpath(*name.split("."))
    assert path.exists() or as_module.is_dir()


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step[1].strip())
def test_a_step_of_a_job_names_what_its_files_define(step: list[str]) -> None:
    _, _, files, names, *_ = step
    text = "\n".join((ROOT / name).read_text() for name in FILE.findall(files))
    for name in re.findall(r"`(\w+)`", names):
        assert re.search(rf"^ *(?:def|class) {name}\b", text, re.MULTILINE), name


def test_packages_come_in_the_order_that_is_enforced() -> None:
    listed = re.findall(r"^\| `paglets/(\w+)` \|", TEXT, re.MULTILINE)
    assert listed == [*(name for level in LEVELS for name in level), "system", "cli"]


def shell_lines() -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.splitlines()]


@pytest.mark.parametrize("line", shell_lines())
def test_a_command_that_is_shown_has_its_files_and_flags(line: str) -> None:
    words = shlex.split(line, comments=True)
    for word in words:
        if word.startswith("tests/") or word.endswith((".py", ".txt")):
            assert (ROOT / word).exists(), word
    if "tests.simulator" in words:
        source = (ROOT / "tests" / "simulator" / "__main__.py").read_text()
        assert all(f'"{word}"' in source for word in words if word.startswith("--"))
