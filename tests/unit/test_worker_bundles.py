"""Bundles from other hosts: unpacked once, and only if all of a bundle is valid."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from code_rig import ROOT, run_python
from hypothesis import given, settings
from hypothesis import strategies as st

from paglets.codec.bundle import MAX_BUNDLE_FILES, zipped
from paglets.core.errors import ImportFailed
from paglets.core.refs import BlobRef
from paglets.worker.child.bundle_cache import MAX_PACKED_BYTES, MAX_UNPACKED_BYTES, read_bundle, unpack_once
from paglets.worker.protocol import GoCode

SOURCES = {"job.py": b"x = 1\n", "pkg/__init__.py": b"", "pkg/deep/leaf.py": b"y = 2\n"}


def blob_of(data: bytes) -> BlobRef:
    return BlobRef(sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))


def code_of(folder: Path, data: bytes, *, said: bytes | None = None) -> GoCode:
    """Return the bundle `data` under the hash of `said`."""
    path = folder / "blob"
    path.write_bytes(data)
    return GoCode(bundle=blob_of(data if said is None else said), path=str(path), folder=str(folder / "code"))


def left_in(folder: Path) -> list[str]:
    place = folder / "code"
    return sorted(os.listdir(place)) if place.exists() else []


# Valid bundles.


def test_a_bundle_is_unpacked_into_a_folder_of_its_hash_for_its_user_alone(tmp_path: Path) -> None:
    code = code_of(tmp_path, zipped(SOURCES))

    folder = Path(unpack_once(code))

    assert folder == tmp_path / "code" / code.bundle.sha256
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    assert {name: path.read_bytes() for name, path in files.items()} == SOURCES
    assert {stat.S_IMODE(path.stat().st_mode) for path in files.values()} == {0o600}
    folders = [folder, folder / "pkg", folder / "pkg" / "deep"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in folders} == {0o700}
    assert left_in(tmp_path) == [code.bundle.sha256]


def test_the_second_use_reads_nothing(tmp_path: Path) -> None:
    code = code_of(tmp_path, zipped(SOURCES))
    folder = unpack_once(code)
    Path(code.path).unlink()
    assert unpack_once(code) == folder


def test_a_deflated_bundle_is_read_as_well() -> None:
    assert read_bundle(archive_of(SOURCES, zipfile.ZIP_DEFLATED)) == SOURCES


def test_what_an_earlier_process_left_half_done_is_not_used(tmp_path: Path) -> None:
    code = code_of(tmp_path, zipped(SOURCES))
    half = tmp_path / "code" / f".{code.bundle.sha256[:8]}-left"
    half.mkdir(parents=True)
    (half / "job.py").write_bytes(b"x = ")
    assert (Path(unpack_once(code)) / "job.py").read_bytes() == SOURCES["job.py"]


UNPACK = """
import sys
from paglets.core.refs import BlobRef
from paglets.worker.child.bundle_cache import unpack_once
from paglets.worker.protocol import GoCode
sha256, size, path, folder = sys.argv[1:]
code = GoCode(bundle=BlobRef(sha256=sha256, size_bytes=int(size)), path=path, folder=folder)
print("ready", flush=True)
sys.stdin.readline()
print(unpack_once(code))
"""


def test_forty_processes_at_once_leave_one_folder_and_no_error(tmp_path: Path) -> None:
    code = code_of(tmp_path, zipped({f"pkg/m{number}.py": b"#" * 1000 for number in range(100)}))
    words = [code.bundle.sha256, str(code.bundle.size_bytes), code.path, code.folder]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", UNPACK, *words],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(40)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    with ThreadPoolExecutor(40) as pool:
        ends = list(pool.map(lambda process: process.communicate("go\n", timeout=60), processes))

    assert {out.strip() for out, _ in ends} == {str(tmp_path / "code" / code.bundle.sha256)}, [e for _, e in ends if e]
    assert left_in(tmp_path) == [code.bundle.sha256]
    assert len(list((tmp_path / "code" / code.bundle.sha256 / "pkg").iterdir())) == 100


# Invalid bundles.


def archive_of(files: dict[str, bytes], method: int = zipfile.ZIP_STORED, **fields: object) -> bytes:
    """Return an archive whose entries have these `fields`."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.external_attr, entry.compress_type = 0o100600 << 16, method
            for field, value in fields.items():
                setattr(entry, field, value)
            archive.writestr(entry, data)
    return out.getvalue()


