"""Paglets with files, for tests with real processes."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from worker_paglets import Plain

from paglets.core.errors import PagletsError
from paglets.core.messages import Message
from paglets.core.refs import ArtifactRef
from paglets.system.jobs import CollectingComputeJobPaglet, CollectingComputeJobState


def told(act: Callable[[], Any]) -> str:
    """Call a function and return its result or error as one line."""
    try:
        return f"{act()}"
    except PagletsError as error:
        return f"{type(error).__name__}: {error.message}"


class Registers(Plain):
    """A paglet that writes a file into its scratch directory and registers it."""

    def on_creation(self) -> None:
        Path("result.db").write_bytes(b"as it was")
        self.register_file("result.db", mode="move")
        self.state.words = [str(self.file_path("result.db")), told(lambda: self.file_path("other.db"))]

    def on_dispatching(self) -> None:
        if self.state.secret is not None:
            self.file_path("result.db").write_bytes(self.state.secret)

    def run(self) -> None:
        self.on_creation()
        self.register_file("result.db", name="again.db")


class RegistersAll(Plain):
    """A paglet that registers each (path, name, mode) of `secret` and notes the results."""

    def on_creation(self) -> None:
        self.state.words = [told(lambda each=each: self.register_file(*each).mode) for each in self.state.secret]


class Removes(Plain):
    def on_dispatching(self) -> None:
        self.file_path(self.state.path).unlink()


class WritesOn(Plain):
    """A paglet that overwrites a file with as many bytes right after it is registered."""

    def on_dispatching(self) -> None:
        Path("log").write_text("a")
        self.register_file("log")
        Path("log").write_text("b")
        odd = os.fsdecode(b"\xff.txt")
        Path(odd).write_text("x")
        self.state.words = [told(lambda: self.register_file(odd)), told(lambda: self.register_file(odd, "odd.txt"))]


class Looks(Plain):
    """A paglet that lists its scratch directory before its own code has run there."""

    def on_arrival(self) -> None:
        self.state.words = sorted(f"{name}={Path(name).read_text()}" for name in os.listdir())
        self.state.secret = str(self.file_path("data.txt"))

    def on_dispatching(self) -> None:
        self.on_arrival()


class RegistersInHandlers(Plain):
    def handle_message(self, message: Message) -> Any:
        if message.kind == "register":
            Path("a.txt").write_text(message["text"])
            self.register_file("a.txt")
            if message.get("fail"):
                raise ValueError("told to fail")
        if message.kind == "artifacts":
            return [artifact.to_wire() for artifact in message.artifacts]
        return told(lambda: self.file_path("a.txt"))


class Uploads(Plain):
    def on_creation(self) -> None:
        for path, name, move, seconds in self.state.secret:
            self.state.words.append(
                told(lambda at=path, to=name, go=move, end=seconds: self.upload_artifact(at, to, go, end).to_wire())
            )


class FillsUp(Plain):
    """A paglet whose files are limited to 1,000 bytes."""

    def on_creation(self) -> None:
        Path("big").write_bytes(b"x" * 2000)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        self.state.words = [
            told(lambda: self.upload_artifact("big")),
            told(lambda: self.context.publish_bytes(b"x" * 2000)),
        ]


class Downloads(Plain):
    def on_creation(self) -> None:
        os.mkdir("folder")
        Path("there").write_text("old")
        wanted = "art-" + "0" * 8
        self.state.words = [
            told(lambda: self.download_artifact(wanted, "there", replace=True)),
            told(lambda: self.download_artifact(wanted, "folder", move=True)),
            told(lambda: self.download_artifact(wanted, "missing/there")),
            told(lambda: self.download_artifact("../up", "there")),
            Path("there").read_text(),
            ",".join(sorted(os.listdir())),
        ]


class DownloadsAgain(Plain):
    """A paglet that downloads an artifact over a different file of the same name."""

    def on_creation(self) -> None:
        first, other = (ArtifactRef.from_wire(wire) for wire in self.state.secret)
        self.state.words = [
            told(lambda: self.download_artifact(first, "made/", move=True)),
            told(lambda: self.download_artifact(other, "made/", move=True)),
            told(lambda: self.download_artifact(first.artifact_id, "made", move=True)),
            told(lambda: self.download_artifact(first, "made/data.txt")),
            Path("made/data.txt").read_text(),
            ",".join(os.listdir("made")),
        ]


class Sends(Plain):
    """A paglet that sends artifacts in a hook and in `run`."""

    def on_creation(self) -> None:
        for name in ("copied", "moved"):
            Path(name).write_text(name)
            ref = self.send_artifact(self.ref, name, Message("take", {"x": 1}), f"{name}.txt", name == "moved")
            self.state.words.append(ref.artifact_id)
        self.state.words.append(f"moved is here: {Path('moved').exists()}")

    def run(self) -> None:
        self.on_creation()

    def on_arrival(self) -> None:
        self.on_creation()
        with Path("moved").open("a"):
            raise ValueError("never comes so far")

    def handle_message(self, message: Message) -> Any:
        self.post(self.ref, message)
        self.state.words.append(told(lambda: self.call(self.ref, message)))


@dataclass
class FileJobState(CollectingComputeJobState):
    result: Any = None
    name: str | None = None
    move: bool = False
    path: str = "out.db"
    words: list[str] = field(default_factory=list)


class FileJob(CollectingComputeJobPaglet[FileJobState]):
    """A job that reports a file twice."""

    State = FileJobState

    def run_compute_job(self) -> None:
        Path("out.db").write_bytes(b"rows")
        os.chmod("out.db", 0o644)
        os.utime("out.db", (1, 1))
        for _ in range(2):
            try:
                heard = str(
                    self.report_compute_artifact(
                        self.state.path, result=self.found(), name=self.state.name, move=self.state.move
                    )
                )
            except PagletsError as error:
                heard = f"{type(error).__name__}: {error.message}"
            self.note(heard)
        self.checkpoint()

    def found(self) -> Any:
        return self.state.result

    def note(self, heard: str) -> None:
        there = os.path.exists("out.db")
        rights = f"{os.stat('out.db').st_mode & 0o777:o}, {os.stat('out.db').st_nlink}" if there else "gone"
        self.state.words += [heard, rights]

    def build_result_payload(self) -> dict[str, Any]:
        print("the payload was built", file=sys.stderr)
        return {"built": True}


class OddResult(FileJob):
    def found(self) -> Any:
        return {"it": object()}


class ShareFile(FileJob):
    """A job that moves a file with a second hard link."""

    def run_compute_job(self) -> None:
        Path("first.db").write_bytes(b"rows")
        os.link("first.db", "second.db")
        self.state.words = [
            told(lambda: self.report_compute_artifact("second.db", move=True)),
            ",".join(sorted(os.listdir())),
        ]
        self.checkpoint()
