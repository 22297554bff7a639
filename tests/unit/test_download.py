from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from paglets.client.pacing import FIRST_PIECE_BYTES, no_progress
from paglets.client.partial_file import partial_name
from paglets.core.errors import CallOutcomeUnknown, Conflict, FileChanged, Invalid, NoRoom, Unknown, Unreachable
from paglets.core.refs import ArtifactRef
from tests.fakes.filehost import FileHost
from tests.unit.files_rig import TIMEOUT, FilesRig, blob_of, some_bytes

DATA = some_bytes(7 * FIRST_PIECE_BYTES + 5)
PART = partial_name("data.bin", blob_of(DATA).sha256)


@pytest.fixture
def rig() -> FilesRig:
    return FilesRig()


def fetch(rig: FilesRig, target: Path, artifact: ArtifactRef | str = "art-00000001", **more: object) -> Path:
    given: dict = {"move": False, "replace": False, "progress": no_progress} | more
    return rig.files.download(artifact, target, **given)


def test_a_file_arrives_whole_from_the_host_that_has_it(rig: FilesRig, tmp_path: Path) -> None:
    ref = rig.b.keep(DATA)
    assert fetch(rig, tmp_path, ref) == tmp_path / "data.bin"
    assert (tmp_path / "data.bin").read_bytes() == DATA
    assert rig.names(tmp_path) == ["data.bin"]
    assert rig.offsets("GET", "b") == [0, *(FIRST_PIECE_BYTES * n for n in (1, 3, 7))]


def test_the_target_may_be_the_file_itself_and_may_be_replaced(rig: FilesRig, tmp_path: Path) -> None:
    rig.a.keep(DATA)
    (tmp_path / "mine").write_bytes(b"old")
    fetch(rig, tmp_path / "mine", replace=True)
    assert (tmp_path / "mine").read_bytes() == DATA


@pytest.mark.parametrize(("name", "written"), [(".bashrc", "_bashrc"), ("-rf", "_rf"), ("a-.b", "a-.b")])
def test_a_file_under_its_own_name_is_neither_hidden_nor_an_option(
    rig: FilesRig, tmp_path: Path, name: str, written: str
) -> None:
    rig.a.keep(DATA, name=name)
    assert fetch(rig, tmp_path) == tmp_path / written
    assert fetch(rig, tmp_path / name) == tmp_path / name, "a name that the caller gave is kept"


@pytest.mark.parametrize("by_id", [True, False])
def test_another_file_at_the_target_stays_and_so_does_the_artifact(rig: FilesRig, tmp_path: Path, by_id: bool) -> None:
    first, second = rig.a.keep(b"first"), rig.b.keep(DATA, artifact_id="art-00000002")
    assert fetch(rig, tmp_path, first, move=True) == tmp_path / "data.bin"
    with pytest.raises(Conflict, match=r"data\.bin already exists\nhint: name another target, or .*replace=True"):
        fetch(rig, tmp_path, second.artifact_id if by_id else second, move=True)
    assert (tmp_path / "data.bin").read_bytes() == b"first"
    assert (rig.b.pieces, list(rig.b.artifacts)) == ([], ["art-00000002"])


def test_a_link_to_nowhere_is_something_that_stands_there(rig: FilesRig, tmp_path: Path) -> None:
    rig.a.keep(DATA)
    (tmp_path / "data.bin").symlink_to(tmp_path / "nowhere")
    with pytest.raises(Conflict, match="already exists"):
        fetch(rig, tmp_path)


def test_a_file_that_appears_while_another_one_comes_is_not_replaced(rig: FilesRig, tmp_path: Path) -> None:
    ref = rig.a.keep(DATA)
    rig.a.before_piece = lambda method, offset: (tmp_path / "data.bin").write_bytes(b"quicker") and None
    with pytest.raises(Conflict, match="already exists"):
        fetch(rig, tmp_path, move=True)
    assert (tmp_path / "data.bin").read_bytes() == b"quicker"
    assert rig.names(tmp_path) == ["data.bin"]
    assert list(rig.a.artifacts) == [ref.artifact_id]


def test_the_same_file_at_the_target_is_enough_also_when_the_artifact_is_gone(rig: FilesRig, tmp_path: Path) -> None:
    ref = rig.b.keep(DATA)
    (tmp_path / "data.bin").write_bytes(DATA)
    for _ in range(2):
        assert fetch(rig, tmp_path, ref, move=True) == tmp_path / "data.bin"
        assert (rig.b.artifacts, rig.b.pieces) == ({}, [])


def test_a_folder_that_ends_as_one_is_made(rig: FilesRig, tmp_path: Path) -> None:
    rig.a.keep(DATA)
    for _ in range(2):
        path = rig.files.download("art-00000001", f"{tmp_path}/new/", move=False, replace=False, progress=no_progress)
        assert (path, path.read_bytes()) == (tmp_path / "new" / "data.bin", DATA)


