"""The context of a paglet in its process. It implements `core.context.Context` with requests to the host."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from paglets.api.paglets import FoundPaglets
from paglets.client.inputs import InputPaths, publish_inputs
from paglets.client.proxy import PagletProxy
from paglets.codec.bundle import publish_code
from paglets.codec.class_names import class_name
from paglets.codec.envelope import WireMessage, check_seconds
from paglets.codec.tagged_json import decode, encode_fields, encode_state
from paglets.core.agent import Paglet
from paglets.core.context import HostInfo
from paglets.core.errors import Invalid
from paglets.core.messages import Message, one_timeout, text_and_level
from paglets.core.record import from_json
from paglets.core.refs import ArtifactRef, BlobRef, FileRef, HostRef, ProxyRef
from paglets.core.signatures import HookEvent, call_hook, check_methods
from paglets.core.text import with_article
from paglets.worker.child.artifacts import ChildArtifacts
from paglets.worker.child.files import RegisteredFiles
from paglets.worker.child.publishing import BlobPublisher, absolute, is_within
from paglets.worker.child.reporting import Reporting
from paglets.worker.child.storage import ChildStorage, Request
from paglets.worker.child.unit_of_work import StateKeeper, UnitOfWork
from paglets.worker.protocol import (
    LONG_ENTRIES,
    CallOut,
    Changes,
    Commit,
    Create,
    Deliver,
    Go,
    Intent,
    NoArguments,
    OutgoingPost,
    Resolve,
    Submit,
)
from paglets.worker.requests import Find, NewClone, Rest, new_note

CLOCK_TICK_NS = 20_000_000
"""Two ticks of a file system's clock, each at most 10 ms. Two writes within a tick can give a file the same mtime."""

WAITABLE = "only run, run_compute_job and the handler of a call may wait for the state to change"


class HandlerParked(BaseException):
    """An exception that leaves a handler in `wait_state`. It is not an Exception, because user code may catch those."""

    def __init__(self, wait_seconds: float | None) -> None:
        super().__init__()
        self.wait_seconds = wait_seconds


