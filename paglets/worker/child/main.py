"""What a paglet's process does: wait for `go`, run one entry, handle messages, say `done`, exit."""

from __future__ import annotations

import atexit
import dataclasses
import gc
import os
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from paglets.codec.bundle import note_unpacked
from paglets.codec.class_names import resolve_class
from paglets.codec.envelope import WireMessage
from paglets.codec.tagged_json import decode, decode_fields, decode_state, encode, encode_state
from paglets.core.agent import Paglet, PagletState
from paglets.core.errors import Invalid, NoRoom, PagletsError
from paglets.core.messages import Message
from paglets.core.record import from_json, to_json
from paglets.core.refs import HostRef, ProxyRef
from paglets.core.signatures import HOOKS, HookEvent, call_hook, call_method
from paglets.worker.child.bundle_cache import unpacked
from paglets.worker.child.channel import Channel
from paglets.worker.child.context import ChildContext, Parked
from paglets.worker.child.faults import entry_fault_of, fault_of, show
from paglets.worker.child.files import put_files
from paglets.worker.child.unit_of_work import Snapshot, UnitOfWork
from paglets.worker.frames import Unpacker, pack
from paglets.worker.launch import DISK_FULL
from paglets.worker.protocol import (
    ENTRY_METHODS,
    HOOK_ENTRIES,
    LONG_ENTRIES,
    Deliver,
    EntryDone,
    Go,
    Handled,
    HookLimit,
    Stamp,
)
from paglets.worker.scratch import empty_scratch

EXIT_UNHEARD = 123
"""Exit code of a child whose `done` the host would not take, twice."""

LEAVE_SECONDS = 5.0
"""For what the user's code registered with `atexit`; after it the process ends in spite of it."""


def serve(connection: socket.socket) -> int:
    """The life of a child; gives its exit code. Called in a process of its own."""
    gc.enable()
    registered_before = _at_exit_count()
    channel = Channel(connection, threading.Lock(), in_background)
    child = Child(channel, channel.receive_go())
    code = child.live()
    return leave(code, in_time=_at_exit_count() > registered_before)


def main(argv: Sequence[str]) -> int:
    """`_worker N`: the same in a process that was started, not forked; its socket is descriptor N."""
    if len(argv) != 1 or not argv[0].isdigit():
        sys.stderr.write("paglets _worker takes the descriptor of a socket: a host starts it\n")
        return 2
    return serve(socket.socket(fileno=int(argv[0])))


def in_background(act: Callable[[], None]) -> None:
    """Run `act` on a thread that does not keep the process alive."""
    threading.Thread(target=act, daemon=True).start()


def leave(code: int, *, in_time: bool = True) -> int:
    """Run what was registered for the end of the process, write out what was printed; gives the code back.

    `in_time`: end the process in spite of it if it takes too long. Threads of the user's are not waited for:
    when its entry has returned a paglet's run is over.
    """
    if in_time:
        late = threading.Timer(LEAVE_SECONDS, os._exit, (code,))
        late.daemon = True
        late.start()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    return code


def _at_exit_count() -> int:
    return atexit._ncallbacks()


def rehearse() -> None:
    """Do once, in the zygote, what every child does first, so that its children find their tables made."""
    host = HostRef(store_id="", name="")
    message = WireMessage(kind="", args={}, sender=ProxyRef(agent_id="", host=host))
    deliver = Deliver(message_id="", message=message, is_call=True)
    stamp = Stamp(agent_id="", epoch=1, generation=1, attempt=1, token="")
    go = Go(
        stamp=stamp,
        class_name="",
        kind="paglet",
        entry="run",
        state={},
        system={},
        host=host,
        work_dir="",
        deliver=deliver,
    )
    frame = pack({"go": to_json(go)})
    from_json(Go, Unpacker().feed(frame)[0]["go"])
    encode_state(decode_state(PagletState, {}))
    decode(encode({"value": (b"", 1.0)}))