def test_an_empty_file_arrives_too(rig: FilesRig, tmp_path: Path) -> None:
    rig.a.keep(b"")
    assert fetch(rig, tmp_path).read_bytes() == b""


def test_nothing_is_visible_before_all_is_there(rig: FilesRig, tmp_path: Path) -> None:
    seen: list[list[str]] = []
    rig.a.keep(DATA)
    rig.a.before_piece = lambda method, offset: seen.append(rig.names(tmp_path))
    fetch(rig, tmp_path)
    assert seen == [[PART]] * len(rig.a.pieces)


def test_what_an_earlier_try_left_is_used(rig: FilesRig, tmp_path: Path) -> None:
    rig.a.keep(DATA)
    (tmp_path / PART).write_bytes(DATA[:1000])
    told: list[tuple[str, int, int]] = []
    assert fetch(rig, tmp_path, progress=lambda *step: told.append(step)).read_bytes() == DATA
    assert rig.offsets("GET")[0] == 1000
    assert told[0] == ("reading", 1000, len(DATA))
    assert told[-1] == ("receiving", len(DATA), len(DATA))


@pytest.mark.parametrize("left", [b"wrong", b"x" * (len(DATA) + 1), b"y" * len(DATA)])
def test_what_is_left_of_something_else_does_no_harm(rig: FilesRig, tmp_path: Path, left: bytes) -> None:
    rig.a.keep(DATA)
    (tmp_path / PART).write_bytes(left)
    assert fetch(rig, tmp_path).read_bytes() == DATA
    assert rig.names(tmp_path) == ["data.bin"]


def test_an_interruption_keeps_what_came(rig: FilesRig, tmp_path: Path) -> None:
    rig.a.keep(DATA)

    def before(method: str, offset: int) -> None:
        if offset > FIRST_PIECE_BYTES:
            raise KeyboardInterrupt

    rig.a.before_piece = before
    with pytest.raises(KeyboardInterrupt):
        fetch(rig, tmp_path)
    assert rig.names(tmp_path) == [PART]
    assert (tmp_path / PART).read_bytes() == DATA[: 3 * FIRST_PIECE_BYTES]
    rig.a.before_piece = lambda method, offset: None
    assert fetch(rig, tmp_path).read_bytes() == DATA
    assert rig.offsets("GET").count(0) == 1


@pytest.mark.parametrize("error", [Unreachable("refused"), CallOutcomeUnknown("cut")])
def test_a_connection_that_breaks_goes_on_where_it_was(rig: FilesRig, tmp_path: Path, error: Unreachable) -> None:
    rig.b.keep(DATA)
    failing = [error, error]

    def before(method: str, offset: int) -> None:
        if offset and failing:
            raise failing.pop()

    rig.b.before_piece = before
    assert fetch(rig, tmp_path).read_bytes() == DATA
    assert sum(length for _, _, length in rig.b.pieces) == len(DATA)


def test_an_artifact_that_moves_meanwhile_is_followed(rig: FilesRig, tmp_path: Path) -> None:
    rig.b.keep(DATA)

    def before(method: str, offset: int) -> None:
        if offset == FIRST_PIECE_BYTES:
            rig.b.give("art-00000001", rig.c)

    rig.b.before_piece = before
    assert fetch(rig, tmp_path).read_bytes() == DATA
    assert rig.offsets("GET", "c")[0] == FIRST_PIECE_BYTES


def test_an_artifact_that_is_on_its_way_for_a_moment_is_waited_for(rig: FilesRig, tmp_path: Path) -> None:
    ref = rig.b.keep(DATA)

    def before(method: str, offset: int) -> None:
        rig.b.before_piece = lambda method, offset: None
        rig.b.artifacts.clear()
        rig.b.blobs.clear()

    def pause(seconds: float) -> None:
        rig.clock.advance(seconds)
        if rig.clock.monotonic() > start + TIMEOUT / 2 and not rig.c.artifacts:
            rig.c.keep(DATA, artifact_id=ref.artifact_id)

    start = rig.clock.monotonic()
    rig.b.before_piece = before
    rig.files._mesh.pause = pause
    assert fetch(rig, tmp_path).read_bytes() == DATA


def test_one_that_never_comes_back_ends_it_and_what_came_is_kept(rig: FilesRig, tmp_path: Path) -> None:
    rig.b.keep(DATA)

    def before(method: str, offset: int) -> None:
        if offset:
            rig.b.artifacts.clear()
            rig.b.blobs.clear()

    rig.b.before_piece = before
    with pytest.raises(Unknown, match="art-00000001"):
        fetch(rig, tmp_path)
    assert (tmp_path / PART).stat().st_size == FIRST_PIECE_BYTES


