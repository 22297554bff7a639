"""Values of every kind in states and results, with real hosts."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import value_jobs

from paglets.codec.tagged_json import encode
from paglets.system.compute_slots import submit_compute_job_group
from tests.acceptance.rig import MakeMesh, Mesh, wait_until

READER = """
import sys
sys.modules["numpy"] = None
from paglets.core.errors import PagletsError
from paglets.remote.client import HostClient
results = HostClient().summary("kinds")["results"]
for key in sorted(results):
    try:
        value = results[key]["result"]
        print(key, "lacks numpy" if "numpy" in repr(value) else "is there")
    except PagletsError as error:
        print(key, "failed", error)
try:
    results["arrays"]["result"]["array"].sum()
except PagletsError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def two(make_mesh: MakeMesh, archive: Path) -> Iterator[Mesh]:
    """Start hosts with the interpreter of these tests, which has numpy."""
    with make_mesh("values") as mesh:
        mesh.python = sys.executable
        home = mesh.start("laptop")
        mesh.start("linux-a", "--peer", home.url)
        mesh.wait_joined()
        yield mesh


@pytest.fixture(scope="module")
def kinds(two: Mesh) -> dict[str, Any]:
    """Return the results of a group whose states and results hold one value of each kind."""
    states = [value_jobs.ValueState(job_key=key, value=value) for key, value in value_jobs.values().items()]
    submission = submit_compute_job_group(
        two["laptop"].client, value_jobs.GiveBack, states, group_id="kinds", collector_host="linux-a"
    )
    return {key: record["result"] for key, record in submission.drain(120)["results"].items()}


def test_each_kind_of_value_travels_in_a_state_and_comes_back_as_a_result(kinds: dict[str, Any]) -> None:
    sent = value_jobs.values()

    assert {key: encode(value) for key, value in kinds.items()} == {key: encode(value) for key, value in sent.items()}
    assert {key: list(map(type, each)) for key, each in _parts(kinds)} == {
        key: list(map(type, each)) for key, each in _parts(sent)
    }
    assert kinds["classes"][1].width == 32


def _parts(values: dict[str, Any]) -> Iterator[tuple[str, list[Any]]]:
    for key, value in values.items():
        yield key, list(value.values()) if isinstance(value, dict) else value


def test_a_large_result_is_an_artifact_of_the_collector_and_is_shown_by_its_size(
    two: Mesh, kinds: dict[str, Any], tmp_path: Path
) -> None:
    shown = two.paglets("jobs", "show", "kinds/large").out
    result = two.paglets("jobs", "groups", "kinds", "--json").json["results"]["large"]["result"]
    stored = result["grid"]["$stored"]

    assert '{"score": 0.5, "grid": <5.1 MiB, stored as art-' in shown
    assert result["score"] == 0.5
    assert two.paglets("artifacts", "info", stored["artifact_id"], "--json").json["host"]["name"] == "linux-a"
    two.paglets("artifacts", "get", stored["artifact_id"], tmp_path / "grid.json")
    assert json.loads((tmp_path / "grid.json").read_text())["$ndarray"]["shape"] == [500_000]
    assert np.array_equal(kinds["large"]["grid"], np.arange(500_000.0))


def test_the_files_of_a_job_whose_result_cannot_travel_are_kept_and_shown(two: Mesh) -> None:
    states = [value_jobs.ValueState(job_key="bad")]
    submission = submit_compute_job_group(two["laptop"].client, value_jobs.Bad, states, group_id="kept")
    failure = submission.drain(60)["failures"]["bad"]
    message, _, place = failure["message"].partition("; files kept for 7 days on ")
    host, _, path = place.partition(": ")

    assert failure["cause"] == "bad_result"
    assert message.startswith("result.model: an object cannot be sent")
    assert host == failure["host_name"]
    wait_until(lambda: submission.status() == "COMPLETE", what="the group to be complete")
    two[host].kill()
    two[host].restart()
    assert (Path(path) / "hours.txt").read_text() == "of work"
    assert f"{path} on {host}" in two.paglets("jobs", "show", "kept/bad").out


def test_where_numpy_is_missing_only_its_values_cannot_be_read(
    two: Mesh, kinds: dict[str, Any], tmp_path: Path
) -> None:
    script = tmp_path / "reader.py"
    script.write_text(READER)

    read = two.script(script)

    lines = dict(line.split(" ", 1) for line in read.out.splitlines() if " is there" in line or " lacks" in line)
    assert set(lines) == set(kinds)
    lacking = {key for key, text in lines.items() if text == "lacks numpy"}
    assert lacking == {"arrays", "classes", "large"}
    assert f"a value needs numpy, which {sys.executable} cannot import; install numpy there" in read.out
