"""Files and artifacts of paglets, in real processes."""

from __future__ import annotations

import base64
import os
import re
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import file_paglets as paglets
import pytest
from fake_host import HOST, FakeHost, Told

from paglets.core.errors import Conflict, NoRoom, PagletsError, Unknown
from paglets.core.record import from_json, to_json
from paglets.core.refs import ARTIFACT_ID, ArtifactRef, BlobRef, HostRef, ProxyRef
from paglets.worker.protocol import GoFile, RegisteredFile

COLLECTOR = ProxyRef(agent_id="collector-1", host=HostRef(store_id="store-2", name="keeper"))


def words(host: FakeHost, told: Told) -> list[str]:
    """Return the `words` in the state after the hook."""
    host.wait(told)
    assert told.done.fault is None, told.done.fault
    found: list[str] = told.done.changes.state["words"]
    return found


def last_words(host: FakeHost, told: Told) -> list[str]:
    """Return the `words` of the last checkpoint of a job."""
    assert host.wait(told).exit_code == 0
    found: list[str] = told.all("checkpoint")[-1].changes.state["words"]
    return found


def raising(error: PagletsError) -> Any:
    def answer(args: Any) -> Any:
        raise error

    return answer


def as_registered(host: FakeHost, file: RegisteredFile) -> GoFile:
    """Return a registered file as the next process gets it."""
    return GoFile(
        file=file.file,
        path=str(host.blobs / file.file.sha256),
        source_path=file.source_path,
        source_mtime_ns=file.source_mtime_ns,
        source_inode=file.source_inode,
    )


def work(told: Told, name: str = "") -> Path:
    return Path(told.go.work_dir) / name


# Registration.


def test_a_file_is_captured_at_once_and_registered_with_the_hooks_changes(host: FakeHost) -> None:
    told = host.start(paglets.Registers, "creation")
    source = work(told, "result.db")
    unknown = "Unknown: no file 'other.db' came with this paglet or is registered; there are: result.db"
    assert words(host, told) == [str(source), unknown]
    assert [name for name, _ in told.asked] == ["reserve_space", "publish", "done"]
    (file,) = told.done.changes.files
    found = source.stat()
    assert (file.file.name, file.file.mode, file.file.size_bytes) == ("result.db", "move", 9)
    assert (file.source_path, file.source_mtime_ns, file.source_inode) == (
        str(source),
        found.st_mtime_ns,
        found.st_ino,
    )
    assert host.bytes_of(file.file.blob) == b"as it was"
    assert list(host.staging.iterdir()) == []


def test_in_run_a_file_is_registered_at_once(host: FakeHost) -> None:
    told = host.start(paglets.Registers, "run")
    host.wait(told)
    names = [commit.changes.files[0].file.name for commit in told.all("commit")]
    assert names == ["result.db", "again.db"]
    assert told.done.changes.files == ()


def test_a_handler_that_fails_registers_nothing(host: FakeHost) -> None:
    told = host.start(paglets.RegistersInHandlers, "message")
    host.deliver(told, "1", "register", text="x", fail=True)
    host.deliver(told, "2", "look")
    host.deliver(told, "3", "register", text="y")
    host.deliver(told, "4", "look")
    assert host.handled(told, "1").changes.files == ()
    assert host.handled(told, "2").value.startswith("Unknown")
    assert [file.file.name for file in host.handled(told, "3").changes.files] == ["a.txt"]
    assert host.handled(told, "4").value == str(work(told, "a.txt"))
    assert host.handled(told, "4").changes.files == ()
    host.finish(told)


