"""The contract of `Blobs`, tested on a real disk and in memory."""

from __future__ import annotations

import hashlib
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paglets.artifacts.folder import BlobFolder
from paglets.core.errors import Conflict, FileChanged, Invalid, Unknown
from paglets.core.refs import BlobRef
from paglets.host.runtime.services import Blobs
from tests.fakes.blobs import MemoryBlobs, MemoryDisk
from tests.fakes.logs import logger_to

NOWHERE = "ab" * 32


class Rig(Protocol):
    """A disk and the operations of processes on it."""

    def start(self) -> Blobs:
        """Return the blobs as a restarted host sees them."""
        ...

    def stage(self, name: str, data: bytes) -> None: ...

    def unpack(self, sha256: str) -> None: ...

    def damage(self, sha256: str, left: bytes) -> None:
        """Replace the content of a complete blob."""
        ...


class FolderRig:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def start(self) -> Blobs:
        return BlobFolder(self.folder, logger_to(print))

    def stage(self, name: str, data: bytes) -> None:
        (self.folder / "blobs" / "staging" / name).write_bytes(data)

    def unpack(self, sha256: str) -> None:
        (self.folder / "code" / sha256 / "package").mkdir(parents=True)
        (self.folder / "code" / sha256 / "package" / "module.py").touch()

    def damage(self, sha256: str, left: bytes) -> None:
        (self.folder / "blobs" / sha256[:2] / sha256).write_bytes(left)


class MemoryRig:
    def __init__(self) -> None:
        self.disk = MemoryDisk()

    def start(self) -> Blobs:
        return MemoryBlobs(self.disk)

    def stage(self, name: str, data: bytes) -> None:
        MemoryBlobs(self.disk).stage(name, data)

    def unpack(self, sha256: str) -> None:
        self.disk.code[sha256] = None

    def damage(self, sha256: str, left: bytes) -> None:
        self.disk.whole[sha256] = left


@contextmanager
def folder_rig() -> Iterator[Rig]:
    with tempfile.TemporaryDirectory() as folder:
        yield FolderRig(Path(folder))


@contextmanager
def memory_rig() -> Iterator[Rig]:
    yield MemoryRig()


RIGS = (folder_rig, memory_rig)
both = pytest.mark.parametrize("make_rig", RIGS)


@pytest.fixture(params=RIGS)
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    with request.param() as made:
        yield made


@pytest.fixture
def blobs(rig: Rig) -> Blobs:
    return rig.start()


def blob_of(data: bytes) -> BlobRef:
    return BlobRef(sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))


def test_a_blob_in_pieces_is_whole_once_it_is_finished(blobs: Blobs) -> None:
    blob = blob_of(b"one two three")
    assert blobs.append(blob.sha256, 0, b"one ") == 4
    assert blobs.append(blob.sha256, 4, b"two three") == 13
    assert (blobs.size(blob.sha256), blobs.partial(blob.sha256)) == (None, 13)

    blobs.finish(blob)

    assert (blobs.size(blob.sha256), blobs.partial(blob.sha256)) == (13, 0)
    assert blobs.read(blob.sha256, 0, 100) == b"one two three"


def test_any_part_of_a_whole_blob_can_be_read(blobs: Blobs) -> None:
    sha256 = blobs.put(b"0123456789").sha256
    assert blobs.read(sha256, 3, 4) == b"3456"
    assert blobs.read(sha256, 8, 4) == b"89"
    assert blobs.read(sha256, 10, 4) == blobs.read(sha256, 99, 4) == blobs.read(sha256, 0, 0) == b""
    for offset, length in ((-1, 4), (0, -1)):
        with pytest.raises(Invalid, match="negative"):
            blobs.read(sha256, offset, length)


def test_what_is_not_whole_cannot_be_read(blobs: Blobs) -> None:
    blobs.append(NOWHERE, 0, b"x")
    with pytest.raises(Unknown, match=NOWHERE):
        blobs.read(NOWHERE, 0, 1)


@pytest.mark.parametrize("offset", [0, 3, 5])
def test_a_piece_at_another_offset_is_told_the_right_one(blobs: Blobs, offset: int) -> None:
    blobs.append(NOWHERE, 0, b"four")
    with pytest.raises(Conflict) as refused:
        blobs.append(NOWHERE, offset, b"x")
    assert refused.value.details == {"offset": 4}
    assert blobs.partial(NOWHERE) == 4


def test_a_piece_of_a_whole_blob_is_told_that_all_is_there(blobs: Blobs) -> None:
    blob = blobs.put(b"whole")
    with pytest.raises(Conflict, match="already complete") as refused:
        blobs.append(blob.sha256, 0, b"whole")
    assert refused.value.details == {"offset": 5}