def test_a_failed_download_names_the_unreachable_host_and_the_bytes_kept(rig: FilesRig, tmp_path: Path) -> None:
    rig.b.keep(DATA)

    def before(method: str, offset: int) -> None:
        if offset:
            rig.a.others = ()  # b is not asked any more
            raise Unreachable("http://b:8765 cannot be reached")

    rig.b.before_piece = before
    with pytest.raises(Unreachable) as caught:
        fetch(rig, tmp_path)
    assert caught.value.message == (
        f"http://b:8765 cannot be reached; {FIRST_PIECE_BYTES:,} of {len(DATA):,} bytes are kept; "
        "the next attempt resumes there"
    )
    assert (tmp_path / PART).stat().st_size == FIRST_PIECE_BYTES


def test_an_unknown_artifact_is_told_at_once(rig: FilesRig, tmp_path: Path) -> None:
    start = rig.clock.monotonic()
    with pytest.raises(Unknown):
        fetch(rig, tmp_path, "art-nowhere1")
    with pytest.raises(Invalid, match="not the id of an artifact"):
        fetch(rig, tmp_path, "../secret")
    assert rig.clock.monotonic() == start
    assert rig.names(tmp_path) == []


def test_an_address_in_a_reply_is_never_contacted(rig: FilesRig, tmp_path: Path) -> None:
    stranger = FileHost(name="evil")
    stranger.keep(DATA)
    rig.a.others += (stranger,)
    with pytest.raises(Unreachable, match="evil, which a does not list"):
        fetch(rig, tmp_path)


def test_bytes_that_are_not_those_of_the_name_are_not_kept(rig: FilesRig, tmp_path: Path) -> None:
    ref = rig.b.keep(DATA)
    rig.b.blobs[ref.sha256] = b"x" * len(DATA)
    with pytest.raises(FileChanged, match="disk of b may be damaged"):
        fetch(rig, tmp_path, ref)
    assert rig.names(tmp_path) == []
    assert ref.sha256 not in rig.b.blobs  # it was told to look, so that the file can be put there anew


def test_a_ref_whose_id_names_other_bytes_now_is_refused(rig: FilesRig, tmp_path: Path) -> None:
    ref = rig.b.keep(DATA)
    rig.b.keep(b"other")
    with pytest.raises(Conflict, match="other bytes than the reference says"):
        fetch(rig, tmp_path, ref)


def test_moving_deletes_nothing_where_the_file_did_not_arrive(rig: FilesRig, tmp_path: Path) -> None:
    ref = rig.b.keep(DATA)
    with pytest.raises(Invalid):
        fetch(rig, tmp_path / "nowhere" / "x", move=True)
    rig.b.blobs[ref.sha256] = b"x" * len(DATA)
    with pytest.raises(FileChanged):
        fetch(rig, tmp_path, move=True)
    assert list(rig.b.artifacts) == [ref.artifact_id]


def test_moving_deletes_the_artifact_once_the_file_is_safe(rig: FilesRig, tmp_path: Path) -> None:
    rig.b.keep(DATA)
    rig.b.lost = [CallOutcomeUnknown("the reply of the deletion is lost")]
    assert fetch(rig, tmp_path, move=True).read_bytes() == DATA
    assert rig.b.artifacts == {}


# Targets.


@pytest.mark.parametrize("name", ["..", "../up", "a/b", "C:\\x", "con", "line\nfeed", "", "a" * 201, " x"])
def test_a_hostile_name_never_becomes_a_path(rig: FilesRig, tmp_path: Path, name: str) -> None:
    rig.a.keep(DATA, name)
    (tmp_path / "in").mkdir()
    with pytest.raises(Invalid, match="cannot name a file"):
        fetch(rig, tmp_path / "in")
    assert rig.names(tmp_path) == ["in"]
    assert rig.names(tmp_path / "in") == []
    assert rig.a.pieces == []


@pytest.mark.parametrize("blob", [{"sha256": "../" * 20 + "x"}, {"sha256": ""}, {"size_bytes": -1}])
def test_a_hostile_blob_never_becomes_a_path(rig: FilesRig, tmp_path: Path, blob: dict[str, object]) -> None:
    ref = rig.a.keep(DATA)
    rig.a.artifacts[ref.artifact_id] = ArtifactRef(**{**ref.to_wire(), **blob})
    with pytest.raises(Invalid):
        fetch(rig, tmp_path)
    assert rig.names(tmp_path) == []