class ChildContext:
    """The context of one process. Call `attach` before any code of the paglet runs.

    `changed`: the lock of the state, and a condition that is notified after changes. A handler holds the lock until its
    changes are committed. `locked_state` holds the lock for its block.
    """

    def __init__(self, go: Go, request: Request) -> None:
        self._go = go
        self._request = request
        self._entry_unit = UnitOfWork(at_once=go.entry in LONG_ENTRIES)
        self._handler_unit: UnitOfWork | None = None
        self._handler_thread = 0
        self._locking_threads: set[int] = set()
        self._numbers = itertools.count(1)
        self._storage = ChildStorage(request, self.unit)
        scratch = Path(go.work_dir) if go.entry == "attempt" else None
        self._publisher = BlobPublisher(go.stamp.token, request, _wait_for_new_mtime, scratch)
        self._artifacts = ChildArtifacts(go.stamp.token, request, self._publisher, time.time)
        self.files = RegisteredFiles(go, request, self._publisher, self.unit)
        self.changed = threading.Condition(threading.RLock())
        self.has_unsent_file = False
        self.paglet: Paglet[Any]
        self.keeper: StateKeeper
        self.reporting: Reporting

    def attach(self, paglet: Paglet[Any]) -> None:
        self.paglet = paglet
        self.keeper = StateKeeper(paglet)
        self.reporting = Reporting(self._go, self._request, self._artifacts, self.unit, self.changed, self.keeper)

    # The methods below manage units of work.

    def unit(self) -> UnitOfWork:
        """Return the unit of work of the calling thread. A thread has its own while it handles a message."""
        if self._handler_unit is not None and threading.get_ident() == self._handler_thread:
            return self._handler_unit
        return self._entry_unit

    @contextmanager
    def handling(self, deliver: Deliver) -> Iterator[UnitOfWork]:
        """Open a unit of work for a handler on this thread. The caller must hold `changed`."""
        self._handler_unit, self._handler_thread = UnitOfWork(deliver=deliver), threading.get_ident()
        try:
            yield self._handler_unit
        finally:
            self._handler_unit.close()
            self._handler_unit = None

    def _commit(self, operation: str, unit: UnitOfWork, changes: Changes) -> None:
        self._request(operation, Commit(changes=changes))
        unit.stored(self.keeper, changes)

    def _commit_state(self, unit: UnitOfWork) -> None:
        changes = unit.changes(self.keeper)
        if changes.has_state:
            self._commit("commit", unit, changes)

    # The methods below describe the paglet and the hosts.

    @property
    def name(self) -> str:
        return self._go.host.name

    @property
    def address(self) -> str:
        return self._go.host.url

    @property
    def ref(self) -> ProxyRef:
        return ProxyRef(agent_id=self._go.stamp.agent_id, host=self._go.host)

    @property
    def storage(self) -> ChildStorage:
        return self._storage

    def wall_time(self) -> float:
        return time.time()

    def work_dir(self) -> Path:
        return Path(self._go.work_dir)

    def hosts(self) -> tuple[HostInfo, ...]:
        return tuple(from_json(HostInfo, tree) for tree in self._request("hosts", NoArguments())["hosts"])

    def resolve_host(self, target: str) -> HostRef:
        return from_json(HostRef, self._request("resolve_host", Resolve(target=target)))

    # The methods below create, find and contact other paglets.

    def create(
        self, cls: type[Paglet[Any]], state: Any = None, *, name: str | None = None, inputs: InputPaths | None = None
    ) -> PagletProxy:
        check_methods(cls)
        if state is None:
            state = cls.State()
        if not isinstance(state, cls.State):
            must_be = with_article(cls.State.__qualname__)
            raise Invalid(f"the state of {with_article(cls.__qualname__)} must be {must_be}")
        tree = encode_state(state)
        wanted = Create(
            nth=next(self._numbers),
            class_name=class_name(cls),
            kind=cls.kind,
            state=tree,
            name=name,
            request=cls.creation_request(state),
            job_key=str(getattr(state, "job_key", "")),
            files=publish_inputs(self, inputs),
            bundle=publish_code(self, cls, cls.State, states=(tree,)),
            service=cls.service_name,
        )
        return self.proxy(from_json(ProxyRef, self._request("create", wanted)))

    def proxy(self, target: ProxyRef | str) -> PagletProxy:
        if isinstance(target, str):
            target = from_json(ProxyRef, self._request("resolve_paglet", Resolve(target=target)))
        return PagletProxy(target, self)

    def call(
        self,
        target: ProxyRef,
        message: Message,
        timeout_seconds: float | None = None,
        *,
        timeout: float | None = None,
    ) -> Any:
        timeout_seconds = one_timeout(timeout_seconds, timeout)
        if message.artifacts:
            raise Invalid("a call carries no artifacts: use post or send_artifact")
        wanted = CallOut(target=target, message=self._wire(message), timeout_seconds=timeout_seconds)
        return decode(self._request("call", wanted), "reply", keep_missing=True)

    send = call

    def post(self, target: ProxyRef, message: Message) -> None:
        wire = self._wire(message, self._artifacts.forwarded(target, message))
        self._send(OutgoingPost(target=target, message=wire))

    def _send(self, outgoing: OutgoingPost) -> None:
        unit = self.unit()
        if unit.at_once:
            self._request("commit", Commit(changes=Changes(posts=(outgoing,))))
        else:
            unit.posts.append(outgoing)

    def notify_user(self, *words: str, **named: str) -> None:
        unit, note = self.unit(), new_note(*text_and_level(*words, **named), time.time())
        if unit.at_once:
            self._request("commit", Commit(changes=Changes(notes=(note,))))
        else:
            unit.notes.append(note)

    def find(self, name: str) -> tuple[PagletProxy, ...]:
        return self._found(Find(name=name))

    def lookup(self, service_name: str) -> tuple[PagletProxy, ...]:
        return self._found(Find(service=service_name))

    def _found(self, wanted: Find) -> tuple[PagletProxy, ...]:
        found = from_json(FoundPaglets, self._request("find", wanted))
        return tuple(PagletProxy(each.ref, self) for each in found.paglets)

    def clone(self, name: str | None = None, target: HostRef | None = None) -> PagletProxy:
        self._check_is_plain("cloned")
        unit = self.unit()
        with self.changed:
            call_hook(self.paglet, "on_cloning", HookEvent(kind="cloning", when=time.time()))
            agent_id = f"{self._go.stamp.token[:24]}-{next(self._numbers)}"
            clone = NewClone(agent_id=agent_id, name=name, target=target)
            if unit.at_once:
                self._commit("commit", unit, replace(unit.changes(self.keeper), clones=(clone,)))
            else:
                unit.clones.append(clone)
        return PagletProxy(ProxyRef(agent_id=agent_id, host=self._go.host), self)

    def _check_is_plain(self, what: str) -> None:
        if self._go.kind != "paglet":
            raise Invalid(
                f"{with_article(self._go.kind)} cannot be {what}: only paglets that are neither jobs nor collectors can"
            )

    def submit_group(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        wanted = Submit(nth=next(self._numbers), request=dict(request))
        answer: Mapping[str, Any] = self._request("submit", wanted)
        return answer

    def _wire(self, message: Message, artifacts: tuple[ArtifactRef, ...] = ()) -> WireMessage:
        args = encode_fields(message.args)
        return WireMessage(
            kind=message.kind, args=args, sender=self.ref, artifacts=artifacts, priority=message.priority
        )

    # The methods below store bytes and files.

    def publish_bytes(self, data: bytes) -> BlobRef:
        return self._publisher.publish_bytes(data)

    def publish_file(self, path: str | Path) -> BlobRef:
        return self._publisher.publish_copy(absolute(path)).blob

    def register_file(self, path: str | Path, name: str | None = None, mode: str = "copy") -> FileRef:
        return self.files.register(path, name, mode)

    def registered_files(self) -> tuple[FileRef, ...]:
        return self.files.all()

    def file_path(self, name: str) -> Path:
        return self.files.path(name)

    def upload_artifact(
        self,
        path: str | Path,
        name: str | None = None,
        move: bool = False,
        expires_in_seconds: float | None = None,
    ) -> ArtifactRef:
        return self._artifacts.upload(path, name, move, expires_in_seconds)

    def download_artifact(
        self, artifact: ArtifactRef | str, target: str | Path, move: bool = False, replace: bool = False
    ) -> Path:
        return self._artifacts.download(artifact, target, move, replace)

    def delete_artifact(self, artifact: ArtifactRef | str) -> None:
        self._artifacts.delete(artifact)

    def send_artifact(
        self, target: ProxyRef, path: str | Path, message: Message, name: str | None = None, move: bool = False
    ) -> ArtifactRef:
        forwarded, unit = self._artifacts.forwarded(target, message), self.unit()
        wire = self._wire(message, forwarded)
        sent = self._artifacts.outgoing(target, path, name, move)
        try:
            self._send(OutgoingPost(target=target, message=replace(wire, artifacts=(*forwarded, sent.ref))))
        except BaseException:
            sent.publication.rollback()
            raise
        if unit.at_once:
            sent.publication.commit()
        else:
            unit.effects.append(sent.publication)
        return sent.ref

    # The methods below request actions that take effect after the current hook, handler, `run` or attempt has ended.

    def intend_move(self, target: HostRef) -> None:
        self.unit().intent = Intent(move=target)

    def intend_stay(self) -> None:
        self.unit().intent = Intent(stay=True)

    def intend_dispose(self) -> None:
        self.unit().intent = Intent(dispose=True)

    def intend_sleep(self, seconds: float | None = None) -> None:
        self._check_is_plain("deactivated")
        if seconds is not None:
            check_seconds(seconds)
        self.unit().intent = Intent(rest=Rest(seconds=seconds))

    # The methods below store the state, send reports, and wait for changes.

    def checkpoint(self) -> None:
        unit = self.unit()
        with self.changed:
            self._commit("checkpoint", unit, unit.changes(self.keeper, with_state=True))

    def report(self, report: Mapping[str, Any]) -> bool:
        return self.reporting.report(report)

    def warn(self, text: str) -> None:
        if self._go.entry == "attempt" and self._go.collector is not None:
            stamp = self._go.stamp
            args = {"job_key": self.paglet.state.job_key, "generation": stamp.generation, "attempt": stamp.attempt}
            self.post(self._go.collector, Message("job_warning", {**args, "text": text}))

    def keep_unsent(self, path: str | Path) -> None:
        if self._go.entry == "attempt" and os.path.isfile(path) and is_within(Path(path), self.work_dir()):
            self.has_unsent_file = True

    @contextmanager
    def locked_state(self) -> Iterator[Any]:
        """Hold the lock of the state for a block, then commit. If the block fails, neither commit nor revert it."""
        unit, thread = self.unit(), threading.get_ident()
        with self.changed:
            if not unit.at_once or thread in self._locking_threads:
                # The enclosing handler, hook or block commits the change.
                yield self.paglet.state
                return
            self._locking_threads.add(thread)
            try:
                yield self.paglet.state
            finally:
                self._locking_threads.discard(thread)
            self._commit_state(unit)
            self.changed.notify_all()

    def wait_state(self, predicate: Callable[[Any], bool], timeout_seconds: float | None = None) -> bool:
        unit = self.unit()
        if unit.deliver is not None:
            return self._wait_in_handler(unit.deliver, predicate, timeout_seconds)
        if not unit.at_once:
            raise Invalid(WAITABLE)
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        with self.changed:
            while not predicate(self.paglet.state):
                self._commit_state(unit)
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return False
                self.changed.wait(left)
            return True

    def _wait_in_handler(
        self, deliver: Deliver, predicate: Callable[[Any], bool], timeout_seconds: float | None
    ) -> bool:
        if predicate(self.paglet.state):
            return True
        if not deliver.is_call:
            raise Invalid(WAITABLE)
        if timeout_seconds is None:
            raise HandlerParked(None)
        left = timeout_seconds - deliver.waited_seconds
        if left <= 0:
            return False
        raise HandlerParked(left)


def _wait_for_new_mtime(mtime_ns: int) -> None:
    """Wait until a further write would give a file a later mtime than `mtime_ns`."""
    left = mtime_ns + CLOCK_TICK_NS - time.time_ns()
    if 0 < left <= CLOCK_TICK_NS:
        time.sleep(left / 1e9)