def twice(name: str, other: str) -> bytes:
    """Return an archive with `name` and `other`, which have the same length."""
    stand_in = "z" * (len(name) - 3) + ".py"
    return archive_of({name: b"1", stand_in: b"2"}).replace(stand_in.encode(), other.encode())


def flagged(flag: int) -> bytes:
    """Return an archive whose only entry has that flag in both headers."""
    data = bytearray(archive_of({"a.py": b"1"}))
    data[6:8] = struct.pack("<H", flag)
    place = data.index(b"PK\x01\x02") + 8
    data[place : place + 2] = struct.pack("<H", flag)
    return bytes(data)


def with_size(size: int) -> bytes:
    """Return an archive whose directory has a wrong size for its only entry."""
    data = bytearray(archive_of({"a.py": b"1" * 10}))
    place = data.index(b"PK\x01\x02") + 24
    data[place : place + 4] = struct.pack("<I", size)
    return bytes(data)


def many() -> bytes:
    return archive_of({f"m{number}.py": b"" for number in range(MAX_BUNDLE_FILES + 1)})


def overlapping() -> bytes:
    """Return an archive with two directory entries for the same bytes."""
    data = archive_of({"a.py": b"1"})
    start, end = data.index(b"PK\x01\x02"), data.index(b"PK\x05\x06")
    entry = data[start:end]
    tail = bytearray(data[end:])
    tail[8:12] = struct.pack("<HH", 2, 2)
    tail[12:16] = struct.pack("<I", 2 * len(entry))
    return data[:start] + entry + entry + bytes(tail)


