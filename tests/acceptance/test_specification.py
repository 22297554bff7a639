"""The specification's example, on the three hosts of the specification, from the archive."""

from __future__ import annotations

import inspect
import textwrap
from pathlib import Path
from typing import Any

import pytest
from mesh_jobs import Task, TaskState
from spec_jobs import Submitter

import paglets
from paglets.core.errors import GroupExists
from paglets.system.compute_slots import submit_compute_job_group
from tests.acceptance.rig import PATIENCE_SECONDS, Mesh, group_lines, wait_home

SUBMIT = """\
from paglets.remote.client import HostClient
from paglets.system.compute_slots import submit_compute_job_group
from spec_jobs import MyJob, states

submission = submit_compute_job_group(HostClient(), MyJob, states(), return_home_when_complete=True)
print(submission.group_id)
"""

HOSTS = ("laptop", "linux-a", "gpu-a")


@pytest.fixture(scope="module")
def group_id(three: Mesh, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the group that a script submitted to the laptop."""
    script = tmp_path_factory.mktemp("user") / "submit.py"
    script.write_text(SUBMIT)
    done = three.script(script, PAGLETS_AT="laptop")
    assert done.code == 0, done.err
    found = done.out.strip()
    assert found in done.err
    three["laptop"].client.call(three["laptop"].client.group(found).collector, "drain")
    return found


def check(summary: dict[str, Any]) -> None:
    """Check both results. Each comes from its required host, and is home again or on its way."""
    assert summary["failures"] == {}
    assert (summary["expected_count"], summary["completed_count"], summary["pending_count"]) == (2, 2, 0)
    results = summary["results"]
    assert results["bundle-a"]["result"] == {"dataset": "alpha", "value": 5}
    assert results["bundle-b"]["result"] == {"dataset": "beta", "value": 4}
    assert results["bundle-a"]["host_name"] in ("linux-a", "gpu-a")
    assert results["bundle-b"]["host_name"] == "gpu-a"
    assert summary["home"]["host_name"] == "laptop"
    assert summary["duplicate_reports"] == []


@pytest.mark.parametrize("name", HOSTS)
def test_the_summary_of_a_scripts_group_is_the_same_asked_on_any_host(three: Mesh, group_id: str, name: str) -> None:
    check(three.paglets("jobs", "groups", "--group", group_id, "--json", "--at", name).json)


@pytest.mark.parametrize("name", HOSTS)
def test_a_url_names_a_host_as_well_as_its_name(three: Mesh, group_id: str, name: str) -> None:
    check(three.paglets("jobs", "groups", "--group", group_id, "--json", "--at", three[name].url).json)


@pytest.mark.parametrize("name", HOSTS)
def test_summary_and_drain_are_answered_through_any_host(three: Mesh, group_id: str, name: str) -> None:
    client = three[name].client
    collector = client.proxy(client.group(group_id).collector)
    check(client.summary(group_id))
    check(collector.send("drain"))


def test_the_collector_is_home_when_all_have_ended(three: Mesh, group_id: str) -> None:
    wait_home(three["laptop"], group_id)
    assert group_lines(three["laptop"])[group_id].collector.host.name == "laptop"
    listed = three.paglets("jobs", "groups", "--at", "laptop")
    assert group_id in listed.out
    assert "COMPLETE" in listed.out


def test_the_example_works_from_within_a_paglet(three: Mesh) -> None:
    client = three["laptop"].client
    submitter = client.create(Submitter)

    told = submitter.send("submit")

    assert told["errors"] == 0
    assert tuple(told["jobs"]) == ("bundle-a", "bundle-b")
    check(client.call(client.group(told["group_id"]).collector, "drain"))
    for name in HOSTS:
        check(three.paglets("jobs", "groups", "--group", told["group_id"], "--json", "--at", name).json)
    submitter.dispose()


def test_a_group_that_was_submitted_on_one_host_is_there_for_all(three: Mesh) -> None:
    tags = ("linux",)
    states = [TaskState(job_key="a", required_host_tags=tags)]
    first = submit_compute_job_group(three["laptop"].client, Task, states, group_id="once")
    again = submit_compute_job_group(three["gpu-a"].client, Task, states, group_id="once")
    assert again.collector.agent_id == first.collector.agent_id
    assert any("nothing" in warning for warning in again.warnings)
    others = [TaskState(job_key="a", required_host_tags=tags, seconds=0.1)]
    with pytest.raises(GroupExists, match="once exists with other jobs"):
        submit_compute_job_group(three["linux-a"].client, Task, others, group_id="once")
    assert again.drain(timeout=PATIENCE_SECONDS)["completed_count"] == 1


def test_the_preview_of_a_placement_names_the_gpu_host_first(three: Mesh) -> None:
    flags = ("--tag", "linux", "--prefer-tag", "gpu", "--exclude-host", "laptop")
    told = three.paglets("jobs", "hosts", *flags, "--json", "--at", "laptop").json
    by_host = {each["host"]["name"]: each for each in told["verdicts"]}
    assert [by_host[name]["rank"] for name in ("gpu-a", "linux-a")] == [1, 2]
    assert not by_host["laptop"]["eligible"]


def test_a_host_that_does_not_fit_is_told_with_its_reason_and_exit_code_3(three: Mesh) -> None:
    done = three.paglets("jobs", "hosts", "--tag", "windows", "--at", "laptop")
    assert done.code == 3
    assert "windows" in done.out


def test_properties_and_tags_are_listed_for_the_whole_mesh(three: Mesh) -> None:
    told = three.paglets("mesh", "hosts", "--json", "--at", "gpu-a").json
    members = {view["host"]["name"]: view["host"] for view in told["hosts"]}
    assert members["linux-a"]["properties"] == {"python": "3.12"}
    assert sorted(members["gpu-a"]["tags"]) == ["gpu", "linux"]
    assert {member["mesh_version"] for member in members.values()} == {"analysis"}


def test_scripts_find_the_host_by_themselves(three: Mesh, tmp_path: Path) -> None:
    script = tmp_path / "ask.py"
    script.write_text("from paglets.remote.client import HostClient\nprint(HostClient().identity().name)\n")
    done = three.script(script)
    assert done.code == 0, done.err
    assert done.out.strip() == "gpu-a"  # the first by name


def test_the_example_in_the_docstring_of_the_package_prints_its_results(three: Mesh, tmp_path: Path) -> None:
    lines = str(inspect.getdoc(paglets)).splitlines()
    script = tmp_path / "squares.py"
    script.write_text(textwrap.dedent("\n".join(line for line in lines if not line or line.startswith("    "))))
    done = three.script(script)
    assert (done.code, sorted(done.out.splitlines())) == (0, ["n-1 1", "n-2 4", "n-3 9"]), done.err
