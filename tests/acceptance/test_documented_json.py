"""The keys that commands print with `--json` are those that `docs/reference/commands.md` describes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from mesh_jobs import Task, TaskState

from build_zipapp import ROOT
from docs.generator.outputs import OUTPUTS
from paglets.system.compute_slots import submit_compute_job_group
from tests.acceptance.rig import PATIENCE_SECONDS, MakeMesh, Mesh

ARTIFACTS = Path(__file__).parent / "scripts" / "artifacts.py"

RUNS: dict[str, list[list[object]]] = {
    "artifacts list": [[]],
    "artifacts info": [["FILES/bundle-0"]],
    "artifacts get": [["FILES/bundle-0", "one.db"], ["--group", "FILES", "results"]],
    "artifacts put": [["hosts.toml"]],
    "artifacts rm": [["FILES/bundle-1"]],
    "config check": [[]],
    "config show": [["--name", "gpu-a"]],
    "doctor": [[]],
    "jobs groups": [[], ["FILES"]],
    "jobs queue": [[]],
    "jobs list": [[], ["mixed"]],
    "jobs ps": [["--all"]],
    "jobs why": [["mixed"]],
    "jobs status": [["mixed"]],
    "jobs history": [["mixed"]],
    "jobs top": [[]],
    "jobs wait": [["mixed"]],
    "jobs watch": [["mixed"]],
    "jobs cancel": [["mixed"]],
    "jobs show": [["FILES/bundle-0"]],
    "jobs logs": [["mixed/bad"]],
    "jobs hosts": [[]],
    "key show": [[]],
    "key path": [[]],
    "key new": [["--key-file", "new.key"]],
    "list": [[]],
    "logs": [["mixed/bad"]],
    "mesh hosts": [[]],
    "mesh forget": [["0" * 32]],
    "notes": [[]],
    "version": [[]],
}
"""Arguments of commands. The runs of a command together print exactly the described keys."""

NOT_RUN = ("demo", "jobs rerun-hook", "stop")
"""Commands with tests elsewhere. `demo` takes long, `rerun-hook` needs a failed hook (`test_files.py`), and `stop` ends
a host (`test_terminal.py`)."""

NOT_HERE = {
    "jobs why": {"job", "collector", "pending_jobs", "hooks"},
    "jobs groups": {"problem", "counted_at", "elsewhere_count", "finished", "hosts", "next"},
}
"""Keys of one job, printed beside those of its record, and of a group whose collector is away."""


@pytest.fixture(scope="module")
def ended(make_mesh: MakeMesh) -> Any:
    """Start three hosts with a group of artifacts and a group with a failed job."""
    with make_mesh("json") as made:
        made.start_three()
        told = json.loads(made.script(ARTIFACTS, 2, 100, PAGLETS_AT="laptop", PYTHONPATH=made.archive).out)
        good, bad = TaskState(job_key="good", how="works"), TaskState(job_key="bad", how="raises")
        client = made["laptop"].client
        submit_compute_job_group(client, Task, [good, bad], group_id="mixed").drain(timeout=PATIENCE_SECONDS)
        (made.work / "hosts.toml").write_bytes((ROOT / "hosts.example.toml").read_bytes())
        yield made, told["group_id"]


def test_each_command_is_looked_at() -> None:
    assert sorted([*RUNS, *NOT_RUN]) == sorted(OUTPUTS)


@pytest.mark.parametrize("name", RUNS)
def test_the_keys_are_those_that_are_described(ended: tuple[Mesh, str], name: str) -> None:
    mesh, files = ended
    found: dict[str, None] = {}
    for words in RUNS[name]:
        given = [str(word).replace("FILES", files) for word in words]
        done = mesh.paglets(*name.split(), *given, "--json", PAGLETS_AT="laptop")
        assert done.out, done.err
        found |= dict.fromkeys(json.loads(done.out))
    assert set(found) == set(OUTPUTS[name].keys) - NOT_HERE.get(name, set())


def test_of_one_job_why_prints_its_record_too(ended: tuple[Mesh, str]) -> None:
    mesh, _ = ended
    told = json.loads(mesh.paglets("jobs", "why", "mixed/bad", "--json", PAGLETS_AT="laptop").out)
    assert (told["job"], told["status"], told["cause"]) == ("mixed/bad", "FAILED", "exception")


def test_the_jobs_of_a_group_are_listed_with_how_they_ended(ended: tuple[Mesh, str]) -> None:
    mesh, _ = ended
    lines = mesh.paglets("jobs", "list", "mixed", PAGLETS_AT="laptop").out.splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [["bad", "failed"], ["good", "done"]]
    failed = mesh.paglets("jobs", "list", "mixed", "--status", "failed", "--json", PAGLETS_AT="laptop").json
    assert [job["job_key"] for job in failed["jobs"]] == ["bad"]
