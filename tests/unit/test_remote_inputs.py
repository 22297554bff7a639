"""Files that paglets and jobs begin with."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from paglets.core.errors import Invalid
from paglets.core.refs import BlobRef
from paglets.remote.inputs import InputPaths, check_inputs, publish_inputs
from paglets.testing.authors import FakeContext


class CountingContext(FakeContext):
    """Says which files were published, in order."""

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
