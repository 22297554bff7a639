"""The scripts and commands of `docs/guide.md`, run as they stand there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from build_zipapp import ROOT
from tests.acceptance.rig import Finished, MakeMesh, Mesh

GUIDE = ROOT / "docs" / "guide.md"
BLOCK = re.compile(r"^```(?P<kind>python|text|console)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
SCRIPT = re.compile(r"# (\w+\.py)\n")
PROGRAM = "paglets "


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A command line of a document, and what that says is printed; `exact`: that is all of stdout."""

    line: str
    output: str
    exact: bool


def blocks() -> list[re.Match[str]]:
    return list(BLOCK.finditer(GUIDE.read_text()))


def scripts() -> dict[str, str]:
    """The complete scripts by their names."""
    found = {name[1]: block["text"] for block in blocks() if (name := SCRIPT.match(block["text"]))}
    assert found
    return found


def shown() -> Iterator[Shown]:
    for block in blocks():
        for part in re.split(r"^\$ ", block["text"], flags=re.MULTILINE)[1:] if block["kind"] != "python" else ():
            line, _, output = part.partition("\n")
            yield Shown(line=line, output=output, exact=block["kind"] == "text")


@pytest.fixture(scope="module")
def folder(make_mesh: MakeMesh) -> Iterator[Mesh]:
    """Three hosts, and the scripts of the documents in the folder where commands are run."""
    with make_mesh("guide") as made:
        made.start_three()
        for name, text in scripts().items():
            (made.work / name).write_text(text)
        yield made


def run(mesh: Mesh, line: str) -> Finished:
    assert line.startswith(PROGRAM), line
    return mesh.paglets(*shlex.split(line.removeprefix(PROGRAM)), PAGLETS_AT="laptop")


def test_every_script_is_run_where_it_stands() -> None:
    lines = [each.line for each in shown()]
    assert [PROGRAM + name for name in scripts()] == [line for line in lines if line.endswith(".py")]


def test_what_is_shown_is_printed(folder: Mesh) -> None:
    for each in shown():
        done = run(folder, each.line)
        if each.exact:
            assert (done.code, done.out) == (0, each.output), f"{each.line}: {done.err}"
        else:
            assert "Traceback" not in done.err, done.err