def test_what_is_no_regular_file_or_has_a_bad_name_is_not_registered(host: FakeHost, tmp_path: Path) -> None:
    good, link, pipe = tmp_path / "good", tmp_path / "link", tmp_path / "pipe"
    good.write_text("x")
    link.symlink_to(good)
    os.mkfifo(pipe)
    asked: list[tuple[Any, ...]] = [
        (str(tmp_path / "missing"),),
        (str(tmp_path),),
        (str(pipe),),
        ("",),
        (str(good), "a/b"),
        (str(good), "con.txt"),
        (str(good), "x" * 201),
        (str(good), "good", "link"),
        (str(link), None, "move"),
        (str(good), "Good"),
        (str(good), "gOOD"),
        (str(link), "link"),
    ]
    told = host.start(paglets.RegistersAll, "creation", secret=[list(each) for each in asked])
    heard = words(host, told)
    ends = (
        "there is no such file or folder",
        "is a folder: name a regular file",
        "is a pipe: name a regular file",
        "is not the path of a file",
        'use a plain name, without folders, drives or any of / \\ : * ? " < > |',
        "that is the name of a device",
        "it is longer than 200 bytes",
        "mode 'copy' or 'move'",
        "name the file itself",
        "copy",
        "differs from the registered 'Good' only in case: some disks cannot hold both files",
        "copy",
    )
    assert [line.endswith(end) for line, end in zip(heard, ends, strict=True)] == [True] * len(asked), heard
    assert [line.partition(":")[0] for line in heard if line != "copy"] == ["Invalid"] * 10
    assert [file.file.name for file in told.done.changes.files] == ["Good", "link"]
    assert told.done.changes.files[1].source_path == str(link)


def test_an_open_database_that_is_to_be_moved_stays_and_the_log_says_so(host: FakeHost, tmp_path: Path) -> None:
    source = tmp_path / "rows.db"
    with closing(sqlite3.connect(source)) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("CREATE TABLE t AS SELECT 5 AS n")
        told = host.start(paglets.RegistersAll, "creation", secret=[[str(source), None, "move"]])
        assert words(host, told) == ["move"]
    (registered,) = told.done.changes.files
    (tmp_path / "copy.db").write_bytes(host.bytes_of(BlobRef(sha256=registered.file.sha256, size_bytes=0)))
    with closing(sqlite3.connect(tmp_path / "copy.db")) as copy:
        assert copy.execute("SELECT n FROM t").fetchall() == [(5,)]
    assert "rows.db stays where it is" in Path(told.spec.stderr_path).read_text()