BAD: dict[str, Callable[[], bytes]] = {
    "slip": lambda: archive_of({"../job.py": b""}),
    "slip within": lambda: archive_of({"pkg/../../job.py": b""}),
    "absolute": lambda: archive_of({"/tmp/job.py": b""}),
    "drive": lambda: archive_of({"C:/job.py": b""}),
    "backslash": lambda: archive_of({"pkg\\job.py": b""}),
    "folder": lambda: archive_of({"pkg/": b""}),
    "no module": lambda: archive_of({"not-a-name.py": b""}),
    "number": lambda: archive_of({"1st.py": b""}),
    "hidden": lambda: archive_of({".py": b""}),
    "compiled": lambda: archive_of({"job.pyc": b""}),
    "extension": lambda: archive_of({"job.so": b""}),
    "hook": lambda: archive_of({"site.pth": b"import os"}),
    "no suffix": lambda: archive_of({"job": b""}),
    "two suffixes": lambda: archive_of({"job.tar.py": b""}),
    "empty part": lambda: archive_of({"pkg//job.py": b""}),
    "space": lambda: archive_of({"job.py ": b""}),
    "control": lambda: archive_of({"jo\nb.py": b""}),
    "nul": lambda: archive_of({"jobX.py": b""}).replace(b"jobX.py", b"job\0.py"),
    "long": lambda: archive_of({f"{'x' * 600}.py": b""}),
    "symbolic link": lambda: archive_of({"job.py": b"/etc/passwd"}, external_attr=0o120777 << 16),
    "device": lambda: archive_of({"job.py": b""}, external_attr=0o020666 << 16),
    "pipe": lambda: archive_of({"job.py": b""}, external_attr=0o010666 << 16),
    "folder by mode": lambda: archive_of({"job.py": b""}, external_attr=0o040755 << 16),
    "twice": lambda: twice("job.py", "job.py"),
    "case": lambda: twice("job.py", "JOB.py"),
    "case of a folder": lambda: twice("pk/a.py", "PK/b.py"),
    "overlapping": overlapping,
    "encrypted": lambda: flagged(0x1),
    "patched": lambda: flagged(0x20),
    "strongly encrypted": lambda: flagged(0x41),
    "hidden directory": lambda: flagged(0x2000),
    "bzip2": lambda: archive_of({"job.py": b"1" * 100}, zipfile.ZIP_BZIP2),
    "lzma": lambda: archive_of({"job.py": b"1" * 100}, zipfile.ZIP_LZMA),
    "bomb": lambda: archive_of({"job.py": bytes(MAX_UNPACKED_BYTES // 2)}, zipfile.ZIP_DEFLATED),
    "too large": lambda: archive_of({f"m{n}.py": b"#" * (MAX_UNPACKED_BYTES // 3) for n in range(4)}),
    "too many": many,
    "larger than said": lambda: with_size(5),
    "smaller than said": lambda: with_size(15),
    "far smaller than said": lambda: with_size((1 << 32) - 2),
    "empty": lambda: archive_of({}),
    "nothing": lambda: b"",
    "no archive": lambda: b"import os\n" * 10,
    "cut": lambda: zipped(SOURCES)[:-5],
    "begins late": lambda: zipped(SOURCES)[20:],
    "comment": lambda: zipped(SOURCES)[:-2] + b"\x03\x00abc",
    "damaged": lambda: zipped(SOURCES).replace(b"x = 1", b"x = 2"),
    "long end": lambda: _with_long_end(),
}


def _with_long_end() -> bytes:
    data = zipped(SOURCES)
    return data[:-22] + b"PK\x06\x07" + bytes(16) + data[-22:]


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_bundle_is_refused_before_any_file_is_visible(kind: str, tmp_path: Path) -> None:
    data = BAD[kind]()
    with pytest.raises(ImportFailed) as failure:
        unpack_once(code_of(tmp_path, data))
    assert failure.value.message.isprintable()
    assert left_in(tmp_path) == []
    assert not (tmp_path / "job.py").exists()


@pytest.mark.parametrize("said", [b"other", b"", zipped(SOURCES) + b"x", zipped(SOURCES)[:-1]])
def test_bytes_that_are_not_those_of_the_name_are_refused(said: bytes, tmp_path: Path) -> None:
    with pytest.raises(ImportFailed, match="do not match its hash"):
        unpack_once(code_of(tmp_path, zipped(SOURCES), said=said))
    assert left_in(tmp_path) == []


def test_a_bundle_that_is_said_to_be_huge_is_not_read(tmp_path: Path) -> None:
    code = GoCode(
        bundle=BlobRef(sha256="0" * 64, size_bytes=MAX_PACKED_BYTES + 1), path="/dev/zero", folder=str(tmp_path)
    )
    with pytest.raises(ImportFailed, match="is over the limit of"):
        unpack_once(code)


def test_a_bundle_that_is_gone_or_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    code = code_of(tmp_path, zipped(SOURCES))
    (tmp_path / "code").write_text("in the way")
    with pytest.raises(ImportFailed, match="code"):
        unpack_once(code)
    Path(code.path).unlink()
    with pytest.raises(ImportFailed, match="No such file"):
        unpack_once(code)


@settings(max_examples=300)
@given(st.data())
def test_a_bundle_with_any_bytes_changed_is_read_or_refused_and_nothing_else(draw: st.DataObject) -> None:
    data = bytearray(archive_of(SOURCES, draw.draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))))
    for _ in range(draw.draw(st.integers(1, 6))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    try:
        found = read_bundle(bytes(data))
    except (ValueError, zipfile.BadZipFile, NotImplementedError, EOFError, RuntimeError, OSError, zipfile.zlib.error):
        return
    assert all(name.endswith(".py") and ".." not in name and name[0] != "/" for name in found)


def test_unpacked_code_is_imported_from_there(tmp_path: Path) -> None:
    folder = unpack_once(code_of(tmp_path, zipped(SOURCES)))
    done = run_python(
        "-c", "import job, pkg.deep.leaf as leaf; print(job.x, leaf.y)", folder=tmp_path, PYTHONPATH=folder
    )
    assert done.stdout == "1 2\n", done.stderr


@pytest.mark.parametrize("passes", [True, False])
def test_a_folder_that_is_closed_passes_and_a_bundle_that_is_gone_does_not(tmp_path: Path, passes: bool) -> None:
    code = code_of(tmp_path, zipped(SOURCES))
    if passes:
        (tmp_path / "code").write_text("in the way")
    else:
        Path(code.path).unlink()
    with pytest.raises(ImportFailed, match="cannot be unpacked") as failed:
        unpack_once(code)
    assert bool(failed.value.details.get("passes")) is passes
