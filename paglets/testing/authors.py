"""Fake contexts, with which unit tests of jobs and other paglets need no host."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paglets.api.groups import CreationError, GroupView, Obstacle, SubmitGroup
from paglets.client.proxy import PagletProxy
from paglets.codec.tagged_json import encode
from paglets.core.errors import NotHandled
from paglets.core.messages import Message, one_timeout, text_and_level
from paglets.core.record import from_json, to_json
from paglets.core.refs import BlobRef, HostRef, ProxyRef
from paglets.groups.keys import new_group_id
from paglets.worker.requests import new_note

if TYPE_CHECKING:
    # A base class of type Any makes type checkers accept a FakeContext as a Context.
    Incomplete: Any
else:
    Incomplete = object

HOST = HostRef(store_id="store-here", name="here", url="http://here:8765")


class FakeSender:
    """A `client.proxy.Sender` that answers calls with functions of the test.

    `answers`: the functions, by kind of message. `sent`: the calls, each as (agent_id, message, timeout). `posted`: the
    posts, each as (agent_id, message).
    """

    def __init__(self, answers: Mapping[str, Callable[[Message], Any]] | None = None) -> None:
        self.answers = dict(answers or {})
        self.sent: list[tuple[str, Message, float | None]] = []
        self.posted: list[tuple[str, Message]] = []

    def call(
        self,
        target: ProxyRef,
        message: Message,
        timeout_seconds: float | None = None,
        *,
        timeout: float | None = None,
    ) -> Any:
        self.sent.append((target.agent_id, message, one_timeout(timeout_seconds, timeout)))
        if message.kind not in self.answers:
            raise NotHandled(f"the test has no answer to {message.kind!r}")
        return self.answers[message.kind](message)

    send = call

    def post(self, target: ProxyRef, message: Message) -> None:
        self.posted.append((target.agent_id, message))


class FakeContext(FakeSender, Incomplete):  # type: ignore[misc]
    """A fake context of a job, or of a paglet that submits groups.

    `reports`: the reported outcomes, of which only the first is accepted. `groups`: the submissions. The first
    `detached_after` submissions return a group that is not detached. `obstacles`: those of each returned group.
    `blobs`: the published bytes, by hash. `notes`: the level and text of each note for the user. `warned`: the warnings
    of a job. `unsent`: the paths given to `keep_unsent`.
    """

    def __init__(
        self, answers: Mapping[str, Callable[[Message], Any]] | None = None, *, agent_id: str = "paglet-1"
    ) -> None:
        super().__init__(answers)
        self.ref = ProxyRef(agent_id=agent_id, host=HOST)
        self.name = HOST.name
        self.address = HOST.url
        self.reports: list[dict[str, Any]] = []
        self.notes: list[tuple[str, str]] = []
        self.warned: list[str] = []
        self.unsent: list[str] = []
        self.groups: list[SubmitGroup] = []
        self.blobs: dict[str, bytes] = {}
        self.obstacles: tuple[Obstacle, ...] = ()
        self.detached_after = 0

    def report(self, report: Mapping[str, Any]) -> bool:
        encode(report.get("result"), "result")
        self.reports.append({name: value for name, value in report.items() if name != "is_last"})
        return len(self.reports) == 1

    def warn(self, text: str) -> None:
        self.warned.append(text)

    def keep_unsent(self, path: str | Path) -> None:
        self.unsent.append(str(path))

    def wall_time(self) -> float:
        return 1_700_000_000.0

    def notify_user(self, *words: str, **named: str) -> None:
        note = new_note(*text_and_level(*words, **named), 0.0)
        self.notes.append((note.level, note.text))

    def proxy(self, target: ProxyRef | str) -> PagletProxy:
        ref = ProxyRef(agent_id=target, host=HOST) if isinstance(target, str) else target
        return PagletProxy(ref, self)

    def publish_bytes(self, data: bytes) -> BlobRef:
        blob = BlobRef(sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))
        self.blobs[blob.sha256] = data
        return blob

    def publish_file(self, path: str | Path) -> BlobRef:
        return self.publish_bytes(Path(path).read_bytes())

    def submit_group(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        group = from_json(SubmitGroup, dict(request))
        self.groups.append(group)
        view: Mapping[str, Any] = to_json(self.view(group))
        return view

    def view(self, group: SubmitGroup) -> GroupView:
        """Return the group as a host would return it, after all submissions so far."""
        detached = len(self.groups) > self.detached_after
        return GroupView(
            group_id=group.group_id or new_group_id("00" * 7),
            class_name=group.class_name,
            created_at=1_700_000_000.0,
            home=HOST,
            collector=ProxyRef(agent_id="collector-1", host=HostRef(store_id="store-w1", name="w1")),
            job_keys=tuple(job.job_key for job in group.jobs),
            creation_errors=tuple(
                CreationError(job_key=job.job_key, message=job.error) for job in group.jobs if job.error
            ),
            obstacles=self.obstacles,
            detached=detached,
            detached_reason="" if detached else "the collector's host has not taken it yet",
        )