def test_registering_a_name_again_replaces_it(host: FakeHost, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text("1")
    second.write_text("22")
    told = host.start(paglets.RegistersAll, "creation", secret=[[str(first), "n"], [str(second), "n"]])
    assert words(host, told) == ["copy", "copy"]
    (file,) = told.done.changes.files
    assert (file.source_path, host.bytes_of(file.file.blob)) == (str(second), b"22")


def test_a_file_that_rests_after_a_while_is_captured_then(host: FakeHost, tmp_path: Path) -> None:
    source, rooms = tmp_path / "log", []
    source.write_text("a")

    def room(args: Any) -> Any:
        rooms.append(args.size_bytes)
        if len(rooms) < 3:
            source.write_text("a" * (len(rooms) + 1))
        return {"folder": str(host.staging)}

    host.answers["reserve_space"] = room
    told = host.start(paglets.RegistersAll, "creation", secret=[[str(source)]])
    assert words(host, told) == ["copy"]
    assert rooms == [1, 2, 3]
    assert host.bytes_of(told.done.changes.files[0].file.blob) == b"aaa"


def test_a_file_that_never_rests_is_not_registered(host: FakeHost, tmp_path: Path) -> None:
    source = tmp_path / "log"
    source.write_text("a")

    def room(args: Any) -> Any:
        source.write_text("a" * (args.size_bytes + 1))
        return {"folder": str(host.staging)}

    host.answers["reserve_space"] = room
    told = host.start(paglets.RegistersAll, "creation", secret=[[str(source)]])
    (heard,) = words(host, told)
    assert re.fullmatch(r"FileChanged: \S+/log changed while it was read.*", heard)
    assert told.done.changes.files == ()


def test_where_there_is_no_room_nothing_is_registered(host: FakeHost, tmp_path: Path) -> None:
    source = tmp_path / "big"
    source.write_text("a")
    host.answers["reserve_space"] = raising(NoRoom("the quota of 5 bytes is used up"))
    told = host.start(paglets.RegistersAll, "creation", secret=[[str(source)]])
    assert words(host, told) == ["NoRoom: the quota of 5 bytes is used up"]


def test_a_full_disk_of_the_host_is_told_and_nothing_stays_there(host: FakeHost) -> None:
    told = host.start(paglets.FillsUp, "creation")
    for heard in words(host, told):
        assert heard.startswith("NoRoom: ")
        assert "a limit of the system forbids files of that size" in heard
    assert list(host.staging.iterdir()) == []


# Departure.


def dispatching(host: FakeHost, **state: Any) -> tuple[Told, RegisteredFile]:
    """Run a process that registers a file, then one for `on_dispatching`."""
    created = host.start(paglets.Registers, "creation")
    host.wait(created)
    (file,) = created.done.changes.files
    told = host.start(
        paglets.Registers, "dispatching", files=(as_registered(host, file),), work_dir=created.go.work_dir, **state
    )
    host.wait(told)
    return told, file


def test_before_it_leaves_nothing_is_captured_that_did_not_change(host: FakeHost) -> None:
    told, _ = dispatching(host)
    assert [name for name, _ in told.asked] == ["done"]
    assert told.done.changes.files == ()


@pytest.mark.parametrize("data", [b"as it is!", b"longer than it was"])
def test_a_file_that_was_written_to_is_captured_again_before_it_leaves(host: FakeHost, data: bytes) -> None:
    told, before = dispatching(host, secret={"$bytes": base64.b64encode(data).decode()})
    (file,) = told.done.changes.files
    assert host.bytes_of(file.file.blob) == data
    assert (file.file.name, file.file.mode, file.source_path) == ("result.db", "move", before.source_path)


def test_a_file_that_was_written_to_in_the_same_moment_is_captured_again(host: FakeHost) -> None:
    told = host.start(paglets.WritesOn, "dispatching")
    by_its_own_name, by_another = words(host, told)
    (file,) = told.done.changes.files
    assert (file.file.name, host.bytes_of(file.file.blob)) == ("log", b"b")
    assert by_its_own_name.startswith("Invalid: ")
    assert by_another.endswith("cannot be registered: its path is not valid Unicode")


def test_a_file_that_never_rests_keeps_the_paglet_here(host: FakeHost) -> None:
    created = host.start(paglets.Registers, "creation")
    host.wait(created)
    (file,) = created.done.changes.files
    source = Path(file.source_path)
    source.write_text("changed since")

    def room(args: Any) -> Any:
        source.write_text("a" * (args.size_bytes + 1))
        return {"folder": str(host.staging)}

    host.answers["reserve_space"] = room
    go = as_registered(host, file)
    told = host.start(paglets.Registers, "dispatching", files=(go,), work_dir=created.go.work_dir)
    host.wait(told)
    assert (told.done.fault.code, told.done.changes.files) == ("file_changed", ())
    assert "result.db changed while it was read" in told.done.fault.message


def test_a_file_that_vanished_travels_as_it_was(host: FakeHost) -> None:
    told = host.start(paglets.Removes, "dispatching", files=(host.file("data.txt", b"x"),), path="data.txt")
    host.wait(told)
    assert told.done.fault is None
    assert told.done.changes.files == ()


# Arrival.


def test_files_lie_in_the_scratch_directory_before_the_paglet_arrives(host: FakeHost) -> None:
    files = (host.file("data.txt", b"some"), host.file("empty", b""))
    told = host.start(paglets.Looks, "arrival", files=files)
    assert words(host, told) == ["data.txt=some", "empty="]
    assert told.done.changes.state["secret"] == str(work(told, "data.txt"))
    assert work(told, "data.txt").stat().st_mode & 0o777 == 0o600


def test_what_the_paglet_made_of_its_files_is_left_alone_and_travels_on(host: FakeHost) -> None:
    file = host.file("data.txt", b"some")
    first = host.start(paglets.Looks, "arrival", files=(file,))
    host.wait(first)
    unchanged = host.start(paglets.Looks, "dispatching", files=(file,), work_dir=first.go.work_dir)
    assert words(host, unchanged) == ["data.txt=some"]
    assert unchanged.done.changes.files == ()
    work(first, "data.txt").write_text("SOME")
    changed = host.start(paglets.Looks, "dispatching", files=(file,), work_dir=first.go.work_dir)
    assert words(host, changed) == ["data.txt=SOME"]
    (again,) = changed.done.changes.files
    assert (again.file.name, host.bytes_of(again.file.blob)) == ("data.txt", b"SOME")


def test_a_file_registered_here_is_not_copied_while_its_source_is_there(host: FakeHost, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_text("as captured")
    file = host.file("data.txt", b"as captured", source_path=str(source))
    told = host.start(paglets.Looks, "arrival", files=(file,))
    assert words(host, told) == []
    assert told.done.changes.state["secret"] == str(source)
    source.unlink()
    told = host.start(paglets.Looks, "arrival", files=(file,))
    assert words(host, told) == ["data.txt=as captured"]
    assert told.done.changes.state["secret"] == str(work(told, "data.txt"))


def test_without_its_files_no_code_of_a_paglet_runs(host: FakeHost) -> None:
    short = host.file("data.txt", b"some")
    (host.blobs / short.file.sha256).write_bytes(b"s")
    told = host.start(paglets.Looks, "arrival", files=(short,))
    host.wait(told)
    assert told.done.fault.cause == "spawn_failed"
    assert "the host's copy of 'data.txt' has 1 bytes, not 4" in told.done.fault.message
    assert list(work(told).iterdir()) == []


def test_a_full_disk_at_arrival_has_its_own_cause_and_leaves_no_part(tmp_path: Path) -> None:
    program = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000));"
        "from paglets.worker.zygote.main import main; sys.exit(main([]))"
    )
    host = FakeHost(tmp_path, command=(sys.executable, "-c", program))
    try:
        files = (host.file("small", b"x"), host.file("data.txt", b"x" * 200_000))
        told = host.start(paglets.Looks, "arrival", files=files)
        host.wait(told)
    finally:
        host.close()
    assert told.done.fault.cause == "disk_full"
    assert "'data.txt' (200,000 bytes) cannot be copied to the scratch directory" in told.done.fault.message
    assert [path.name for path in work(told).iterdir()] == ["small"]


