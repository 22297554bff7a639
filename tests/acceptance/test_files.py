"""Result files, inputs and moves over three hosts that have only the archive, by scripts of a user."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from paglets.artifacts import ArtifactRef
from paglets.core.errors import Unknown
from tests.acceptance.rig import HostProcess, Mesh, wait_until

SCRIPTS = Path(__file__).parent / "scripts"
ROWS = 20_000


def run(mesh: Mesh, name: str, *arguments: object) -> str:
    """Run a script like a user who has only the archive."""
    done = mesh.script(SCRIPTS / name, *arguments, PAGLETS_AT="laptop", PYTHONPATH=mesh.archive)
    assert done.code == 0, done.err
    return done.out


def tell(mesh: Mesh, name: str, *arguments: object) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(run(mesh, name, *arguments))
    return told


def whole_bytes(folder: Path) -> list[Path]:
    """Return the whole blobs of a host."""
    return [path for path in folder.glob("blobs/??/*") if path.is_file()]


def rows_of(path: Path) -> int:
    with closing(sqlite3.connect(path)) as base:
        assert base.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return int(base.execute("SELECT count(*) FROM numbers").fetchone()[0])


def test_the_specifications_example_as_one_script(three: Mesh) -> None:
    told = tell(three, "specification.py")
    assert told["failures"] == {}
    results = {key: record["result"] for key, record in told["results"].items()}
    assert results == {"bundle-a": {"dataset": "alpha", "value": 5}, "bundle-b": {"dataset": "beta", "value": 4}}
    assert all(record["host_name"] != "laptop" for record in told["results"].values())


def test_the_artifact_job_of_the_specification(three: Mesh, tmp_path: Path) -> None:
    told = tell(three, "artifacts.py", 3, ROWS)
    assert (told["completed_count"], told["failed_count"], told["duplicate_reports"]) == (3, 0, [])
    assert sorted(told["results"]) == ["bundle-0", "bundle-1", "bundle-2"]
    client = three["laptop"].client
    for key, record in told["results"].items():
        ref = ArtifactRef.from_wire(record["result"]["artifact"])
        assert record["result"]["bundle"] == key
        got = client.download_artifact(ref, tmp_path / f"{key}.db")
        assert rows_of(got) == ROWS
        assert hashlib.sha256(got.read_bytes()).hexdigest() == ref.sha256
        assert got.stat().st_size == ref.size_bytes
        # Its last output comes after its report, so wait for its end.
        log = three.paglets("jobs", "logs", "--follow", f"{told['group_id']}/{key}", "--at", "laptop")
        assert log.out == "reports True False left False\n"
    assert list(tmp_path.glob(".*")) == []


def test_an_artifact_by_the_command_line(three: Mesh, tmp_path: Path) -> None:
    told = tell(three, "artifacts.py", 1, ROWS, "copy")
    ref = ArtifactRef.from_wire(told["results"]["bundle-0"]["result"]["artifact"])
    listed = three.paglets("artifacts", "list", "--json", "--at", "laptop").json
    assert ref.artifact_id in [each["artifact_id"] for each in listed["artifacts"]]
    got = three.paglets("artifacts", "get", ref.artifact_id, tmp_path / "mine.db", "--at", "laptop")
    assert (got.code, got.out) == (0, f"{tmp_path / 'mine.db'}\n")
    assert rows_of(tmp_path / "mine.db") == ROWS
    by_key = three.paglets("artifacts", "get", f"{told['group_id']}/bundle-0", tmp_path, "--at", "gpu-a")
    assert (by_key.code, by_key.out) == (0, f"{tmp_path / 'result.db'}\n")
    folder = tmp_path / "all of it"  # this file does not exist yet
    of_group = three.paglets("artifacts", "get", "--group", told["group_id"], folder, "--at", "laptop")
    assert (of_group.code, of_group.out) == (0, f"{folder / 'bundle-0-result.db'}\n")
    (tmp_path / "mine.db").write_text("something else")
    again = three.paglets("artifacts", "get", ref.artifact_id, tmp_path / "mine.db", "--at", "laptop")
    assert again.code == 1
    assert "mine.db" in again.complaint
    assert (tmp_path / "mine.db").read_text() == "something else"
    assert three.paglets("artifacts", "rm", ref.artifact_id, "--at", "laptop").code == 0
    with pytest.raises(Unknown):
        three["laptop"].client.artifact(ref.artifact_id)
    gone = three.paglets("artifacts", "get", ref.artifact_id, tmp_path / "gone.db", "--at", "laptop")
    assert gone.code == 1
    assert ref.artifact_id in gone.complaint
    assert not (tmp_path / "gone.db").exists()


def scratch_file(mesh: Mesh, name: str) -> list[Path]:
    """Return files of this name in scratch directories of the workers."""
    return [path for host in ("linux-a", "gpu-a") for path in (mesh[host].data / "work").glob(f"*/{name}")]


def sources_are_gone(mesh: Mesh) -> bool:
    return not scratch_file(mesh, "result.bin")


def test_a_job_goes_home_with_its_file(three: Mesh, tmp_path: Path) -> None:
    kept = tmp_path / "kept.bin"
    run(three, "moving.py", 3_000_000, kept)
    wait_until(kept.exists, what="on_arrival at home")
    assert kept.stat().st_size == 3_000_000
    wait_until(lambda: sources_are_gone(three), what="the source to be gone")


def waits_with_its_file(mesh: Mesh) -> str:
    """Return the reason why the ended job is still where it ran. Its file is there then."""
    for name in ("linux-a", "gpu-a"):
        for job in mesh[name].client.jobs():
            if job.status == "COMPLETED" or job.residence == "leaving":
                (source,) = scratch_file(mesh, "result.bin")
                assert source.stat().st_size == 3_000_000
                return job.reason_text
    return ""


def test_a_file_stays_where_it_is_while_home_is_away(three: Mesh, tmp_path: Path) -> None:
    kept = tmp_path / "kept.bin"
    laptop = three["laptop"]
    release = tmp_path / "release"
    run(three, "moving.py", 3_000_000, kept, release)
    laptop.kill()
    release.touch()
    wait_until(lambda: scratch_file(three, "result.bin"), what="the result")
    wait_until(lambda: "laptop" in waits_with_its_file(three), what="the reason to be told")
    assert not kept.exists()
    laptop.restart()
    wait_until(kept.exists, what="on_arrival at home")
    wait_until(lambda: sources_are_gone(three), what="the source to be gone")


def test_a_file_stays_where_it_is_while_home_has_no_room(make_mesh: Any, tmp_path: Path) -> None:
    with make_mesh("full") as mesh:
        common = ("--cpu-cores", 2)
        laptop: HostProcess = mesh.start("laptop", *common, "--artifact-storage-quota", "1M")
        for name in ("linux-a", "gpu-a"):
            mesh.start(name, *common, "--peer", laptop.url, "--tag", "linux")
        mesh.wait_joined()
        kept = tmp_path / "kept.bin"
        run(mesh, "moving.py", 3_000_000, kept)
        wait_until(lambda: "artifact_storage_quota" in waits_with_its_file(mesh), what="the reason to be told")
        assert not kept.exists()
        laptop.stop()
        laptop.arguments[-1] = "100M"
        laptop.restart()
        wait_until(kept.exists, what="on_arrival at home")
        wait_until(lambda: sources_are_gone(mesh), what="the source to be gone")
        mesh.check_quiet()


# Files of finished jobs that no hook took.

HOOKS = {
    "raises": "on_arrival failed on laptop: ValueError: no column x",
    "imports": "on_arrival failed on laptop: ModuleNotFoundError: No module named 'no_such_library'",
    "exits": "on_arrival failed on laptop: the process ended with exit code 3 before the hook returned",
    "leaves": "on_arrival failed on laptop: the process ended before the hook returned",
    "killed": "on_arrival failed on laptop: the process was ended by SIGKILL",
    "absent": "on_arrival failed on laptop: FileNotFoundError",
    "dispatching": "on_dispatching failed on ",
}


def fetched(mesh: Mesh, group_id: str, folder: Path) -> dict[str, str]:
    """Return the files of a group by name, as `artifacts get` downloads them."""
    done = mesh.paglets("artifacts", "get", "--group", group_id, folder, "--at", "laptop")
    assert done.code == 0, done.err
    return {Path(line).name: Path(line).read_text() for line in done.out.splitlines()}


def test_the_file_sample_of_the_specification_as_it_is_leaves_its_file_at_home(three: Mesh, tmp_path: Path) -> None:
    assert run(three, "leaving.py", "sample", "Plain", tmp_path, "a", "b") == "2\n"
    folder = tmp_path / "got"
    found = wait_until(lambda: len(found := fetched(three, "sample", folder)) == 2 and found, what="both files")
    assert found == {"a-result.db": "rows of a", "b-result.db": "rows of b"}
    shown = three.paglets("jobs", "show", "sample/a", "--json", "--at", "gpu-a").json
    (file,) = shown["files"]
    assert (file["host_name"], file["owner"], file["expires_at"]) == ("laptop", "", None)
    moved = three.paglets("artifacts", "get", "sample/a", tmp_path / "mine.db", "--move", "--at", "gpu-a")
    assert (moved.code, (tmp_path / "mine.db").read_text()) == (0, "rows of a")
    assert (
        three.paglets(
            "artifacts",
            "rm",
            three.paglets("artifacts", "list", "--group", "sample", "--json", "--at", "laptop").json["artifacts"][0][
                "artifact_id"
            ],
            "--at",
            "laptop",
        ).code
        == 0
    )
    assert three.paglets("artifacts", "list", "--group", "sample", "--json", "--at", "laptop").json["artifacts"] == []


def test_hooks_that_fail_keep_their_files_say_so_everywhere_and_run_again(three: Mesh, tmp_path: Path) -> None:
    keys = [*HOOKS, "good"]
    assert run(three, "leaving.py", "hooks", "Hooked", tmp_path, *keys) == "8\n"

    def reasons() -> dict[str, str]:
        listed = three.paglets("list", "--json", "--at", "gpu-a").json["paglets"]
        return {each["job_key"]: each["reason"] for each in listed if each["group_id"] == "hooks" and each["job_key"]}

    def all_failed() -> dict[str, str] | None:
        found = reasons()
        return found if found.keys() == HOOKS.keys() and all("failed" in text for text in found.values()) else None

    found = wait_until(all_failed, what="all hooks to have failed")
    assert (tmp_path / "good").read_text() == "rows of good"
    assert {key: found[key].startswith(text) for key, text in HOOKS.items()} == dict.fromkeys(HOOKS, True), found
    files = fetched(three, "hooks", tmp_path / "all")
    assert files == {f"{key}-result.db": f"rows of {key}" for key in HOOKS}
    why = three.paglets("jobs", "why", "hooks/raises", "--at", "linux-a")
    assert why.code == 1
    assert HOOKS["raises"] in why.out
    assert 'raise ValueError("no column x")' in why.out
    for command in ("groups", "why"):
        group = three.paglets("jobs", command, "hooks", "--at", "laptop")
        assert (group.code, "7 hooks of finished jobs failed, such as hooks/" in group.out) == (0, True), group.out
    log = three.paglets("jobs", "logs", "hooks/raises", "--at", "gpu-a")
    assert log.out == "computed\narrived with raises\n"
    assert 'raise ValueError("no column x")' in log.err
    notes = three.paglets("notes", "--json", "--at", "laptop").json["notes"]
    assert any(HOOKS["raises"] in note["text"] for note in notes)

    # Before and after the cause is fixed.
    again = three.paglets("jobs", "rerun-hook", "hooks/absent", "--at", "linux-a")
    assert (again.code, "FileNotFoundError" in again.err) == (1, True)
    (tmp_path / "column").touch()
    (tmp_path / "road").touch()
    mended = three.paglets("jobs", "rerun-hook", "hooks/absent", "--at", "linux-a")
    assert (mended.code, mended.out) == (0, "hooks/absent: on_arrival returned on laptop\n")
    moves = three.paglets("jobs", "rerun-hook", "hooks/dispatching", "--json", "--at", "laptop").json["hooks"]
    assert [(each["hook"], each["ok"]) for each in moves] == [("on_dispatching", True)]
    assert moves[0].keys() == {"job", "hook", "host", "ok", "error", "traceback"}
    wait_until((tmp_path / "dispatching").exists, what="the job to arrive at home")
    assert (tmp_path / "absent").read_text() == "rows of absent"

    ended = three.paglets("jobs", "cancel", "hooks", "--at", "laptop")
    assert (ended.code, "ended hooks/raises, whose on_arrival failed on laptop; its 1 file" in ended.err) == (0, True)
    assert reasons() == {}
    assert len(fetched(three, "hooks", tmp_path / "left")) == len(HOOKS) - 2
