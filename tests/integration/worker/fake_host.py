"""A minimal host for a launcher: it sends `go`, answers requests, and records all events."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from paglets.api.slots import Usage
from paglets.core.errors import PagletsError
from paglets.core.record import from_json, to_json
from paglets.core.refs import ArtifactRef, BlobRef, FileRef, HostRef, ProxyRef
from paglets.worker import logs
from paglets.worker.host.heartbeat import HeartbeatTimeouts
from paglets.worker.host.launcher import ZygoteLauncher
from paglets.worker.host.zygote_link import ZygoteSettings
from paglets.worker.launch import LaunchSpec, ProcessExit, TemplateSource
from paglets.worker.protocol import OPERATIONS, Deliver, Go, GoCode, GoFile, Stamp
from tests.fakes.waiting import wait_until

ROOT = Path(__file__).resolve().parents[3]
COMMAND = (sys.executable, "-c", "import sys; from paglets.worker.zygote.main import main; sys.exit(main([]))")
PATIENT = "import sys; from paglets.worker.zygote.main import main; sys.exit(main([], grace_seconds={}))"
PATIENCE_SECONDS = 60.0
"""Time limit for the work of a process. No test is about its speed, and this machine may be busy."""

HOST = HostRef(store_id="store-1", name="here", url="http://127.0.0.1:1")

Answer = Callable[[Any], Any]


def patient_command(grace_seconds: float) -> tuple[str, ...]:
    """Return the command of a zygote with that time between SIGTERM and SIGKILL."""
    return (sys.executable, "-c", PATIENT.format(grace_seconds))


def environment() -> dict[str, str]:
    paths = os.pathsep.join((str(ROOT), str(Path(__file__).parent)))
    return {"PATH": os.environ["PATH"], "PYTHONPATH": paths}


@dataclass
class Told:
    """The recorded events of one run."""

    spec: LaunchSpec
    go: Go
    pid: int | None = None
    start_time: float = 0.0
    asked: list[tuple[str, Any]] = field(default_factory=list)
    usages: list[Usage] = field(default_factory=list)
    ended: ProcessExit | None = None
    order: list[str] = field(default_factory=list)

    def all(self, operation: str) -> list[Any]:
        return [args for name, args in list(self.asked) if name == operation]

    @property
    def done(self) -> Any:
        (done,) = self.all("done")
        return done


class FakeTemplates:
    """The events of templates. `pids`: those that were started, by token. `is_slow`: True to allow no import."""

    def __init__(self) -> None:
        self.pids: dict[str, int] = {}
        self.ended_tokens: list[str] = []
        self.is_slow = False
        self.allow_import: Callable[[str], None] = lambda token: None

    def started(self, token: str, pid: int, start_time: float) -> None:
        assert start_time > 0
        self.pids[token] = pid
        if not self.is_slow:
            self.allow_import(token)

    def ended(self, token: str) -> None:
        self.ended_tokens.append(token)


class FakeHost:
    """A host that implements `launch.LaunchEvents`. `answers`: replies by operation; the default is None."""

    def __init__(
        self,
        folder: Path,
        command: tuple[str, ...] = COMMAND,
        *,
        heartbeat: HeartbeatTimeouts | None = None,
        zygote_log: str | None = None,
        **options: Any,
    ) -> None:
        self.folder = folder
        self.runs: dict[str, Told] = {}
        self.staging, self.blobs = folder / "staging", folder / "blobs"
        self.answers: dict[str, Answer] = {
            "report": lambda args: {"accepted": True},
            "reserve_space": lambda args: {"folder": str(self.staging)},
            "publish": self.publish,
        }
        for each in (self.staging, self.blobs):
            each.mkdir()
        self.paused = False
        self.blocked_reasons: list[str] = []
        zygote = ZygoteSettings(
            command=command,
            environment=environment(),
            log_path=zygote_log,
            heartbeat=heartbeat or HeartbeatTimeouts(),
        )
        self.templates = FakeTemplates()
        self.launcher = ZygoteLauncher(zygote, self, **options)
        self.templates.allow_import = self.launcher.allow_import

    def publish(self, args: Any) -> None:
        """Check the bytes of a staged file and rename it to its blob, as a host does."""
        staged = self.staging / args.staged
        assert hashlib.sha256(staged.read_bytes()).hexdigest() == args.blob.sha256
        assert staged.stat().st_size == args.blob.size_bytes
        staged.replace(self.blobs / args.blob.sha256)

    def bytes_of(self, blob: BlobRef) -> bytes:
        return (self.blobs / blob.sha256).read_bytes()

    def file(self, name: str, data: bytes, **more: Any) -> GoFile:
        """Return a file that comes with a paglet."""
        sha256 = hashlib.sha256(data).hexdigest()
        path = self.blobs / sha256
        if not path.exists():  # A running process may read the blob now.
            path.write_bytes(data)
        return GoFile(file=FileRef(name=name, sha256=sha256, size_bytes=len(data)), path=str(path), **more)

    def start(
        self,
        cls: type | str,
        entry: str = "attempt",
        *,
        alone: bool = False,
        from_template: bool = False,
        files: tuple[GoFile, ...] = (),
        code: GoCode | None = None,
        collector: ProxyRef | None = None,
        work_dir: str | None = None,
        kind: str = "job",
        **state: Any,
    ) -> Told:
        """Start a process for a paglet of class `cls`; in a scratch directory of its own, or of an earlier one."""
        number = len(self.runs) + 1
        token = uuid4().hex  # unique, so that other tests do not find these processes
        name = cls if isinstance(cls, str) else f"{cls.__module__}:{cls.__qualname__}"
        if work_dir is None:
            work_dir = str(self.folder / f"work-{number}")
            os.mkdir(work_dir)
        spec = LaunchSpec(
            token=token,
            agent_id=f"job-{number}",
            attempt=2,
            work_dir=work_dir,
            stdout_path=str(self.folder / f"{number}.out"),
            stderr_path=str(self.folder / f"{number}.err"),
            environment={"X": "set"},
            alone=alone,
            threads=2,
            template=TemplateSource(module=name.partition(":")[0], code=code) if from_template and code else None,
        )
        stamp = Stamp(agent_id=spec.agent_id, epoch=3, generation=1, attempt=2, token=token)
        go = Go(
            stamp=stamp,
            class_name=name,
            kind=kind,
            entry=entry,  # type: ignore[arg-type]
            state=state,
            system={"home_host_name": "laptop", "unknown_field": 1},
            host=HOST,
            files=files,
            code=code,
            collector=collector,
            work_dir=work_dir,
        )
        return self.launch(Told(spec=spec, go=go))

    def launch(self, told: Told) -> Told:
        self.runs[told.spec.token] = told
        self.launcher.start(told.spec)
        return told

    def deliver(
        self,
        told: Told,
        message_id: str,
        kind: str,
        *,
        is_call: bool = True,
        waited: float = 0.0,
        artifacts: tuple[ArtifactRef, ...] = (),
        **args: Any,
    ) -> None:
        message = {"kind": kind, "args": args, "sender": None, "artifacts": to_json(artifacts)}
        wait_until(lambda: told.pid, timeout_seconds=PATIENCE_SECONDS, what="its go")
        tree = {"message_id": message_id, "message": message, "is_call": is_call, "waited_seconds": waited}
        self.launcher.send(told.spec.token, {"deliver": to_json(from_json(Deliver, tree))})

    def handled(self, told: Told, message_id: str) -> Any:
        """Wait for the result of the handler of a message."""
        return wait_until(
            lambda: next((args for args in told.all("handled") if args.message_id == message_id), None),
            timeout_seconds=PATIENCE_SECONDS,
            what=f"handled {message_id}",
        )

    def finish(self, told: Told) -> ProcessExit:
        wait_until(lambda: told.pid, timeout_seconds=PATIENCE_SECONDS, what="its go")
        self.launcher.send(told.spec.token, {"finish": True})
        return self.wait(told)

    def wait(self, told: Told) -> ProcessExit:
        what = f"the end of {told.go.class_name}"
        return wait_until(lambda: told.ended, timeout_seconds=PATIENCE_SECONDS, what=what)

    def wait_for_log(self, told: Told, text: str) -> None:
        """Wait until that text is in the log of stderr."""
        wait_until(
            lambda: text.encode() in logs.read(told.spec.stderr_path, 0, 1 << 20).data,
            timeout_seconds=PATIENCE_SECONDS,
            what=f"{text!r} in the log",
        )

    def close(self) -> None:
        self.launcher.close()
        assert self.launcher.wait_closed(PATIENCE_SECONDS), "the launcher did not close"

    # Events.

    def started(self, token: str, pid: int, start_time: float) -> None:
        told = self.runs[token]
        told.order.append("started")
        if not self.paused:
            self.launcher.send(token, {"go": to_json(told.go)})
        told.pid, told.start_time = pid, start_time

    def frame(self, token: str, frame: dict[str, Any]) -> None:
        told = self.runs[token]
        told.order.append("frame")
        args = from_json(OPERATIONS[frame["op"]], frame["args"])
        assert from_json(Stamp, frame["stamp"]) == told.go.stamp
        try:
            reply: dict[str, Any] = {"ok": self.answers.get(frame["op"], lambda args: None)(args)}
        except PagletsError as error:
            reply = {"error": error.to_wire()}
        if "id" in frame:
            self.launcher.send(token, {"reply": frame["id"], **reply})
        told.asked.append((frame["op"], args))

    def sampled(self, token: str, usage: Usage) -> None:
        self.runs[token].usages.append(usage)

    def start_blocked(self, text: str) -> None:
        self.blocked_reasons.append(text)

    def ended(self, token: str, ended: ProcessExit) -> None:
        told = self.runs[token]
        assert told.ended is None
        told.order.append("ended")
        told.ended = ended
