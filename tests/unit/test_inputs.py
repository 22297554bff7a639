"""Input files of paglets and jobs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from paglets.client.host_client import HostClient
from paglets.client.inputs import (
    RENEW_SECONDS,
    SUBMIT_ATTEMPTS,
    InputPaths,
    RenewingPublisher,
    UploadSession,
    check_inputs,
    publish_inputs,
)
from paglets.client.kept_blobs import KEPT_SECONDS, KeptBlobs
from paglets.client.pacing import SENDING, Progress, no_progress
from paglets.core.errors import Conflict, FileChanged, Invalid, Unreachable
from paglets.core.refs import BlobRef
from paglets.testing.authors import FakeContext
from tests.fakes.clock import FakeClock


class CountingContext(FakeContext):
    """A publisher that records the files in order."""

    def __init__(self) -> None:
        super().__init__()
        self.published: list[str] = []

    def publish_file(self, path: str | Path) -> BlobRef:
        self.published.append(Path(path).name)
        return super().publish_file(path)


def test_files_get_their_names_and_keep_their_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"1,2")
    (tmp_path / "empty").write_bytes(b"")
    context = CountingContext()

    files = publish_inputs(context, {"table.csv": tmp_path / "a.csv", "nothing": str(tmp_path / "empty")})

    assert [(file.name, context.blobs[file.sha256], file.size_bytes) for file in files] == [
        ("nothing", b"", 0),
        ("table.csv", b"1,2", 3),
    ]
    assert publish_inputs(context, None) == publish_inputs(context, {}) == ()


def test_equal_files_are_published_once(tmp_path: Path) -> None:
    for name, data in (("a", b"one"), ("b", b"one"), ("c", b"two"), ("d", b"longer")):
        (tmp_path / name).write_bytes(data)
    context = CountingContext()

    files = publish_inputs(context, {name: tmp_path / name for name in "abcd"} | {"e": tmp_path / "d"})

    assert context.published == ["a", "c", "d"]
    hashes = {file.name: file.sha256 for file in files}
    assert hashes["a"] == hashes["b"] != hashes["c"]
    assert hashes["d"] == hashes["e"]


@pytest.mark.parametrize("name", ["", "..", "a/b", "a\\b", "C:x", "con", "x\n", "a" * 300, "dot."])
def test_a_name_that_is_none_on_some_host_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(Invalid, match="cannot name a file"):
        check_inputs({name: tmp_path / "a"})


@pytest.mark.parametrize("what", ["missing", "folder", "pipe", "loop", "", "nul\0"])
def test_what_is_no_file_is_named_in_one_line_and_nothing_is_published(what: str, tmp_path: Path) -> None:
    (tmp_path / "good").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    context = CountingContext()
    paths: InputPaths = {"a": tmp_path / "good", "b": tmp_path / what if what else ""}
    with pytest.raises(Invalid) as failure:
        publish_inputs(context, paths)
    assert "input 'b'" in failure.value.message
    assert failure.value.message.isprintable()
    assert context.published == []


def test_names_that_are_one_on_some_host_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(Invalid, match=r"job 'k': input 'a\.txt' differs from 'A\.txt' only in case"):
        check_inputs({"A.txt": tmp_path / "a", "a.txt": tmp_path / "a"}, "job 'k'")


# Bytes that take longer than a host keeps what nothing refers to.

PIN_SECONDS = 3600.0


class ForgetfulHost(FakeContext):
    """A client of a host that keeps bytes for an hour. A file takes `takes` seconds, in `pieces`."""

    def __init__(self, clock: FakeClock, takes: float = 0.0, pieces: int = 10) -> None:
        super().__init__()
        self.clock = clock
        self.takes = takes
        self.pieces = pieces
        self.until: dict[str, float] = {}
        self.sent: list[BlobRef] = []  # type: ignore[assignment]
        self.asked = 0
        self.trouble: list[Exception] = []

    def publish_bytes(self, data: bytes) -> BlobRef:
        blob = super().publish_bytes(data)
        self.sent.append(blob)
        self.until[blob.sha256] = self.clock.monotonic() + PIN_SECONDS
        return blob

    def publish_file(self, path: str | Path, progress: Progress = no_progress) -> BlobRef:
        for piece in range(self.pieces):
            progress(SENDING, piece, self.pieces)
            self.clock.advance(self.takes / self.pieces)
        return super().publish_file(path)

    def missing_blobs(self, blobs: Iterable[BlobRef]) -> tuple[BlobRef, ...]:
        self.asked += 1
        if self.trouble:
            raise self.trouble.pop(0)
        there = [blob for blob in blobs if self.has(blob)]
        self.until.update({blob.sha256: self.clock.monotonic() + PIN_SECONDS for blob in there})
        return tuple(blob for blob in blobs if blob not in there)

    def has(self, blob: BlobRef) -> bool:
        return self.until.get(blob.sha256, 0.0) > self.clock.monotonic()

    def taking(self, *blobs: BlobRef) -> Callable[[], str]:
        """Submit a request that names these blobs."""

        def tell() -> str:
            lacking = [blob.sha256 for blob in blobs if not self.has(blob)]
            if lacking:
                raise Conflict("send them first", missing=lacking)
            return "stored"

        return tell


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    found = [tmp_path / name for name in "abc"]
    for path in found:
        path.write_text(path.name)
    return found


def test_what_was_sent_a_moment_ago_is_not_asked_for(clock: FakeClock, paths: list[Path]) -> None:
    host = ForgetfulHost(clock)
    assert issubclass(HostClient, RenewingPublisher)
    assert isinstance(host, RenewingPublisher)
    sending = UploadSession(host, clock)
    blobs = [sending.publish_file(path) for path in paths]
    assert sending.submit(host.taking(*blobs)) == "stored"
    assert (host.asked, len(host.sent)) == (0, 3)


def test_files_stay_while_others_are_sent_for_hours_and_each_is_sent_once(clock: FakeClock, paths: list[Path]) -> None:
    host = ForgetfulHost(clock, takes=2 * PIN_SECONDS)
    sending = UploadSession(host, clock)
    blobs = [sending.publish_bytes(b"code"), *(sending.publish_file(path) for path in paths)]
    assert sending.submit(host.taking(*blobs)) == "stored"
    assert host.sent == blobs


def test_what_the_host_lost_meanwhile_is_sent_again_before_it_is_told(clock: FakeClock, paths: list[Path]) -> None:
    host = ForgetfulHost(clock, takes=RENEW_SECONDS, pieces=1)
    sending = UploadSession(host, clock)
    blobs = [sending.publish_bytes(b"code"), sending.publish_file(paths[0])]
    host.until.clear()
    refused: list[str] = []

    def tell() -> str:
        try:
            return host.taking(*blobs)()
        except Conflict as error:
            refused.append(error.message)
            raise

    assert sending.submit(tell) == "stored"
    assert (refused, host.sent) == ([], blobs * 2)


def test_what_the_host_says_to_be_missing_is_sent_again_and_it_is_told_again(paths: list[Path]) -> None:
    # Without a way to ask: the context of a paglet.
    context = CountingContext()
    lost: list[str] = []

    def tell() -> str:
        if not lost:
            lost.append(second.sha256)
            raise Conflict("send them first", missing=lost)
        return "stored"

    sending = UploadSession(context)
    sending.publish_file(paths[0])
    second = sending.publish_file(paths[1])
    assert sending.submit(tell) == "stored"
    assert context.published == ["a", "b", "b"]


def test_a_host_that_keeps_nothing_is_told_some_times_only(clock: FakeClock, paths: list[Path]) -> None:
    host = ForgetfulHost(clock)
    sending = UploadSession(host, clock)
    blob = sending.publish_file(paths[0])
    told: list[int] = []

    def tell() -> str:
        told.append(1)
        raise Conflict("send them first", missing=[blob.sha256])

    with pytest.raises(Conflict, match="send them first"):
        sending.submit(tell)
    assert len(told) == len(host.sent) == SUBMIT_ATTEMPTS + 1


class RememberingHost(ForgetfulHost):
    """A client that remembers what its host keeps."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.kept_blobs = KeptBlobs(clock)


