"""The handlers of the operations that a paglet's process may request from its host (`paglets.worker.protocol`).

A handler that changes state first checks that the run still owns the paglet, and answers a stale run with `fenced`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from paglets.api.calls import CallReply
from paglets.api.paglets import FindPaglets
from paglets.codec.envelope import CarriedArtifact, check_file, check_message, check_seconds
from paglets.codec.strict_json import dumps
from paglets.core.errors import Fenced, PagletsError, StoreTransient
from paglets.core.record import to_json
from paglets.core.refs import (
    ArtifactRef,
    BlobRef,
    HostRef,
    check_artifact_id,
    check_blob,
    check_file_name,
    check_lifetime,
)
from paglets.host.blobs.blob_store import BlobStore
from paglets.host.blobs.fetcher import BlobFetcher
from paglets.host.messaging.calls import Calls
from paglets.host.messaging.creation import PagletCreation
from paglets.host.messaging.group_submission import GroupSubmission
from paglets.host.network.directory import Directory
from paglets.host.records import cloning, notes, outcomes, run_repository
from paglets.host.records.lifecycle import hook_done, hook_failed, keep_files_on_arrival, request_action
from paglets.host.records.outcomes import Attempt, Outcome
from paglets.host.records.run_repository import Run
from paglets.host.runtime.services import HostServices
from paglets.mesh.gossip import Gossiper
from paglets.store import artifacts, files, jobs, kept_scratch, paglets, posts, queue
from paglets.store.db import Tx
from paglets.worker import protocol, requests
from paglets.worker.protocol import BAD_RESULT, Changes, Fault, NewArtifact, RegisteredFile

Done = Callable[[Any], None]

MAX_SCAN = 10_000
"""The maximum number of storage entries in one reply. The next scan continues after the last key."""


class Operations:
    """The handlers of the operations. Each calls `done` on the runner, with the result or the error."""

    def __init__(
        self,
        services: HostServices,
        calls: Calls,
        creation: PagletCreation,
        submission: GroupSubmission,
        gossip: Gossiper,
        blob_store: BlobStore,
        blob_fetcher: BlobFetcher,
        directory: Directory,
    ) -> None:
        self._services = services
        self._directory = directory
        self._blob_store = blob_store
        self._blob_fetcher = blob_fetcher
        self._calls = calls
        self._creation = creation
        self._submission = submission
        self._gossip = gossip

    def perform(self, run: Run, name: str, args: Any, done: Done) -> None:
        if name == "done" and run.reported and args.is_empty:
            # The outcome is committed and `done` has no changes, so there is nothing to store.
            done(None)
        elif name == "handled" and _is_reply_only(run, args):
            self._reply_only(run, done)
        elif name in CHANGES:
            handler = CHANGES[name]
            now, runtime = self._services.clock.wall(), self._runtime(run)
            step = OperationContext(
                run=run, own=self._services.own, blob_store=self._blob_store, now=now, runtime=runtime
            )
            self._change(run, lambda tx: handler(_guarded(tx, run), step, args), done)
        else:
            try:
                ASKS[name](self, run, args, done)
            except PagletsError as error:
                done(error)

    def _reply_only(self, run: Run, done: Done) -> None:
        """End a handler that changed nothing. No row is written, so its caller need not wait for a COMMIT."""
        try:
            self._services.store.read(lambda tx: _guarded(tx, run))
        except PagletsError as error:
            done(error)
        else:
            done(HandlerEnd())

    def _change(self, run: Run, change: Callable[[Tx], Any], done: Done) -> None:
        """Commit a change. Then release the run's pins on blobs that a committed row now refers to."""

        def committed(result: Any) -> None:
            if not isinstance(result, BaseException):
                self._blob_store.committed(run.stamp.token)
            done(result)

        self._services.runner.change(change, committed)

    def run_ended(self, token: str) -> None:
        self._blob_store.run_ended(token)

    def _runtime(self, run: Run) -> float:
        return self._services.clock.monotonic() - run.started_at

    def call(self, run: Run, args: protocol.CallOut, done: Done) -> None:
        def answer(result: CallReply | PagletsError) -> None:
            done(result.value if isinstance(result, CallReply) else result)

        self._calls.start(args.target, args.message, args.timeout_seconds, answer)

    def create(self, run: Run, args: protocol.Create, done: Done) -> None:
        agent_id = f"{run.stamp.token[:24]}-{args.nth}"
        self._change(run, lambda tx: self._creation.create(_guarded(tx, run), agent_id, args), done)

    def submit(self, run: Run, args: protocol.Submit, done: Done) -> None:
        token = hashlib.sha256(f"{run.stamp.token} {args.nth}".encode()).hexdigest()
        self._change(run, lambda tx: self._submission.submit_tree(_guarded(tx, run), token, args.request), done)

    def reserve_space(self, run: Run, args: protocol.ReserveSpace, done: Done) -> None:
        folder = self._blob_store.staging(args.staged, args.size_bytes, run.stamp.token, on_disk=args.moved)
        done({"folder": folder})

    def publish(self, run: Run, args: protocol.Publish, done: Done) -> None:
        self._blob_store.hold(run.stamp.token, check_blob(args.blob).sha256)
        self._blob_store.run_in_background(
            lambda: self._blob_store.publish(args.staged, args.blob),
            lambda result: done({} if result is None else result),
        )

    def artifact_fetch(self, run: Run, args: protocol.ArtifactFetch, done: Done) -> None:
        def fetched(result: ArtifactRef | PagletsError) -> None:
            if isinstance(result, PagletsError):
                done(result)
            else:
                done({"artifact": to_json(result), "path": self._blob_store.path(result.sha256)})

        self._blob_fetcher.fetch(check_artifact_id(args.artifact_id), fetched)

    def artifact_delete(self, run: Run, args: protocol.ArtifactDelete, done: Done) -> None:
        self._blob_fetcher.delete(check_artifact_id(args.artifact_id), done)

    def hook_limit(self, run: Run, args: requests.HookLimit, done: Done) -> None:
        run.limit_seconds = check_seconds(args.seconds)
        run.timeout_seconds = self._runtime(run) + run.limit_seconds
        done({})

    def hosts(self, run: Run, args: protocol.NoArguments, done: Done) -> None:
        done({"hosts": [to_json(info) for info in self._creation.host_infos()]})

    def resolve_host(self, run: Run, args: protocol.Resolve, done: Done) -> None:
        done(self._gossip.find(args.target))

    def find(self, run: Run, args: requests.Find, done: Done) -> None:
        self._directory.everywhere(FindPaglets(name=args.name, service=args.service), done)

    def resolve_paglet(self, run: Run, args: protocol.Resolve, done: Done) -> None:
        done(self._services.store.read(lambda tx: self._creation.resolve_paglet(tx, args.target)))


