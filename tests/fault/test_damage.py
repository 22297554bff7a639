"""Damaged databases and full or read-only disks of real hosts: reported, moved aside, repaired, never reset."""

from __future__ import annotations

import json
import os
import resource
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from mesh_jobs import Task, TaskState

from paglets.client.host_client import HostClient
from paglets.core.errors import (
    EXIT_FAILED,
    EXIT_UNDECIDED,
    EXIT_USAGE,
    EXIT_VERSIONS_DIFFER,
    NoRoom,
    PagletsError,
    StoreFull,
)
from paglets.system.compute_slots import submit_compute_job_group
from tests.acceptance.rig import (
    PATIENCE_SECONDS,
    HostProcess,
    MakeMesh,
    Mesh,
    starts_of,
    wait_running,
    wait_until,
)
from tests.fault.disks import as_root, closed, filled, full, mounted, without_inodes
from tests.fault.hosts import asleep


@pytest.fixture(scope="module")
def sound(make_mesh: MakeMesh, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a PAGLETS_HOME whose host `x` had a group and a file, and was ended."""
    with make_mesh("sound") as mesh:
        host = mesh.start("x", "--cpu-cores", 2)
        states = [TaskState(job_key=f"job-{nth}", allow_home_compute=True) for nth in range(3)]
        assert submit_compute_job_group(host.client, Task, states, group_id="kept").drain(timeout=PATIENCE_SECONDS)
        file = tmp_path_factory.mktemp("file") / "data.bin"
        file.write_bytes(os.urandom(100_000))
        host.client.upload_artifact(file)
        host.stop()
        home = tmp_path_factory.mktemp("sound-home") / "home"
        shutil.copytree(mesh.home, home)
        return home


@pytest.fixture
def host(mesh: Mesh, sound: Path) -> HostProcess:
    """Return a host with this home, not started, in a mesh of its own."""
    shutil.copytree(sound, mesh.home)
    return mesh.host("x", "--cpu-cores", 2)


@pytest.fixture(scope="module")
def shared(make_mesh: MakeMesh, sound: Path) -> Iterator[Mesh]:
    with make_mesh("shared") as mesh:
        shutil.copytree(sound, mesh.home)
        mesh.start("x", "--cpu-cores", 2)
        yield mesh


@pytest.fixture
def running(shared: Mesh) -> HostProcess:
    """Start a host with this home once, for cases that leave it as it was."""
    return shared["x"]


def refused(host: HostProcess) -> tuple[int, str]:
    """Start a host that refuses to run. Return its exit code and its output."""
    host.spawn()
    assert host.process is not None
    code = host.process.wait(PATIENCE_SECONDS)
    host.process = None
    return code, host.log.read_text()


def wait_said(host: HostProcess, text: str) -> None:
    """Wait for this output. A host is ready before it has printed all messages of its start."""
    wait_until(lambda: text in host.log.read_text(), what=f"{host.name} to say: {text}")


def store_id(home: Path) -> str:
    with closing(sqlite3.connect(f"file:{home / 'hosts' / 'x' / 'paglets.db'}?mode=ro", uri=True)) as base:
        return str(base.execute("SELECT value FROM meta WHERE key = 'store_id'").fetchone()[0])


# The database.


def empty(path: Path) -> None:
    os.truncate(path, 0)


def zero_page(path: Path) -> None:
    """Zero the root page of a table."""
    with closing(sqlite3.connect(path)) as base:
        (page,) = base.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'residence'").fetchone()
        (size,) = base.execute("PRAGMA page_size").fetchone()
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(bytes(size))


def all_but_the_first_page(path: Path) -> None:
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (size - 4096))


@pytest.mark.parametrize("damage", [zero_page, Path.unlink])
def test_a_damaged_database_is_moved_aside_and_the_host_does_not_start(
    host: HostProcess, damage: Callable[[Path], None]
) -> None:
    database = host.data / "paglets.db"
    damage(database)
    left = database.read_bytes() if database.exists() else None

    code, said = refused(host)

    assert code == EXIT_UNDECIDED
    assert len([line for line in said.splitlines() if not line.startswith("hint: ")]) == 1, said
    assert "; moved to " in said
    (place,) = (host.data / "damaged").iterdir()
    assert str(place) in said
    assert (place / "blobs").is_dir()
    assert not database.exists()
    assert left is None or (place / "paglets.db").read_bytes() == left
    assert "moved to" in host.log_text()


def test_the_start_after_damage_begins_anew_as_another_host_and_says_so_to_all(host: HostProcess, sound: Path) -> None:
    empty(host.data / "paglets.db")
    refused(host)

    host.restart()

    assert store_id(host.home) != store_id(sound)
    assert host.client.groups() == ()
    wait_said(host, "this host had one")
    (view,) = host.client.hosts()
    assert view.host.properties["damaged"].endswith("UTC")
    told = host.mesh.paglets("doctor", home=host.home)
    assert told.code == 0
    assert "warning  x damage: " in told.out
    host.stop()


def test_a_data_directory_that_is_gone_is_told_loudly(host: HostProcess, sound: Path) -> None:
    (host.data).rename(host.data.with_name("not-mounted"))
    host.restart()
    said = host.stop()
    assert "warning: host x STARTS EMPTY" in said
    assert store_id(sound) in said


def test_damage_that_shows_while_the_host_runs_ends_it_and_is_moved_aside(host: HostProcess) -> None:
    host.spawn()
    host.wait_ready()
    all_but_the_first_page(host.data / "paglets.db")
    for ask in (host.client.list_artifacts, host.client.groups):
        with suppress(PagletsError):
            ask()
    assert host.wait_ended() == EXIT_UNDECIDED
    assert "moved to" in host.log.read_text()
    assert not (host.data / "paglets.db").exists()


def test_a_crashed_host_reports_a_removed_wal_once(host: HostProcess, sound: Path) -> None:
    host.spawn()
    host.wait_ready()
    host.kill()
    (host.data / "paglets.db-wal").unlink()

    code, said = refused(host)
    assert code == EXIT_UNDECIDED
    assert "is outdated" in said

    host.restart()
    assert store_id(host.home) == store_id(sound)
    assert [line.group_id for line in host.client.groups()] == ["kept"]
    host.stop()


def test_a_database_of_a_newer_program_is_refused_and_untouched(host: HostProcess) -> None:
    database = host.data / "paglets.db"
    with closing(sqlite3.connect(database)) as base, base:
        base.execute("INSERT INTO migrations VALUES (99, 'later', 1.0)")
        base.execute("UPDATE meta SET value = 'paglets 9.9.9' WHERE key = 'program'")
    before = database.read_bytes()

    code, said = refused(host)

    assert code == EXIT_VERSIONS_DIFFER
    assert "paglets 9.9.9 wrote it" in said
    assert database.read_bytes() == before
    assert not (host.data / "damaged").exists()
    told = host.mesh.paglets("doctor", "--name", "x", home=host.home)
    assert told.code == 1
    assert "paglets 9.9.9 wrote it" in told.out


def test_a_database_that_another_program_holds_is_waited_for_then_told(host: HostProcess) -> None:
    with closing(sqlite3.connect(host.data / "paglets.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        code, said = refused(host)
    assert code == EXIT_FAILED
    assert "another program has locked it" in said
    host.restart()
    assert [line.group_id for line in host.client.groups()] == ["kept"]
    host.stop()


def test_a_second_host_is_refused_and_a_foreign_pid_in_a_stale_file_is_not(
    running: HostProcess,
) -> None:
    again = running.mesh.host("y", "--data-dir", running.data, home=running.home)
    code, said = refused(again)
    assert code == EXIT_USAGE
    assert "another host is running in" in said
    running.kill()
    # The dead host's pid now belongs to another program: this one.
    run = running.home / "run" / "x.json"
    run.write_text(json.dumps(json.loads(run.read_text()) | {"pid": os.getpid()}))
    running.restart()


# Disks.


def submit(client: HostClient, key: str = "one", isolation: str = "process") -> Any:
    state = TaskState(job_key=key, allow_home_compute=True, isolation=isolation)
    return submit_compute_job_group(client, Task, [state], collector_host="x")


def submit_many(client: HostClient) -> None:
    """Submit more jobs than there is room for. Some use free pages of the database."""
    for nth in range(200):
        submit(client, f"job-{nth}")


def reason(host: HostProcess) -> str:
    return next((view.reason for view in host.client.jobs() if view.status == "WAITING_FOR_SLOT"), "")


def check_waits_and_heals(
    host: HostProcess, folder: Path, trouble: Callable[[Path], Any], code: str, isolation: str = "process"
) -> None:
    with trouble(folder):
        submission = submit(host.client, isolation=isolation)
        wait_until(lambda: reason(host) == code, what=f"the job to wait for {code} of {folder.name}")
        wait_until(lambda: host.client.identity().free.cpu_cores == 0, what="no core to be offered")
    summary = submission.drain(timeout=PATIENCE_SECONDS)
    assert (summary["completed_count"], summary["results"]["one"]["attempt"]) == (1, 1)


def check_starts_again_after_a_full_disk(host: HostProcess, folder: Path) -> None:
    """Check that a job starts again after a full disk. Its one attempt fails because something else filled the disk."""
    with filled(folder, 2 << 20):
        state = TaskState(job_key="one", how="writes_three_mebibytes", allow_home_compute=True, isolation="worker")
        submission = submit_compute_job_group(host.client, Task, [state], collector_host="x")
        placing = wait_until(
            lambda: [view for view in host.client.jobs() if view.reason == "disk_full" and view.status == "PLACING"],
            what="the job to be placed again",
        )
        assert "the disk of x was full while the job ran (time 1 of 3)" in placing[0].reason_text
    assert submission.drain(timeout=PATIENCE_SECONDS)["results"]["one"]["attempt"] == 2


@as_root
def test_without_room_for_scratch_or_logs_a_job_waits_and_starts_when_there_is_some(host: HostProcess) -> None:
    small = ("size=4m", "nr_inodes=100")
    with mounted(host.data / "work", *small) as work, mounted(host.data / "logs", *small) as logs:
        host.spawn()
        host.wait_ready()
        check_waits_and_heals(host, work, full, "disk_full")
        check_waits_and_heals(host, logs, without_inodes, "disk_full", "worker")
        check_starts_again_after_a_full_disk(host, work)
        wait_until(lambda: [each.name for each in work.rglob("*")] == [".trash"], what="no scratch to be left")
        host.stop()


def test_a_job_waits_until_scratch_and_logs_are_writable(running: HostProcess) -> None:
    for name in ("work", "logs"):
        check_waits_and_heals(running, running.data / name, closed, "disk_closed")


@as_root
def test_a_damaged_mount_is_named_and_each_start_handles_the_rest(
    host: HostProcess,
) -> None:
    with mounted(host.data / "blobs", "size=4m") as blobs:
        zero_page(host.data / "paglets.db")
        for _ in range(2):
            code, said = refused(host)
            assert code == EXIT_UNDECIDED
            assert "not moved: blobs" in said
        (place,) = (host.data / "damaged").iterdir()
        assert (place / "paglets.db").exists()
        shutil.copytree(blobs, place / "blobs")
        for each in blobs.iterdir():
            shutil.rmtree(each)
        code, said = refused(host)
        assert (code, "it starts empty" in said) == (EXIT_UNDECIDED, True)
        assert (host.data / "damaged" / place.stem / "blobs" / "incoming").is_dir()


@as_root
def test_a_full_disk_refuses_files_with_numbers_until_there_is_room(host: HostProcess, tmp_path: Path) -> None:
    file = tmp_path / "file.bin"
    file.write_bytes(os.urandom(1_000_000))
    with mounted(host.data / "blobs", "size=4m") as folder:
        host.spawn()
        host.wait_ready()
        with full(folder), pytest.raises(NoRoom):
            host.client.upload_artifact(file)
        assert host.client.upload_artifact(file).size_bytes == 1_000_000
        host.stop()


def test_a_closed_directory_for_files_refuses_them_and_takes_them_when_it_is_open(
    running: HostProcess, tmp_path: Path
) -> None:
    file = tmp_path / "file.bin"
    file.write_bytes(os.urandom(1000))
    with closed(running.data / "blobs" / "incoming"), pytest.raises(NoRoom, match=r"read-only|permission"):
        running.client.upload_artifact(file)
    assert running.client.upload_artifact(file).size_bytes == 1000


@as_root
def test_a_host_says_that_it_is_ready_only_if_it_is_however_little_room_there_is(host: HostProcess) -> None:
    with mounted(host.data, "size=24m") as folder:
        for free_bytes in (24 << 10, 96 << 10):
            with filled(folder, free_bytes):
                host.spawn()
                process = host.process
                assert process is not None
                wait_until(lambda p=process: "ready" in host.log.read_text() or p.poll() is not None)  # type: ignore[misc]
                if "ready" in host.log.read_text():
                    host.wait_ready()
                    assert host.answers()
                    host.stop()
                else:
                    assert (process.wait(), "full" in host.log.read_text()) == (EXIT_FAILED, True)
                    host.process = None


@as_root
def test_a_full_data_directory_keeps_what_was_accepted_refuses_more_and_heals(host: HostProcess) -> None:
    with mounted(host.data, "size=24m") as folder:
        with full(folder):
            code, said = refused(host)
            assert code == EXIT_FAILED
            assert "disk is full" in said
            assert str(host.data) in said
        host.spawn()
        host.wait_ready()
        with full(folder):
            with pytest.raises((NoRoom, StoreFull)):
                submit_many(host.client)
            told = host.mesh.paglets("doctor", "--name", "x", home=host.home)
            assert told.code == 1
            assert "bad      x disk: the disk of" in told.out
        accepted = [line.group_id for line in host.client.groups()]
        assert "kept" in accepted
        assert submit(host.client).drain(timeout=PATIENCE_SECONDS)["completed_count"] == 1
        host.stop()


def test_a_limit_on_the_size_of_files_is_as_a_full_disk(running: HostProcess) -> None:
    process = psutil.Process(running.pid)
    before = process.rlimit(psutil.RLIMIT_FSIZE)
    sizes = [path.stat().st_size for path in running.data.glob("paglets.db*")]
    process.rlimit(psutil.RLIMIT_FSIZE, (max(sizes), resource.RLIM_INFINITY))
    try:
        with pytest.raises((NoRoom, StoreFull)):
            submit_many(running.client)
    finally:
        process.rlimit(psutil.RLIMIT_FSIZE, before)
    assert submit(running.client).drain(timeout=PATIENCE_SECONDS)["completed_count"] == 1


def test_a_closed_data_directory_is_told_with_what_to_do(host: HostProcess) -> None:
    with closed(host.data):
        code, said = refused(host)
        # On a read-only file system the lock fails first, in a folder without rights the database.
        assert code == (EXIT_USAGE if os.geteuid() == 0 else EXIT_FAILED)
        assert "cannot be used" in said
        assert "--data-dir" in said or "writable" in said
        told = host.mesh.paglets("doctor", "--name", "x", home=host.home)
        assert told.code == 1
        assert "bad      x permissions" in told.out
    host.restart()
    host.stop()


def test_a_host_whose_folders_cannot_be_made_says_which_and_what_to_do(host: HostProcess) -> None:
    shutil.rmtree(host.data / "blobs")
    (host.data / "blobs").touch()
    code, said = refused(host)
    assert code == EXIT_USAGE
    assert f"the host cannot start: {host.data / 'blobs'}" in said


def test_doctor_finds_a_lost_file_and_with_deep_one_with_wrong_bytes(host: HostProcess) -> None:
    (blob,) = [path for path in host.data.glob("blobs/??/*") if path.stat().st_size == 100_000]
    command = ("doctor", "--name", "x", "--json")
    assert host.mesh.paglets(*command, "--deep", home=host.home).code == 0
    data = bytearray(blob.read_bytes())
    data[50_000] ^= 1
    blob.write_bytes(data)
    assert host.mesh.paglets(*command, home=host.home).code == 0
    assert blob.name in host.mesh.paglets(*command, "--deep", home=host.home).out
    blob.unlink()
    found = host.mesh.paglets(*command, home=host.home)
    assert found.code == 1
    assert blob.name in found.out


# Files removed under a running host.


def begin(host: HostProcess, path: Path, how: str = "waits") -> Any:
    """Start a job that runs until the file `path`.go exists."""
    state = TaskState(job_key="one", allow_home_compute=True, how=how, path=str(path))
    submission = submit_compute_job_group(host.client, Task, [state], collector_host="x")
    wait_running(path)
    return submission


def remove(folder: Path) -> None:
    shutil.rmtree(folder)


def put_another_in_its_place(folder: Path) -> None:
    folder.rename(folder.with_name("away"))
    shutil.copytree(folder.with_name("away"), folder)


@pytest.mark.parametrize("harm", [remove, put_another_in_its_place])
def test_a_host_whose_data_directory_is_gone_ends_with_its_jobs_and_says_so(
    host: HostProcess, tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    host.spawn()
    host.wait_ready()
    begin(host, tmp_path / "job")
    ((_, pid, _),) = starts_of(tmp_path / "job")
    with asleep(host):  # nothing is created or removed there meanwhile
        harm(host.data)
    note = host.data / "store.json"
    before = note.read_bytes() if note.exists() else b""
    assert host.wait_ended() == EXIT_UNDECIDED
    said = host.log.read_text()
    assert f"{host.data}" in said
    assert "hint: put the folder back, or mount its disk, and start the host again" in said
    assert "Traceback" not in said
    assert not psutil.pid_exists(int(pid))
    if before:
        assert note.read_bytes() == before, "the end of the host was noted in another's folder"
        shutil.rmtree(host.data)
    host.restart()
    wait_said(host, "STARTS EMPTY")
    host.stop()


def test_folders_removed_under_a_host_are_restored_and_no_job_fails(host: HostProcess, tmp_path: Path) -> None:
    host.spawn()
    host.wait_ready()
    for place in (host.data / "work", host.data / "logs", host.data / "code", host.home / "cache"):
        place.rename(tmp_path / place.name)  # at once, even if a file is just being written there
        summary = submit(host.client).drain(timeout=PATIENCE_SECONDS)
        assert (summary["completed_count"], summary["failed_count"]) == (1, 0), place
        wait_until(place.is_dir, what=f"{place} to be recreated")
    wait_until(lambda: host.log.read_text().count("recreated") >= 4, what="all four to be told of")
    assert "Traceback" not in host.log_text()
    assert host.stop().count("recreated") == 4


def test_a_host_that_was_in_a_mesh_founds_no_second_one_where_the_key_is_gone(mesh: Mesh) -> None:
    a = mesh.start("a")
    b = mesh.start("b", "--peer", a.url)
    mesh.wait_joined()
    key = mesh.home / "mesh.key"
    text = key.read_text()
    key.unlink()
    for name in ("a", "c"):
        if name == "a":
            a.stop()
        beside = mesh.paglets("host", "--name", name, "--port", 0)
        assert (beside.code, "the host b runs here with a key that it read earlier" in beside.complaint) == (
            EXIT_USAGE,
            True,
        )
    b.stop()
    alone = mesh.paglets("host", "--name", "a", "--port", 0)
    assert (alone.code, "this host was in a mesh with b" in alone.complaint) == (EXIT_USAGE, True)
    assert not key.exists()

    assert mesh.paglets("key", "new").code == 0
    assert key.read_text() != text
    a.restart()
    assert "made the mesh key" not in a.log.read_text()


def test_a_lock_that_is_removed_under_a_host_keeps_a_second_one_out_all_the_same(host: HostProcess) -> None:
    host.spawn()
    host.wait_ready()
    (host.data / "lock").unlink()
    wait_until(
        lambda: "lock was removed and has been recreated" in host.log.read_text(), what="the lock to be recreated"
    )
    second = host.mesh.paglets("host", "--name", "y", "--port", 0, "--data-dir", host.data, home=host.home)
    assert (second.code, "another host is running in" in second.complaint) == (EXIT_USAGE, True)
    host.stop()


def test_a_host_whose_folder_another_one_took_ends_at_once_and_the_other_goes_on(
    host: HostProcess, tmp_path: Path
) -> None:
    host.spawn()
    host.wait_ready()
    group_id = begin(host, tmp_path / "job").group_id
    other = host.mesh.host("y", "--cpu-cores", 2, "--data-dir", host.data, home=host.home)
    with ExitStack() as stack:
        with closing(sqlite3.connect(host.data / "paglets.db", timeout=10.0, isolation_level=None)) as base:
            base.execute("BEGIN IMMEDIATE")  # so that the host is not in the middle of a change
            stack.enter_context(asleep(host))
            base.execute("ROLLBACK")
        (host.data / "lock").unlink()
        other.spawn()
        other.wait_ready()
        wait_running(tmp_path / "job", count=2)
    assert host.wait_ended() == EXIT_UNDECIDED
    said = host.log.read_text()
    assert f"{host.data / 'lock'} was removed while this host ran, and another host now runs in this folder" in said
    assert "Traceback" not in said
    note = json.loads((host.data / "store.json").read_text())
    assert (note["running"], note["boot_count"]) == (True, host.starts + 2)
    (tmp_path / "job.go").touch()
    summary = wait_until(
        lambda: (found := other.client.summary(group_id))["status"] == "COMPLETE" and found, what="the job to be done"
    )
    assert (summary["completed_count"], summary["failed_count"]) == (1, 0)
    assert [start[2] for start in starts_of(tmp_path / "job")] == ["x", "y"]
    other.stop()


def test_a_run_file_that_is_none_stops_neither_commands_nor_its_host(host: HostProcess) -> None:
    host.spawn()
    host.wait_ready()
    file = host.home / "run" / "x.json"
    file.write_text("")
    wait_until(lambda: file.read_text() != "", what="the run file to be written anew")
    assert host.mesh.paglets("mesh", "hosts", home=host.home).code == 0
    shutil.rmtree(host.home / "run")
    wait_until(file.exists, what="the run file to be written anew")
    host.kill()
    file.write_text("{garbage")
    told = host.mesh.paglets("mesh", "hosts", home=host.home)
    assert told.code == 4
    assert f"ignored {file}: it is no run file" in told.err
    host.restart()
    assert host.mesh.paglets("mesh", "hosts", "--json", home=host.home).err == ""
    host.stop()


def test_a_file_of_a_job_waits_while_it_cannot_be_taken_and_the_job_says_so(
    running: HostProcess, tmp_path: Path
) -> None:
    submission = begin(running, tmp_path / "job", how="makes_a_file")
    with closed(running.data / "blobs"):
        (tmp_path / "job.go").touch()

        def told() -> list[str]:
            """Return the job's state once it says that it waits for this folder."""
            jobs = [job for job in running.client.jobs() if job.group_id == submission.group_id]
            return [job.status for job in jobs if str(running.data / "blobs") in job.reason_text]

        assert wait_until(told, what="the job to say why it waits") == ["RUNNING"]
    summary = submission.drain(timeout=PATIENCE_SECONDS)
    assert summary["results"]["one"]["attempt"] == 1
    assert "Traceback" not in running.log_text()