@pytest.mark.parametrize("came", [b"another", b"short", b"far too long"])
def test_other_bytes_than_the_name_says_are_dropped(blobs: Blobs, came: bytes) -> None:
    blob = blob_of(b"the one")
    blobs.append(blob.sha256, 0, came)

    with pytest.raises(FileChanged, match=blob.sha256):
        blobs.finish(blob)

    assert (blobs.size(blob.sha256), blobs.partial(blob.sha256)) == (None, 0)
    blobs.append(blob.sha256, 0, b"the one")
    blobs.finish(blob)
    assert blobs.read(blob.sha256, 0, 10) == b"the one"


def test_right_bytes_under_a_wrong_size_are_dropped(blobs: Blobs) -> None:
    blob = blob_of(b"the one")
    blobs.append(blob.sha256, 0, b"the one")
    with pytest.raises(FileChanged):
        blobs.finish(BlobRef(sha256=blob.sha256, size_bytes=8))
    assert (blobs.size(blob.sha256), blobs.partial(blob.sha256)) == (None, 0)


def test_an_empty_blob_is_a_blob(blobs: Blobs) -> None:
    empty = blob_of(b"")
    assert blobs.append(empty.sha256, 0, b"") == 0
    blobs.finish(empty)
    assert (blobs.size(empty.sha256), blobs.read(empty.sha256, 0, 5)) == (0, b"")


def test_no_bytes_under_another_name_are_no_blob(blobs: Blobs) -> None:
    blobs.append(NOWHERE, 0, b"")
    with pytest.raises(FileChanged):
        blobs.finish(BlobRef(sha256=NOWHERE, size_bytes=0))
    assert blobs.size(NOWHERE) is None


def test_finishing_again_changes_nothing(blobs: Blobs) -> None:
    blob = blobs.put(b"whole")
    blobs.finish(blob)
    assert blobs.read(blob.sha256, 0, 5) == b"whole"


def test_a_staged_file_becomes_whole_in_the_place_of_a_partial_one(rig: Rig, blobs: Blobs) -> None:
    blob = blob_of(b"made here")
    blobs.append(blob.sha256, 0, b"made")
    rig.stage("token.1", b"made here")

    blobs.adopt("token.1", blob)

    assert (blobs.size(blob.sha256), blobs.partial(blob.sha256)) == (9, 0)
    assert blobs.read(blob.sha256, 0, 9) == b"made here"
    with pytest.raises(Unknown, match=r"token\.1"):
        blobs.adopt("token.1", blob)


def test_a_blob_may_be_adopted_twice(rig: Rig, blobs: Blobs) -> None:
    for name in ("token.1", "token.2"):
        rig.stage(name, b"the same")
        blobs.adopt(name, blob_of(b"the same"))
    assert blobs.read(blob_of(b"the same").sha256, 0, 9) == b"the same"


def test_a_staged_file_of_another_size_is_refused(rig: Rig, blobs: Blobs) -> None:
    rig.stage("token.1", b"made here")
    with pytest.raises(Invalid, match="has 9 bytes"):
        blobs.adopt("token.1", blob_of(b"made"))
    assert blobs.size(blob_of(b"made").sha256) is None


@pytest.mark.parametrize("name", ["", ".", "..", "../incoming/x", "/etc/passwd", "a\\b", "c:d", "a\0b", "x" * 300])
def test_a_staged_name_with_a_way_in_it_is_refused(blobs: Blobs, name: str) -> None:
    with pytest.raises(Invalid):
        blobs.adopt(name, blob_of(b""))


@pytest.mark.parametrize("sha256", ["", "..", "../../x", "AB" * 32, "ab" * 31, "ab" * 32 + "\n", "ab" * 33])
def test_what_is_no_hash_names_nothing(blobs: Blobs, sha256: str) -> None:
    acts: tuple[Callable[[], object], ...] = (
        lambda: blobs.size(sha256),
        lambda: blobs.partial(sha256),
        lambda: blobs.append(sha256, 0, b"x"),
        lambda: blobs.finish(BlobRef(sha256=sha256, size_bytes=1)),
        lambda: blobs.adopt("staged", BlobRef(sha256=sha256, size_bytes=1)),
        lambda: blobs.read(sha256, 0, 1),
        lambda: blobs.remove(sha256),
        lambda: blobs.drop_partial(sha256),
        lambda: blobs.path(sha256),
        lambda: blobs.drop_code(sha256),
    )
    for act in acts:
        with pytest.raises(Invalid, match="not a SHA-256"):
            act()


def test_what_is_removed_or_dropped_is_gone_and_may_come_again(blobs: Blobs) -> None:
    blob = blobs.put(b"data")
    for _ in range(2):
        blobs.remove(blob.sha256)
        assert blobs.size(blob.sha256) is None
    blobs.append(blob.sha256, 0, b"da")
    for _ in range(2):
        blobs.drop_partial(blob.sha256)
        assert blobs.partial(blob.sha256) == 0
    blobs.append(blob.sha256, 0, b"data")
    blobs.finish(blob)
    assert blobs.size(blob.sha256) == 4