ASKS: dict[str, Callable[[Operations, Run, Any, Done], None]] = {
    "call": Operations.call,
    "create": Operations.create,
    "reserve_space": Operations.reserve_space,
    "publish": Operations.publish,
    "artifact_fetch": Operations.artifact_fetch,
    "artifact_delete": Operations.artifact_delete,
    "submit": Operations.submit,
    "hook_limit": Operations.hook_limit,
    "hosts": Operations.hosts,
    "resolve_host": Operations.resolve_host,
    "resolve_paglet": Operations.resolve_paglet,
    "find": Operations.find,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationContext:
    """The data that handlers of one operation need. `now`: epoch seconds. `runtime`: seconds since the run started."""

    run: Run
    own: HostRef
    blob_store: BlobStore
    now: float
    runtime: float

    @property
    def agent_id(self) -> str:
        return self.run.stamp.agent_id

    @property
    def attempt(self) -> Attempt:
        return Attempt(
            agent_id=self.agent_id, attempt=self.run.stamp.attempt, host=self.own, runtime_seconds=self.runtime
        )


def _is_reply_only(run: Run, args: protocol.Handled) -> bool:
    """Return True if the handler of a call returned a value and requests no change and no action."""
    of_call = run.delivered is not None and run.delivered[1].call is not None
    return of_call and args == protocol.Handled(message_id=args.message_id, value=args.value)


def _guarded(tx: Tx, run: Run) -> Tx:
    if not run_repository.is_open(tx, run.stamp.token):
        raise Fenced("this run has ended, or a newer one replaced it")
    if run.is_ahead and queue.with_status(tx, "ASSIGNED", [run.stamp.agent_id]):
        raise StoreTransient("the end of the job before this one in its worker is not stored yet")
    return tx


def _apply(tx: Tx, step: OperationContext, changes: Changes) -> None:
    """Store the changes that code of a paglet made. Raises Invalid, and Conflict if a blob is missing."""
    step.blob_store.require_blobs(tx, tuple(_blobs_of(changes)))
    if changes.has_state:
        paglets.set_state(tx, step.agent_id, dumps(changes.state))
        tx.touch(step.agent_id)
    for key in changes.storage_deleted:
        paglets.storage_delete(tx, step.agent_id, key)
    for key, value in changes.storage_set.items():
        paglets.storage_set(tx, step.agent_id, key, value)
    for registered in changes.files:
        _register(tx, step, registered)
    for post in changes.posts:
        posts.send(tx, post.target, check_message(post.message), step.now)
    if changes.notes:
        notes.send(tx, step.agent_id, step.own.name, changes.notes, step.now)
    for clone in changes.clones:
        cloning.make(tx, step.agent_id, clone, step.now)


def _blobs_of(changes: Changes) -> Iterator[BlobRef]:
    yield from (registered.file.blob for registered in changes.files)
    yield from (artifact.blob for post in changes.posts for artifact in post.message.artifacts)


def _register(tx: Tx, step: OperationContext, registered: RegisteredFile) -> None:
    """Register a file of the paglet. If an attempt registers it, later attempts get it only after a checkpoint."""
    attempt = step.run.stamp.attempt if step.run.entry == "attempt" else 0
    source = files.RegisteredSource(
        path=registered.source_path, mtime_ns=registered.source_mtime_ns, inode=registered.source_inode
    )
    files.register(tx, step.agent_id, check_file(replace(registered.file, attempt=attempt)), source)


def _commit(tx: Tx, step: OperationContext, args: protocol.Commit) -> None:
    _apply(tx, step, args.changes)


def _checkpoint(tx: Tx, step: OperationContext, args: protocol.Commit) -> None:
    _apply(tx, step, args.changes)
    files.checkpoint(tx, step.agent_id)
    jobs.set_checkpoint(tx, step.agent_id)


def _report(tx: Tx, step: OperationContext, args: protocol.Report) -> dict[str, bool]:
    artifact = None if args.artifact is None else _checked(tx, step, args.artifact)
    stored = tuple(_checked(tx, step, each) for each in args.stored)
    outcome = Outcome(
        success=args.success, final=True, result=args.result, fault=args.fault, artifact=artifact, stored=stored
    )
    accepted = outcomes.commit(tx, step.attempt, outcome, step.now)
    if step.run.line:
        tx.wake("scheduler")  # The worker soon needs its next job.
    if accepted:
        _apply(tx, step, args.changes)
        if args.fault is not None and args.fault.cause == BAD_RESULT:
            kept_scratch.keep(tx, step.agent_id, step.run.work_dir, step.now)
    return {"accepted": accepted}


def _checked(tx: Tx, step: OperationContext, artifact: NewArtifact) -> NewArtifact:
    """Return the artifact. Raise Invalid if a field is invalid, Conflict if its blob is missing."""
    check_artifact_id(artifact.artifact_id)
    check_file_name(artifact.name)
    check_lifetime(artifact.expires_in_seconds)
    step.blob_store.require_blobs(tx, (check_blob(artifact.blob),))
    return artifact


def _artifact_add(tx: Tx, step: OperationContext, args: protocol.ArtifactAdd) -> ArtifactRef:
    new = _checked(tx, step, args.artifact)
    carried = CarriedArtifact(
        artifact_id=new.artifact_id,
        name=new.name,
        sha256=new.blob.sha256,
        size_bytes=new.blob.size_bytes,
        created_at=new.created_at,
        expires_in_seconds=new.expires_in_seconds,
    )
    return artifacts.create(tx, step.agent_id, carried, step.now, step.own.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerEnd:
    """The result of a handler. `tries`: failed tries of its post. `version`: the state version that it committed."""

    tries: int = 0
    version: int = 0


def _handled(tx: Tx, step: OperationContext, args: protocol.Handled) -> HandlerEnd:
    delivered = step.run.delivered
    seq = delivered[1].seq if delivered is not None and delivered[0] == args.message_id else None
    if args.fault is not None:
        text = f"{args.fault.message}\n{args.fault.traceback}"
        return HandlerEnd(tries=0 if seq is None else posts.record_error(tx, seq, text))
    _apply(tx, step, args.changes)
    request_action(tx, step.agent_id, step.run.entry, args.intent)
    if seq is not None:
        posts.remove_handled(tx, seq)
    return HandlerEnd(version=paglets.state_version(tx, step.agent_id) or 0)


def _done(tx: Tx, step: OperationContext, args: protocol.EntryDone) -> HandlerEnd:
    if args.report is None:
        end = _end_entry(tx, step, args)
    else:
        _report(tx, step, args.report)
        end = HandlerEnd()
    if step.run.is_unstored:
        # Set these now, because the end of the run may be stored in the same transaction.
        step.run.done, step.run.is_unstored = True, False
    return end


def _end_entry(tx: Tx, step: OperationContext, args: protocol.EntryDone) -> HandlerEnd:
    entry, fault = step.run.entry, args.fault
    if fault is None:
        _apply(tx, step, args.changes)
    if args.keep_scratch:
        kept_scratch.keep(tx, step.agent_id, step.run.work_dir, step.now)
    if entry == "attempt":
        _attempt_done(tx, step, fault)
    elif entry == "message":
        # The class or the state of the paglet could not be loaded, so the message was not handled.
        delivered = step.run.delivered
        if fault is not None and delivered is not None:
            return _handled(tx, step, protocol.Handled(message_id=delivered[0], fault=fault))
    elif fault is None:
        hook_done(tx, step.agent_id, entry, args.then_run)
    else:
        hook_failed(tx, step.agent_id, entry, fault.message, step.now, own=step.own, traceback=fault.traceback)
    if fault is None:
        # Store the new action only now, because `hook_done` would take it for the action that triggered the hook.
        request_action(tx, step.agent_id, entry, args.intent)
        keep_files_on_arrival(tx, step.agent_id, entry, args.is_default, step.now)
    return HandlerEnd()


def _attempt_done(tx: Tx, step: OperationContext, fault: Fault | None) -> None:
    """End an attempt. Without a report, an attempt that returned has succeeded, unless a collector expects a result."""
    if fault is None and jobs.has_collector(tx, step.agent_id):
        fault = Fault(cause="no_result", message="run_compute_job returned without reporting a result")
    outcomes.commit(tx, step.attempt, Outcome(success=fault is None, final=False, fault=fault), step.now)


def _storage_get(tx: Tx, step: OperationContext, args: protocol.StorageGet) -> dict[str, Any]:
    found, value = paglets.storage_get(tx, step.agent_id, args.key)
    return {"found": found, "value": value}


def _storage_keys(tx: Tx, step: OperationContext, args: protocol.NoArguments) -> dict[str, Any]:
    return {"keys": paglets.all_storage_keys(tx, step.agent_id)}


def _storage_scan(tx: Tx, step: OperationContext, args: protocol.StorageScan) -> dict[str, Any]:
    limit = max(1, min(args.limit, MAX_SCAN))
    entries = paglets.storage_scan(tx, step.agent_id, args.prefix, args.after, limit)
    return {"entries": [list(entry) for entry in entries]}


CHANGES: dict[str, Callable[[Tx, OperationContext, Any], Any]] = {
    "commit": _commit,
    "checkpoint": _checkpoint,
    "report": _report,
    "artifact_add": _artifact_add,
    "handled": _handled,
    "done": _done,
    "storage_get": _storage_get,
    "storage_keys": _storage_keys,
    "storage_scan": _storage_scan,
}