def test_code_that_the_host_got_a_moment_ago_is_not_sent_to_it_again(clock: FakeClock) -> None:
    host = RememberingHost(clock)
    assert [UploadSession(host, clock).publish_bytes(b"code") for _ in range(3)] == host.sent * 3
    UploadSession(host, clock).publish_bytes(b"other")
    clock.advance(KEPT_SECONDS)
    UploadSession(host, clock).publish_bytes(b"code")
    assert [blob.size_bytes for blob in host.sent] == [4, 5, 4]


def test_code_that_the_host_has_lost_is_sent_to_it_again(clock: FakeClock) -> None:
    host = RememberingHost(clock)
    UploadSession(host, clock).publish_bytes(b"code")
    host.until.clear()
    sending = UploadSession(host, clock)
    blob = sending.publish_bytes(b"code")
    assert sending.submit(host.taking(blob)) == "stored"
    assert host.sent == [blob, blob]


def test_another_conflict_is_told_at_once(clock: FakeClock, paths: list[Path]) -> None:
    host = ForgetfulHost(clock)
    sending = UploadSession(host, clock)
    sending.publish_file(paths[0])

    def tell() -> str:
        raise Conflict("another group", missing=["0" * 64])

    with pytest.raises(Conflict, match="another group"):
        sending.submit(tell)
    assert len(host.sent) == 1


def test_a_file_that_is_another_by_now_is_not_sent_in_its_place(clock: FakeClock, paths: list[Path]) -> None:
    host = ForgetfulHost(clock)
    sending = UploadSession(host, clock)
    blob = sending.publish_file(paths[0])
    host.until.clear()
    paths[0].write_text("another")
    with pytest.raises(FileChanged):
        sending.submit(host.taking(blob))


def test_a_host_that_does_not_answer_for_a_moment_stops_no_file_on_its_way(clock: FakeClock, paths: list[Path]) -> None:
    host = ForgetfulHost(clock, takes=RENEW_SECONDS * 3)
    host.trouble.append(Unreachable("a moment"))
    sending = UploadSession(host, clock)
    blobs = [sending.publish_file(path) for path in paths]
    assert host.trouble == []
    assert sending.submit(host.taking(*blobs)) == "stored"