def test_a_whole_blob_is_right_until_its_bytes_are_others(rig: Rig, blobs: Blobs) -> None:
    blob = blobs.put(b"data")
    assert blobs.is_intact(blob)
    assert not blobs.is_intact(BlobRef(sha256=blob.sha256, size_bytes=3))
    assert not blobs.is_intact(BlobRef(sha256=NOWHERE, size_bytes=0))
    rig.damage(blob.sha256, b"dada")
    assert not blobs.is_intact(blob)
    blobs.remove(blob.sha256)
    assert not blobs.is_intact(blob)


def test_bytes_at_hand_take_the_place_of_a_cut_file(rig: Rig, blobs: Blobs) -> None:
    blob = blobs.put(b"data")
    rig.damage(blob.sha256, b"da")
    blobs.put(b"data")
    assert blobs.read(blob.sha256, 0, 9) == b"data"


def test_of_a_staged_file_it_is_known_how_much_is_there(rig: Rig, blobs: Blobs) -> None:
    assert blobs.staged("token.1") == 0
    rig.stage("token.1", b"staged")
    assert blobs.staged("token.1") == 6


def test_what_is_done_aside_is_done(blobs: Blobs) -> None:
    done = threading.Event()
    blobs.run_in_background(done.set)
    assert done.wait(60)


def test_all_that_is_left_is_named_once_in_order(rig: Rig, blobs: Blobs) -> None:
    whole = blobs.put(b"whole").sha256
    rig.unpack(whole)
    rig.unpack("cd" * 32)
    blobs.append(NOWHERE, 0, b"x")
    rig.stage("token.1", b"staged")
    assert blobs.all_hashes() == tuple(sorted([whole, "cd" * 32, NOWHERE]))

    blobs.drop_code("cd" * 32)
    blobs.drop_code("cd" * 32)
    blobs.drop_partial(NOWHERE)
    blobs.remove(whole)
    assert blobs.all_hashes() == (whole,)
    blobs.drop_code(whole)
    assert blobs.all_hashes() == ()


def test_staged_files_go_by_their_age(rig: Rig, blobs: Blobs) -> None:
    rig.stage("token.1", b"staged")
    blobs.drop_staged(3600)
    blobs.adopt("token.1", blob_of(b"staged"))
    rig.stage("token.2", b"staged")
    blobs.drop_staged(-60)
    with pytest.raises(Unknown):
        blobs.adopt("token.2", blob_of(b"staged"))


def test_there_is_room(blobs: Blobs) -> None:
    assert blobs.free() > 0


CONTENTS = (b"", b"a", b"abcdefgh" * 3, bytes(range(256)))
PARTS = ("append", "append", "append", "wrong offset", "wrong bytes", "finish", "drop", "remove", "restart")


@both
@settings(max_examples=60, deadline=None)
@given(
    acts=st.lists(
        st.tuples(st.sampled_from(PARTS), st.integers(0, len(CONTENTS) - 1), st.integers(0, 100)), max_size=30
    )
)
def test_whatever_comes_in_whatever_order_only_right_bytes_become_whole(
    make_rig: Callable[[], AbstractContextManager[Rig]], acts: list[tuple[str, int, int]]
) -> None:
    with make_rig() as rig:
        blobs = rig.start()
        partial = dict.fromkeys(CONTENTS, b"")
        whole: set[bytes] = set()
        for act, index, number in acts:
            data = CONTENTS[index]
            blob, came = blob_of(data), partial[data]
            if act in ("append", "wrong bytes"):
                piece = b"?" * number if act == "wrong bytes" else data[len(came) : len(came) + number]
                if data in whole:
                    with pytest.raises(Conflict):
                        blobs.append(blob.sha256, len(came), piece)
                else:
                    assert blobs.append(blob.sha256, len(came), piece) == len(came + piece)
                    partial[data] += piece
            elif act == "wrong offset":
                with pytest.raises(Conflict) as refused:
                    blobs.append(blob.sha256, len(came) + 1 + number + len(data), b"x")
                assert refused.value.details["offset"] == (len(data) if data in whole else len(came))
            elif act == "finish":
                if data in whole or came == data:
                    blobs.finish(blob)
                    whole.add(data)
                else:
                    with pytest.raises(FileChanged):
                        blobs.finish(blob)
                partial[data] = b""
            elif act == "drop":
                blobs.drop_partial(blob.sha256)
                partial[data] = b""
            elif act == "remove":
                blobs.remove(blob.sha256)
                whole.discard(data)
            else:
                blobs = rig.start()
            for each in CONTENTS:
                sha256 = blob_of(each).sha256
                assert blobs.size(sha256) == (len(each) if each in whole else None)
                assert blobs.partial(sha256) == len(partial[each])
                assert each not in whole or blobs.read(sha256, 0, 1000) == each
