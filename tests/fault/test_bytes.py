"""Large files whose receiver is killed during a transfer: whole at the end, resumed, in little memory."""

from __future__ import annotations

import hashlib
import math
import os
import signal
import threading
from contextlib import suppress
from pathlib import Path

import psutil

from paglets.api.limits import MAX_PIECE_BYTES
from paglets.artifacts import ArtifactRef
from paglets.core.failpoints import VARIABLE
from tests.acceptance.rig import HostProcess, Mesh

SCRIPTS = Path(__file__).parent.parent / "acceptance" / "scripts"
SIZE_BYTES = int(os.environ.get("PAGLETS_TEST_ARTIFACT_BYTES", 200 << 20))
"""The size of the large artifact. The environment may ask for more than every run has time for."""

MOST_SECONDS = 300.0
"""The time limit for this many bytes, from one step to the next, on a disk that others use too."""

MOST_MEMORY_BYTES = 120 << 20
"""The limit of resident memory of each process of the mesh. It is much less than the file."""


class Memory:
    """A sampler of the memory of a mesh's processes. `most` is the largest value seen."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.most: dict[str, int] = {}

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.1):
            for process in self._mesh.processes():
                with suppress(psutil.Error):
                    words = process.cmdline()
                    name = " ".join(words[2:5])
                    self.most[name] = max(self.most.get(name, 0), process.memory_info().rss)


class Partials:
    """A sampler of a host's partial blobs, including code. None may shrink, and each stays the same file."""

    def __init__(self, host: HostProcess) -> None:
        self._folder = host.data / "blobs" / "incoming"
        self.inodes: dict[str, int] = {}
        self._sizes: dict[str, int] = {}

    def largest(self) -> int:
        """Return its current size, or the last one seen if it is gone."""
        for path in self._folder.glob("*"):
            with suppress(FileNotFoundError):
                found = path.stat()
                known = self._sizes.get(path.name, 0)
                assert found.st_size >= known, f"it began again: {found.st_size} after {known}"
                assert self.inodes.setdefault(path.name, found.st_ino) == found.st_ino
                self._sizes[path.name] = found.st_size
        return max(self._sizes.values(), default=0)


def dies_after(share: float) -> dict[str, str]:
    """Return an environment in which a host dies after it took the code and this much of the artifact."""
    return {VARIABLE: f"mid-artifact:kill@{math.ceil(share * SIZE_BYTES / MAX_PIECE_BYTES) + 1}"}


def test_a_large_artifact_whose_receiver_is_killed_twice_is_whole_and_was_resumed(mesh: Mesh, tmp_path: Path) -> None:
    common = ("--cpu-cores", 2)
    laptop = mesh.start("laptop", *common)
    mesh.start("linux-a", *common, "--peer", laptop.url, "--tag", "linux")
    keeper = mesh.host("keeper", *common, "--peer", laptop.url)
    keeper.spawn(**dies_after(0.2))
    keeper.wait_ready()
    mesh.wait_joined()
    with Memory(mesh) as memory:
        done = mesh.script(SCRIPTS / "large.py", SIZE_BYTES, "keeper", PAGLETS_AT="laptop", PYTHONPATH=mesh.archive)
        group_id = done.out.strip()
        partials = Partials(keeper)
        for least, lives in ((0.2, dies_after(0.4)), (0.6, {})):
            assert keeper.wait_ended(MOST_SECONDS) == -signal.SIGKILL
            assert least * SIZE_BYTES <= partials.largest() < SIZE_BYTES
            keeper.restart(**lives)
        summary = laptop.client.call(laptop.client.group(group_id).collector, "drain", timeout_seconds=MOST_SECONDS)
        (record,) = summary["results"].values()
        ref = ArtifactRef.from_wire(record["result"]["artifact"])
        assert ref.sha256 == record["result"]["sha256"]
        assert summary["duplicate_reports"] == []
        (whole,) = keeper.data.glob(f"blobs/??/{ref.sha256}")
        assert whole.stat().st_ino == partials.inodes[ref.sha256], "it was not the partial file that became whole"
        got = laptop.client.download_artifact(ref, tmp_path / "large.bin")
    with got.open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == ref.sha256
    print("most memory", {name: f"{size >> 20} MiB" for name, size in sorted(memory.most.items())})
    assert max(memory.most.values()) < MOST_MEMORY_BYTES
    worker = mesh["linux-a"]
    assert not list((worker.data / "work").glob("*/large.bin")), "move=True left a copy"
