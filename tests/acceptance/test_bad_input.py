"""Wrong input is reported in one line with the right exit code, and nothing else happens."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from tests.acceptance.rig import HostProcess, Mesh, free_port, wait_until


def other_key(mesh: Mesh) -> Path:
    """Return the home of a user with another key."""
    home = mesh.folder / "stranger"
    home.mkdir(mode=0o700)
    path = home / "mesh.key"
    path.write_text(base64.urlsafe_b64encode(os.urandom(32)).decode().rstrip("=") + "\n")
    path.chmod(0o600)
    return home


def problem_with(host: HostProcess, name: str) -> str:
    """Return the problem that this host reports about the host of that name."""
    return next((view.problem for view in host.client.hosts() if view.host.name == name), "")


def test_a_command_with_another_key_is_told_so(three: Mesh) -> None:
    home = other_key(three)
    done = three.paglets("jobs", "groups", "--at", three["laptop"].url, home=home)
    assert done.code == 5
    assert "key" in done.complaint


def test_a_command_without_a_key_is_told_how_to_get_one(mesh: Mesh) -> None:
    done = mesh.paglets("jobs", "groups", "--at", "http://127.0.0.1:9")
    assert done.code == 5
    assert "scp" in done.err


def test_a_host_that_does_not_answer_is_exit_code_4(three: Mesh) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    done = three.paglets("jobs", "groups", "--at", url)
    assert done.code == 4
    assert url in done.complaint


def test_a_host_name_that_nobody_has_is_told_with_the_names_there_are(three: Mesh) -> None:
    done = three.paglets("jobs", "groups", "--at", "mars")
    assert done.code == 1
    assert "mars" in done.complaint
    assert "laptop" in done.complaint


def test_a_group_and_a_job_that_are_not_there_are_told(three: Mesh) -> None:
    for words in (("groups", "--group", "group-none"), ("why", "group-none"), ("why", "group-none/job")):
        done = three.paglets("jobs", *words, "--at", "laptop")
        assert done.code == 1, words
        assert "group-none" in done.complaint


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["host", "--port", "70000"], "70000"),
        (["host", "--name", "Not A Name"], "Not A Name"),
        (["host", "--memory", "lots"], "lots"),
        (["host", "--peer", "http://[bad"], "--peer"),
        (["host", "--propperty", "a=b"], "--propperty"),
        (["jobs"], "jobs"),
        (["jbos"], "jbos"),
        (["jobs", "hosts", "--cpu-cores", "0"], "cpu_cores"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(mesh: Mesh, words: list[str], named: str) -> None:
    done = mesh.paglets(*words)
    assert done.code == 2
    assert named in done.complaint


def test_a_port_in_use_is_told_with_the_flag_that_helps(three: Mesh) -> None:
    done = three.paglets("host", "--name", "second", "--port", three["laptop"].port)
    assert done.code == 2
    assert str(three["laptop"].port) in done.complaint
    assert "hint: choose another port with --port" in done.err


def test_a_second_host_in_the_same_directory_is_refused(three: Mesh) -> None:
    data = three["laptop"].data
    done = three.paglets("host", "--name", "other", "--port", 0, "--data-dir", data)
    assert done.code == 2
    assert str(data) in done.complaint
    assert three["laptop"].answers()


def test_a_second_host_of_the_same_name_is_refused_and_the_first_is_still_found(three: Mesh) -> None:
    done = three.paglets("host", "--name", "laptop", "--port", 0, "--data-dir", three.home / "elsewhere")
    assert done.code == 2
    assert three["laptop"].url in done.complaint
    assert three.paglets("mesh", "hosts", "--at", "laptop").code == 0


def test_a_code_path_that_is_not_there_is_refused(three: Mesh) -> None:
    done = three.paglets("host", "--name", "other", "--port", 0, "--code-path", three.home / "nowhere")
    assert done.code == 2
    assert "nowhere" in done.complaint


def test_a_host_with_a_peer_and_no_key_says_how_to_copy_it(mesh: Mesh) -> None:
    done = mesh.paglets("host", "--name", "new", "--port", 0, "--peer", "http://127.0.0.1:9")
    assert done.code == 2
    assert "scp" in done.err
    assert not (mesh.home / "mesh.key").exists()


def test_a_key_file_that_others_can_read_is_refused(mesh: Mesh) -> None:
    home = other_key(mesh)
    (home / "mesh.key").chmod(0o644)
    done = mesh.paglets("host", "--name", "new", "--port", 0, home=home)
    assert done.code == 2
    assert "can be read by others" in done.complaint
    assert "hint: run `chmod 600" in done.err


def test_a_host_with_another_key_does_not_join_and_both_sides_say_why(mesh: Mesh) -> None:
    laptop = mesh.start("laptop")  # no other request was refused there
    stranger = mesh.start("stranger", "--peer", laptop.url, home=other_key(mesh))
    wait_until(lambda: "has a different mesh key" in stranger.log_text(), what="the stranger's word")
    wait_until(lambda: "not signed with the key of this mesh" in laptop.log_text(), what="the laptop's word")
    assert [view.host.name for view in stranger.client.hosts()] == ["stranger"]
    assert "stranger" not in [view.host.name for view in laptop.client.hosts()]


def test_a_host_of_another_mesh_version_does_not_join_and_both_sides_say_why(three: Mesh) -> None:
    laptop = three["laptop"]
    other = three.start("other", "--mesh-version", "physics", "--peer", laptop.url)
    try:
        told = wait_until(lambda: problem_with(other, "laptop"), what="the other's word")
        assert "physics" in told
        assert "analysis" in told
        told = wait_until(lambda: problem_with(laptop, "other"), what="the laptop's word")
        assert "physics" in told
        for host in (laptop, other):
            wait_until(lambda host=host: "'physics'" in host.log.read_text(), what=f"{host.name} to say it")
        shown = three.paglets("mesh", "hosts", "--at", "laptop")
        assert "physics" in shown.err
        assert other.name not in [one["host"]["name"] for one in eligible(three)]
    finally:
        other.stop()
        del three.hosts["other"]


def eligible(mesh: Mesh) -> list[dict]:
    told = mesh.paglets("jobs", "hosts", "--json", "--at", "laptop").json
    return [one for one in told["verdicts"] if one["eligible"]]


def test_a_peer_that_is_not_there_is_said_and_the_host_runs_on(mesh: Mesh) -> None:
    home = other_key(mesh)
    url = f"http://127.0.0.1:{free_port()}"
    host = mesh.start("lonely", "--peer", url, home=home)
    wait_until(lambda: url in host.log.read_text(), what="a word on the peer")
    assert host.answers()