# Artifacts.


def answer_artifact(args: Any) -> Any:
    new = args.artifact
    return to_json(
        ArtifactRef(
            artifact_id=new.artifact_id,
            name=new.name,
            size_bytes=new.blob.size_bytes,
            sha256=new.blob.sha256,
            host_name=HOST.name,
            owner="job-1",
            created_at=new.created_at,
            expires_at=new.expires_in_seconds,
        )
    )


def test_artifacts_are_uploaded_as_copies_or_moved(host: FakeHost, tmp_path: Path) -> None:
    copied, moved = tmp_path / "copied", tmp_path / "moved"
    copied.write_text("c")
    moved.write_text("mm")
    host.answers["artifact_add"] = answer_artifact
    uploads = [[str(copied), None, False, None], [str(moved), "to.txt", True, 60.0]]
    told = host.start(paglets.Uploads, "creation", secret=uploads)
    heard = words(host, told)
    first, second = (add.artifact for add in told.all("artifact_add"))
    assert (first.name, first.blob.size_bytes, second.name, second.expires_in_seconds) == ("copied", 1, "to.txt", 60.0)
    assert first.artifact_id != second.artifact_id
    assert ARTIFACT_ID.fullmatch(first.artifact_id)
    assert "'host_name': 'here'" in heard[0]
    assert copied.read_text() == "c"
    assert not moved.exists()
    assert host.bytes_of(second.blob) == b"mm"