def test_a_file_whose_artifact_cannot_name_it_may_be_named_by_who_fetches_it(rig: FilesRig, tmp_path: Path) -> None:
    rig.a.keep(DATA, "..")
    with pytest.raises(Invalid, match="hint: name the file to write"):
        fetch(rig, tmp_path)
    assert fetch(rig, tmp_path / "mine").read_bytes() == DATA


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("nowhere/x", "there is no folder"),
        ("nowhere/in/", "there is no folder"),
        ("file/", "cannot be created: "),
        ("zero\0byte/", "cannot be created: "),
        ("file/x", "is not a folder"),
        ("zero\0byte", "cannot be written"),
        ("n" * 256, "cannot be written"),
    ],
)
def test_a_target_that_cannot_be_is_one_clear_line(rig: FilesRig, tmp_path: Path, target: str, told: str) -> None:
    rig.a.keep(DATA)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(Invalid, match=told) as caught:
        rig.files.download("art-00000001", f"{tmp_path}/{target}", move=False, replace=False, progress=no_progress)
    assert "\n" not in caught.value.message
    assert [name for name in rig.names(tmp_path) if name != "file"] == []


def test_a_read_only_place_is_told(rig: FilesRig) -> None:
    rig.a.keep(DATA)
    with pytest.raises(Invalid, match=r"/proc/data\.bin cannot be written"):
        fetch(rig, Path("/proc"))


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_what_stands_where_the_partial_file_goes_is_not_followed(rig: FilesRig, tmp_path: Path, kind: str) -> None:
    rig.a.keep(DATA)
    (tmp_path / "precious").write_bytes(b"mine")
    if kind == "link":
        (tmp_path / PART).symlink_to(tmp_path / "precious")
    elif kind == "pipe":
        os.mkfifo(tmp_path / PART)
    else:
        (tmp_path / PART).mkdir()
    with pytest.raises(Invalid):
        fetch(rig, tmp_path)
    assert (tmp_path / "precious").read_bytes() == b"mine"


def test_a_pipe_or_a_device_at_the_target_is_not_replaced(rig: FilesRig, tmp_path: Path) -> None:
    rig.a.keep(DATA)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(Invalid, match=r"^\S+/pipe is neither a file nor a folder"):
        fetch(rig, tmp_path / "pipe")
    assert (tmp_path / "pipe").is_fifo()
    assert rig.names(tmp_path) == ["pipe"]


def test_two_downloads_to_one_place_do_not_mix(rig: FilesRig, tmp_path: Path) -> None:
    rig.a.keep(DATA)
    with (tmp_path / PART).open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(Conflict, match="another download"):
            fetch(rig, tmp_path)
    assert fetch(rig, tmp_path).read_bytes() == DATA


def test_a_disk_error_of_an_early_sync_fails_the_download(
    rig: FilesRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref, fsync, failures = rig.a.keep(DATA), os.fsync, [OSError(errno.EIO, "Input/output error")]

    def fail_once(descriptor: int) -> None:
        if failures:
            raise failures.pop()
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fail_once)
    with pytest.raises(Invalid, match="cannot be written: Input/output error"):
        fetch(rig, tmp_path, ref)
    assert rig.names(tmp_path) == [], "the next download must not use the lost bytes"
    assert fetch(rig, tmp_path, ref).read_bytes() == DATA


def test_a_long_name_of_the_target_is_cut_for_the_partial_file(rig: FilesRig, tmp_path: Path) -> None:
    rig.a.keep(DATA)
    assert fetch(rig, tmp_path / ("ä" * 125)).read_bytes() == DATA


FULL = """
import resource, sys
from pathlib import Path
from paglets.core.errors import NoRoom
from paglets.client.pacing import no_progress
from tests.unit.files_rig import FilesRig, some_bytes
rig = FilesRig()
rig.a.keep(some_bytes(3_000_000))
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))
try:
    rig.files.download("art-00000001", sys.argv[1], move=False, replace=False, progress=no_progress)
except NoRoom as error:
    print(error.message)
"""


def test_a_full_disk_is_told_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path / "in")], cwd=root, capture_output=True, text=True, check=True
    )
    assert "cannot be written" in done.stdout
    assert "the received part was removed" in done.stdout
    assert len(done.stdout.splitlines()) == 1
    assert list((tmp_path / "in").iterdir()) == []


def test_what_cannot_fit_is_told_before_it_is_fetched(rig: FilesRig, tmp_path: Path) -> None:
    ref = rig.a.keep(DATA)
    rig.a.artifacts[ref.artifact_id] = ArtifactRef(**{**ref.to_wire(), "size_bytes": 1 << 49})
    with pytest.raises(NoRoom, match="bytes free; the download needs 562,949,953,421,312"):
        fetch(rig, tmp_path)
    assert rig.a.pieces == []
    assert rig.names(tmp_path) == []