def exit_code_of(leaving: SystemExit) -> int:
    """The exit code that Python itself gives to `sys.exit(...)`."""
    if leaving.code is None:
        return 0
    if isinstance(leaving.code, int):
        return leaving.code & 0xFF
    sys.stderr.write(f"{leaving.code}\n")
    return 1


class Child:
    """One paglet and one entry into its code."""

    def __init__(self, channel: Channel, go: Go) -> None:
        self._channel = channel
        self._go = go
        self._context = ChildContext(go, channel.request)
        self._paglet: Paglet[Any]
        self._over = False
        self._handlers_started = threading.Lock()

    def live(self) -> int:
        """Run the entry to its end; gives the exit code."""
        try:
            put_files(self._go)
        except PagletsError as error:
            show(error)
            cause = DISK_FULL if isinstance(error, NoRoom) else "spawn_failed"
            return self._tell_done(EntryDone(fault=fault_of(error, cause)))
        try:
            self._paglet = self._make_paglet()
        except SystemExit as leaving:
            return exit_code_of(leaving)
        except BaseException as error:
            show(error)
            return self._tell_done(EntryDone(fault=entry_fault_of(error, self._go.work_dir)))
        if self._go.entry == "message":
            return self._handle_until_finish()
        try:
            return self._run_entry()
        finally:
            self._context.scope().close()

    def _make_paglet(self) -> Paglet[Any]:
        go = self._go
        sys.path[:0] = (*self._own_code(), *go.code_paths)
        cls = resolve_class(go.class_name, Paglet, host_name=go.host.name)
        known = {each.name for each in dataclasses.fields(cls.State)}
        system = {name: value for name, value in go.system.items() if name in known}
        paglet: Paglet[Any] = cls(decode_state(cls.State, {**go.state, **system}), self._context)
        self._context.attach(paglet)
        return paglet

    def _own_code(self) -> tuple[str, ...]:
        """The folder with the code that came with the paglet, where some did."""
        code = self._go.code
        if code is None:
            return ()
        folder = unpacked(code)
        note_unpacked(folder, code.bundle)
        return (folder,)

    # An entry.

    def _run_entry(self) -> int:
        if self._go.entry in LONG_ENTRIES:
            self._channel.heard = self._handle_in_background
            self._handle_in_background()
        try:
            self._limit_hook()
            self._call_method()
            if self._go.entry == "dispatching":
                self._context.files.refresh()
            self._before_rest(self._context.scope())
            with self._context.changed:
                self._over = True
                done = self._done_well(self._context.scope())
        except SystemExit as leaving:
            return exit_code_of(leaving)
        except BaseException as error:
            show(error)
            fault = entry_fault_of(error, self._go.work_dir)
            if fault.cause == DISK_FULL and self._go.entry == "attempt":
                empty_scratch(self._go.work_dir)
            done = EntryDone(fault=fault, keep_scratch=self._context.has_unsent_file)
        # Handlers that run hold this until their commit; none begins after it.
        with self._context.changed:
            self._over = True
            return self._tell_done(done)

    def _limit_hook(self) -> None:
        """Let the host end this hook if it takes longer than its class allows. Raises Invalid."""
        seconds = type(self._paglet).hook_timeout_seconds
        if seconds is None or self._go.entry not in HOOK_ENTRIES:
            return
        if not isinstance(seconds, int | float):
            raise Invalid(f"hook_timeout_seconds is {seconds!r:.40}: expected seconds or None")
        self._channel.request("hook_limit", HookLimit(seconds=float(seconds)))

    def _before_rest(self, scope: UnitOfWork) -> None:
        if scope.intent.rest is not None:
            self._call_hook("on_deactivating")

    def _call_method(self) -> None:
        name = ENTRY_METHODS[self._go.entry]
        if name in HOOKS:
            self._call_hook(name)
        elif hasattr(self._paglet, name):
            call_method(self._paglet, name)
        else:
            raise Invalid(f"{self._go.class_name} cannot be run as a compute job: it has no {name}()")

    def _call_hook(self, name: str) -> None:
        event = HookEvent(kind=HOOKS[name], from_host=self._go.came_from or None, when=self._context.wall_time())
        call_hook(self._paglet, name, event)

    def _done_well(self, scope: UnitOfWork) -> EntryDone:
        changes = scope.changes(self._context.keeper)
        cls, name = type(self._paglet), ENTRY_METHODS[self._go.entry]
        then_run, is_default = cls.run is not Paglet.run, getattr(cls, name) is getattr(Paglet, name, None)
        return EntryDone(
            changes=changes,
            intent=scope.intent,
            then_run=then_run,
            is_default=is_default,
            keep_scratch=self._context.has_unsent_file,
        )

    def _tell_done(self, done: EntryDone) -> int:
        try:
            self._channel.request("done", done)
        except PagletsError as error:
            show(error)
            return EXIT_UNHEARD if done.fault is not None else self._tell_done(EntryDone(fault=fault_of(error)))
        if done.fault is None:
            self._context.scope().stored(self._context.keeper, done.changes)
        return 0

    # Messages.

    def _handle_until_finish(self) -> int:
        try:
            while (deliver := self._channel.inbox.get()) is not None:
                self._handle(deliver)
        except SystemExit as leaving:
            return exit_code_of(leaving)
        return self._tell_done(EntryDone())

    def _handle_in_background(self) -> None:
        """Start the thread for messages with the first one: most jobs never get any."""
        if not self._channel.inbox.empty() and self._handlers_started.acquire(blocking=False):
            in_background(self._handle_beside)

    def _handle_beside(self) -> None:
        try:
            while not self._over:
                deliver = self._channel.inbox.get()
                if deliver is not None:
                    self._handle(deliver)
        except SystemExit as leaving:
            # On this thread it would end nothing; in a handler it means what it means elsewhere.
            os._exit(leave(exit_code_of(leaving)))

    def _handle(self, deliver: Deliver) -> None:
        context = self._context
        with context.changed:
            if self._over:
                return
            with context.handling(deliver) as scope:
                before, handled = self._run_handler(deliver, scope)
                self._tell_handled(handled, scope, before)
            context.changed.notify_all()

    def _run_handler(self, deliver: Deliver, scope: UnitOfWork) -> tuple[Snapshot | None, Handled]:
        """What it came to, and the state to go back to if the host does not take it."""
        before: Snapshot | None = None
        try:
            before = self._context.keeper.snapshot()
            return before, self._handled_well(deliver, scope)
        except SystemExit:
            raise
        except BaseException as error:
            show(error)
            self._undo(before)
            return None, Handled(message_id=deliver.message_id, fault=fault_of(error))

    def _handled_well(self, deliver: Deliver, scope: UnitOfWork) -> Handled:
        sent, keeper = deliver.message, self._context.keeper
        args = decode_fields(sent.args, keep_missing=True)
        try:
            message = Message(sent.kind, args, sent.sender, sent.artifacts, sent.priority)
            value = self._paglet.take_message(message)
            self._before_rest(scope)
        except Parked as parked:
            # What it asked for takes effect at its end, and it will ask again: it is begun anew.
            return Handled(
                message_id=deliver.message_id,
                parked=True,
                wait_seconds=parked.wait_seconds,
                changes=scope.changes(keeper),
            )
        return Handled(
            message_id=deliver.message_id,
            value=encode(value, "reply") if deliver.is_call else None,
            changes=scope.changes(keeper),
            intent=scope.intent,
        )

    def _tell_handled(self, handled: Handled, scope: UnitOfWork, before: Snapshot | None) -> None:
        try:
            self._channel.request("handled", handled)
        except PagletsError as error:
            show(error)
            if handled.fault is not None:
                # The host cannot even note a failure: it will see this process end.
                raise SystemExit(EXIT_UNHEARD) from error
            self._undo(before)
            self._tell_handled(Handled(message_id=handled.message_id, fault=fault_of(error)), scope, None)
            return
        if handled.fault is None:
            scope.stored(self._context.keeper, handled.changes)

    def _undo(self, before: Snapshot | None) -> None:
        if before is not None:
            self._context.keeper.restore(before)