def test_an_artifact_that_is_refused_leaves_its_file_where_it_was(host: FakeHost, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_text("mine")
    source.chmod(0o640)
    uploads = [
        [str(source), "a/b", True, None],
        [str(source), None, True, 0.0],
        [str(tmp_path / "missing"), None, True, None],
        [str(tmp_path), None, True, None],
        [str(source), None, True, None],
    ]
    host.answers["artifact_add"] = raising(Conflict("not that one"))
    told = host.start(paglets.Uploads, "creation", secret=uploads)
    heard = words(host, told)
    assert [line.partition(":")[0] for line in heard] == ["Invalid"] * 4 + ["Conflict"]
    (published,) = told.all("publish")
    assert (source.read_text(), source.stat().st_mode & 0o777, source.stat().st_nlink) == ("mine", 0o640, 1)
    source.write_text("what is written now is not in the blob")
    assert host.bytes_of(published.blob) == b"mine"


def test_a_file_that_cannot_be_published_keeps_its_rights(host: FakeHost, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_text("mine")
    before = source.stat()
    host.answers["publish"] = raising(NoRoom("full"))
    told = host.start(paglets.Uploads, "creation", secret=[[str(source), None, True, None]])
    assert words(host, told) == ["NoRoom: full"]
    after = source.stat()
    assert (after.st_ino, after.st_mode, after.st_nlink) == (before.st_ino, before.st_mode, 1)
    assert list(host.staging.iterdir()) == []


def test_an_artifact_comes_whole_to_its_place_or_not_at_all(host: FakeHost) -> None:
    file = host.file("data.txt", b"fetched").file
    ref = ArtifactRef(
        artifact_id="art-00000000",
        name="data.txt",
        size_bytes=file.size_bytes,
        sha256=file.sha256,
        host_name="w1",
        owner="",
        created_at=5.0,
    )
    host.answers["artifact_fetch"] = lambda args: {"artifact": to_json(ref), "path": str(host.blobs / file.sha256)}
    told = host.start(paglets.Downloads, "creation")
    there, inside, missing, bad, text, listed = words(host, told)
    assert (there, inside) == (str(work(told, "there")), str(work(told, "folder/data.txt")))
    assert missing.startswith("Invalid")
    assert bad.startswith("Invalid: '../up' is not the id of an artifact")
    assert (text, listed) == ("fetched", "folder,there")
    assert [args.artifact_id for args in told.all("artifact_delete")] == [ref.artifact_id]
    assert os.listdir(work(told, "folder")) == ["data.txt"]


def test_a_download_replaces_no_other_file_and_deletes_nothing_then(host: FakeHost) -> None:
    files = {f"art-0000000{number}": host.file("data.txt", data).file for number, data in enumerate((b"one", b"two"))}
    refs = {
        artifact_id: ArtifactRef(
            artifact_id=artifact_id,
            name="data.txt",
            size_bytes=file.size_bytes,
            sha256=file.sha256,
            host_name="w1",
            owner="",
            created_at=5.0,
        )
        for artifact_id, file in files.items()
    }
    host.answers["artifact_fetch"] = lambda args: {
        "artifact": to_json(refs[args.artifact_id]),
        "path": str(host.blobs / refs[args.artifact_id].sha256),
    }
    told = host.start(paglets.DownloadsAgain, "creation", secret=[ref.to_wire() for ref in refs.values()])
    first, other, same, known, text, listed = words(host, told)
    assert first == same == known == str(work(told, "made/data.txt"))
    assert other == f"Conflict: {first} already exists"
    assert (text, listed) == ("one", "data.txt")
    assert [args.artifact_id for args in told.all("artifact_delete")] == ["art-00000000"] * 2
    assert len(told.all("artifact_fetch")) == 2


def test_a_download_of_damaged_or_unknown_bytes_changes_nothing(host: FakeHost) -> None:
    ref = ArtifactRef(
        artifact_id="art-00000000",
        name="data.txt",
        size_bytes=7,
        sha256="0" * 64,
        host_name="w1",
        owner="",
        created_at=5.0,
    )
    path = host.file("data.txt", b"damaged").path
    host.answers["artifact_fetch"] = lambda args: {"artifact": to_json(ref), "path": path}
    told = host.start(paglets.Downloads, "creation")
    heard = words(host, told)
    assert heard[0] == "FileChanged: the artifact art-00000000 is damaged on this host"
    assert heard[-2:] == ["old", "folder,there"]
    assert told.all("artifact_delete") == []
    host.answers["artifact_fetch"] = raising(Unknown("no online host has it"))
    assert words(host, host.start(paglets.Downloads, "creation"))[0] == "Unknown: no online host has it"


@pytest.mark.parametrize("entry", ["creation", "run"])
def test_a_file_is_sent_with_a_message(host: FakeHost, entry: str) -> None:
    told = host.start(paglets.Sends, entry)
    heard = words(host, told)
    posts = [post for commit in told.all("commit") for post in commit.changes.posts] or told.done.changes.posts
    assert [post.message.args for post in posts] == [{"x": 1}] * 2
    refs = [post.message.artifacts[0] for post in posts]
    assert [ref.artifact_id for ref in refs] == heard[:2]
    assert [(ref.name, ref.owner, ref.host_name) for ref in refs] == [
        ("copied.txt", "job-1", "here"),
        ("moved.txt", "job-1", "here"),
    ]
    assert [host.bytes_of(ref.blob) for ref in refs] == [b"copied", b"moved"]
    # During a hook the post is not stored, so the file still exists; after the hook it does not.
    assert heard[2] == f"moved is here: {entry == 'creation'}"
    assert sorted(os.listdir(work(told))) == ["copied"]


def test_a_file_that_was_to_be_sent_by_a_hook_that_fails_is_a_file_of_its_own(host: FakeHost) -> None:
    told = host.start(paglets.Sends, "arrival")
    host.wait(told)
    assert told.done.fault is not None
    moved = work(told, "moved")
    assert (moved.read_text(), moved.stat().st_nlink) == ("moved", 1)
    assert moved.stat().st_mode & 0o200


def test_artifacts_come_with_messages_and_go_on_as_further_ones(host: FakeHost) -> None:
    ref = ArtifactRef(
        artifact_id="art-00000000",
        name="n",
        size_bytes=1,
        sha256="0" * 64,
        host_name="w1",
        owner="job-9",
        created_at=5.0,
    )
    told = host.start(paglets.RegistersInHandlers, "message")
    host.deliver(told, "1", "artifacts", artifacts=(ref,))
    assert host.handled(told, "1").value == [ref.to_wire()]
    host.finish(told)
    told = host.start(paglets.Sends, "message")
    host.deliver(told, "1", "on", artifacts=(ref,))
    (post,) = host.handled(told, "1").changes.posts
    (further,) = post.message.artifacts
    assert (further.owner, further.host_name, further.blob) == ("job-2", "here", ref.blob)
    assert further.artifact_id != ref.artifact_id
    assert host.handled(told, "1").changes.state["words"] == [
        "Invalid: a call carries no artifacts: use post or send_artifact"
    ]
    host.finish(told)


# The outcome of a job.


@pytest.mark.parametrize("move", [False, True])
def test_a_job_reports_a_file_with_its_result(host: FakeHost, move: bool) -> None:
    told = host.start(paglets.FileJob, collector=COLLECTOR, result={"bundle": "a"}, name="rows.db", move=move)
    heard = last_words(host, told)
    kept = "gone" if move else "644, 1"
    assert heard == ["True", kept, "False", kept]
    assert told.done.keep_scratch is not move
    (report,) = told.all("report")
    ref = from_json(ArtifactRef, report.result["artifact"])
    assert report.result["bundle"] == "a"
    assert (ref.artifact_id, ref.name, ref.blob) == (
        report.artifact.artifact_id,
        report.artifact.name,
        report.artifact.blob,
    )
    assert (ref.name, ref.owner, ref.host_name, ref.created_at) == (
        "rows.db",
        "collector-1",
        "keeper",
        report.artifact.created_at,
    )
    assert host.bytes_of(ref.blob) == b"rows"
    # A copy has its own mtime.
    assert ((host.blobs / ref.sha256).stat().st_mtime == 1) == move
    log = Path(told.spec.stderr_path).read_text()
    assert "a second report was not sent" in log
    assert "the payload was built" not in log


def test_a_report_that_the_host_does_not_take_leaves_the_file(host: FakeHost) -> None:
    host.answers["report"] = lambda args: {"accepted": False}
    told = host.start(paglets.FileJob, collector=COLLECTOR, move=True)
    assert last_words(host, told) == ["False", "644, 1", "False", "644, 1"]
    assert len(told.all("report")) == 1


def test_a_report_that_fails_leaves_the_file_and_may_be_made_again(host: FakeHost) -> None:
    answers = iter([NoRoom("the database is full"), None])

    def report(args: Any) -> Any:
        error = next(answers)
        if error is not None:
            raise error
        return {"accepted": True}

    host.answers["report"] = report
    told = host.start(paglets.FileJob, collector=COLLECTOR, move=True)
    assert last_words(host, told) == ["NoRoom: the database is full", "644, 1", "True", "gone"]


@pytest.mark.parametrize(
    ("result", "problem"),
    [
        ([1], "the result next to a file must be a mapping or None, not a list"),
        ({"artifact": 1}, "the result next to a file must not have the key 'artifact': paglets sets it"),
    ],
)
def test_a_result_that_leaves_no_place_for_the_file_is_refused(host: FakeHost, result: Any, problem: str) -> None:
    told = host.start(paglets.FileJob, collector=COLLECTOR, result=result, move=True)
    assert last_words(host, told) == [f"Invalid: {problem}", "644, 1"] * 2
    (report,) = told.all("report")
    assert (report.result, report.artifact) == ({"built": True}, None)
    assert told.all("publish") == []


def test_a_result_that_cannot_travel_beside_a_file_has_the_cause_bad_result(host: FakeHost) -> None:
    told = host.start(paglets.OddResult, collector=COLLECTOR, move=True)
    heard, kept, second, _ = last_words(host, told)
    assert heard.startswith("Invalid: ")
    assert (kept, second) == ("644, 1", "False")
    (report,) = told.all("report")
    assert (report.success, report.fault.cause, report.artifact) == (False, "bad_result", None)


@pytest.mark.parametrize("path", ["missing.db", ".", "/dev/null"])
def test_a_file_that_cannot_be_taken_is_not_reported(host: FakeHost, path: str) -> None:
    told = host.start(paglets.FileJob, collector=COLLECTOR, path=path, move=True)
    assert all(line.startswith("Invalid: ") for line in last_words(host, told)[::2])
    (report,) = told.all("report")
    assert report.result == {"built": True}


def test_a_job_without_a_collector_is_told_what_to_use(host: FakeHost) -> None:
    told = host.start(paglets.FileJob, move=True)
    heard = last_words(host, told)
    assert heard[0] == "Invalid: this job has no collector to keep the file of its report: use upload_artifact"
    assert heard[1] == "644, 1"


def test_a_file_of_two_names_is_copied_and_loses_only_the_one(host: FakeHost) -> None:
    told = host.start(paglets.ShareFile, collector=COLLECTOR)
    assert last_words(host, told) == ["True", "first.db"]
    work(told, "first.db").write_text("what is written now is not in the blob")
    blob: BlobRef = told.all("report")[0].artifact.blob
    assert host.bytes_of(blob) == b"rows"
