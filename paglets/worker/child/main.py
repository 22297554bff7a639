"""The process of a paglet (the child). It waits for `go`, runs one entry, handles messages, sends `done`, and exits.

A warm worker does the same for each of its jobs, but exits after its last job (`zygote.warm_worker`).
"""

from __future__ import annotations

import _thread
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
from paglets.codec.script import this_script
from paglets.codec.tagged_json import decode, decode_fields, decode_state, encode, encode_state
from paglets.core.agent import Paglet, PagletState
from paglets.core.errors import Invalid, NoRoom, PagletsError
from paglets.core.messages import Message
from paglets.core.record import from_json, to_json
from paglets.core.refs import HostRef, ProxyRef
from paglets.core.signatures import HOOKS, HookEvent, call_hook, call_method
from paglets.worker.child.bundle_cache import unpack_once
from paglets.worker.child.channel import Channel
from paglets.worker.child.context import ChildContext, HandlerParked
from paglets.worker.child.faults import entry_fault_of, fault_of, show
from paglets.worker.child.files import copy_files
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
    GoCode,
    Handled,
    Stamp,
)
from paglets.worker.requests import HookLimit
from paglets.worker.scratch import empty_scratch

EXIT_DONE_REFUSED = 123
"""Exit code of a child whose request `done` or `handled` was refused twice by the host."""

EXIT_SECONDS = 5.0
"""Time limit for the `atexit` functions of user code. The process ends when the limit is reached."""


def serve(connection: socket.socket, exit_functions: int | None = None) -> int:
    """Run the child in this process, and return its exit code. `connection`: the socket to the host.

    `exit_functions`: the number of `atexit` functions before any user code was imported; None: the current number.
    """
    gc.enable()
    registered_before = exit_function_count() if exit_functions is None else exit_functions
    channel = Channel(connection, threading.Lock(), start_listener)
    child = PagletProcess(channel, channel.receive_go())
    code = child.run()
    channel.send(channel.take_held())
    return run_exit_functions(code, in_time=exit_function_count() > registered_before)


def main(argv: Sequence[str]) -> int:
    """Run a child that was started as `paglets _worker N` instead of forked. N is the descriptor of its socket."""
    if len(argv) != 1 or not argv[0].isdigit():
        sys.stderr.write("paglets _worker is started by a host, with the descriptor of a socket as its argument\n")
        return 2
    return serve(socket.socket(fileno=int(argv[0])))


def in_background(act: Callable[[], None]) -> None:
    """Run `act` on a daemon thread, which does not keep the process alive."""
    threading.Thread(target=act, daemon=True).start()


def start_listener(listen: Callable[[], None]) -> None:
    """Run `listen`, which calls no user code, on a thread that does not keep the process alive.

    A `threading.Thread` would take several times as long, because `start` waits until the thread runs.
    """
    _thread.start_new_thread(listen, ())


def run_exit_functions(code: int, *, in_time: bool = True) -> int:
    """Run the registered `atexit` functions, flush the output, and return `code`.

    `in_time`: True to end the process after EXIT_SECONDS at the latest. This function does not wait for threads of user
    code, because a run is over when its entry has returned.
    """
    if in_time:
        late = threading.Timer(EXIT_SECONDS, os._exit, (code,))
        late.daemon = True
        late.start()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    return code


def exit_function_count() -> int:
    """Return the number of registered `atexit` functions."""
    return atexit._ncallbacks()


def rehearse() -> None:
    """Run the first steps of a child once in the zygote, so that all children inherit filled caches."""
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
    this_script()


def code_folder(code: GoCode) -> str:
    """Return the folder with the modules of a bundle, for `add_to_path`. Raises ImportFailed."""
    folder = unpack_once(code)
    note_unpacked(folder, code.bundle)
    return folder


def add_to_path(folders: tuple[str, ...]) -> None:
    """Let this process import from `folders` first. A process forked from a template may do so already."""
    if tuple(sys.path[: len(folders)]) != folders:
        sys.path[:0] = folders


def exit_code_of(leaving: SystemExit) -> int:
    """Return the exit code that Python itself uses for this SystemExit. If it has a text, write that to stderr."""
    if leaving.code is None:
        return 0
    if isinstance(leaving.code, int):
        return leaving.code & 0xFF
    sys.stderr.write(f"{leaving.code}\n")
    return 1


class PagletProcess:
    """A paglet, and the entry that this process runs for it. `failed`: True once the entry has failed."""

    def __init__(self, channel: Channel, go: Go) -> None:
        self._channel = channel
        self._go = go
        self._context = ChildContext(go, channel.request)
        self._paglet: Paglet[Any]
        self.failed = False
        self._is_over = False
        self._handlers_started = threading.Lock()

    def run(self) -> int:
        """Run the entry to its end, and return the exit code."""
        try:
            copy_files(self._go)
        except PagletsError as error:
            show(error)
            cause = DISK_FULL if isinstance(error, NoRoom) else "spawn_failed"
            return self._send_done(EntryDone(fault=fault_of(error, cause)))
        try:
            self._paglet = self._make_paglet()
        except SystemExit as leaving:
            return exit_code_of(leaving)
        except BaseException as error:
            show(error)
            return self._send_done(EntryDone(fault=entry_fault_of(error, self._go.work_dir)))
        if self._go.entry == "message":
            return self._handle_until_finish()
        try:
            return self._run_entry()
        finally:
            self._context.unit().close()

    def _make_paglet(self) -> Paglet[Any]:
        go = self._go
        add_to_path((*self._own_code(), *go.code_paths))
        cls = resolve_class(go.class_name, Paglet, host_name=go.host.name)
        known = {each.name for each in dataclasses.fields(cls.State)}
        system = {name: value for name, value in go.system.items() if name in known}
        paglet: Paglet[Any] = cls(decode_state(cls.State, {**go.state, **system}), self._context)
        self._context.attach(paglet)
        return paglet

    def _own_code(self) -> tuple[str, ...]:
        """Return the folder of the paglet's unpacked bundle, if the paglet has a bundle."""
        return () if self._go.code is None else (code_folder(self._go.code),)

    # The methods below run the entry.

    def _run_entry(self) -> int:
        if self._go.entry in LONG_ENTRIES:
            self._channel.on_message = self._handle_in_background
            self._handle_in_background()
        try:
            self._limit_hook()
            self._context.reporting.can_defer = self._channel.is_of_worker
            self._call_method()
            with self._context.changed:
                last = self._context.reporting.last(self._context.has_unsent_file)
                if last is not None:
                    self._is_over = True
                    self._channel.hold("done", last)
                    return 0
            if self._go.entry == "dispatching":
                self._context.files.refresh()
            self._call_deactivating(self._context.unit())
            with self._context.changed:
                self._is_over = True
                done = self._done_well(self._context.unit())
        except SystemExit as leaving:
            return exit_code_of(leaving)
        except BaseException as error:
            show(error)
            fault = entry_fault_of(error, self._go.work_dir)
            if fault.cause == DISK_FULL and self._go.entry == "attempt":
                empty_scratch(self._go.work_dir)
            done = EntryDone(fault=fault, keep_scratch=self._context.has_unsent_file)
        # A running handler holds this lock until its commit. No handler starts after `_is_over` is set.
        with self._context.changed:
            self._is_over = True
            return self._send_done(done)

    def _limit_hook(self) -> None:
        """Ask the host to end this hook after `hook_timeout_seconds`. Raises Invalid if that is not a number."""
        seconds = type(self._paglet).hook_timeout_seconds
        if seconds is None or self._go.entry not in HOOK_ENTRIES:
            return
        if not isinstance(seconds, int | float):
            raise Invalid(f"hook_timeout_seconds is {seconds!r:.40}: expected a number of seconds or None")
        self._channel.request("hook_limit", HookLimit(seconds=float(seconds)))

    def _call_deactivating(self, unit: UnitOfWork) -> None:
        if unit.intent.rest is not None:
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

    def _done_well(self, unit: UnitOfWork) -> EntryDone:
        changes = unit.changes(self._context.keeper)
        cls, name = type(self._paglet), ENTRY_METHODS[self._go.entry]
        then_run, is_default = cls.run is not Paglet.run, getattr(cls, name) is getattr(Paglet, name, None)
        return EntryDone(
            changes=changes,
            intent=unit.intent,
            then_run=then_run,
            is_default=is_default,
            keep_scratch=self._context.has_unsent_file,
        )

    def _send_done(self, done: EntryDone) -> int:
        self.failed = done.fault is not None
        if done.is_empty and self._context.reporting.reported:
            self._channel.hold("done", done)
            return 0
        try:
            self._channel.request("done", done)
        except PagletsError as error:
            show(error)
            return EXIT_DONE_REFUSED if done.fault is not None else self._send_done(EntryDone(fault=fault_of(error)))
        if done.fault is None:
            self._context.unit().stored(self._context.keeper, done.changes)
        return 0

    # The methods below handle messages.

    def _handle_until_finish(self) -> int:
        imported_at = self._source_time()
        try:
            while (deliver := self._channel.inbox.get()) is not None:
                if self._source_time() != imported_at:
                    break  # The host delivers this message to a new process, which imports the changed file.
                self._handle(deliver)
        except SystemExit as leaving:
            return exit_code_of(leaving)
        return self._send_done(EntryDone())

    def _source_time(self) -> int:
        """Return the modification time of the file that defines the paglet's class, in ns; 0 if there is no file."""
        path = getattr(sys.modules.get(type(self._paglet).__module__), "__file__", None)
        try:
            return 0 if path is None else os.stat(path).st_mtime_ns
        except OSError:
            return 0

    def _handle_in_background(self) -> None:
        """Start the thread that handles messages, but only if one has arrived, because most jobs receive none."""
        if not self._channel.inbox.empty() and self._handlers_started.acquire(blocking=False):
            in_background(self._handle_until_over)

    def _handle_until_over(self) -> None:
        try:
            while not self._is_over:
                deliver = self._channel.inbox.get()
                if deliver is not None:
                    self._handle(deliver)
        except SystemExit as leaving:
            # `sys.exit` in a handler must end the process, but SystemExit on this thread would only end the thread.
            os._exit(run_exit_functions(exit_code_of(leaving)))

    def _handle(self, deliver: Deliver) -> None:
        context = self._context
        with context.changed:
            if self._is_over:
                return
            with context.handling(deliver) as unit:
                before, handled = self._run_handler(deliver, unit)
                self._send_handled(handled, unit, before)
            context.changed.notify_all()

    def _run_handler(self, deliver: Deliver, unit: UnitOfWork) -> tuple[Snapshot | None, Handled]:
        """Run a handler. Return the snapshot to restore if the host refuses the result, and the result.

        The snapshot is None if the handler failed, because the state is already restored.
        """
        before: Snapshot | None = None
        try:
            before = self._context.keeper.snapshot()
            return before, self._handled_well(deliver, unit)
        except SystemExit:
            raise
        except BaseException as error:
            show(error)
            self._restore_state(before)
            return None, Handled(message_id=deliver.message_id, fault=fault_of(error))

    def _handled_well(self, deliver: Deliver, unit: UnitOfWork) -> Handled:
        sent, keeper = deliver.message, self._context.keeper
        args = decode_fields(sent.args, keep_missing=True)
        try:
            message = Message(sent.kind, args, sent.sender, sent.artifacts, sent.priority)
            value = self._paglet.take_message(message)
            self._call_deactivating(unit)
        except HandlerParked as parked:
            # The handler will run again from its start, so do not send its request to move, deactivate or dispose.
            return Handled(
                message_id=deliver.message_id,
                parked=True,
                wait_seconds=parked.wait_seconds,
                changes=unit.changes(keeper),
            )
        return Handled(
            message_id=deliver.message_id,
            value=encode(value, "reply") if deliver.is_call else None,
            changes=unit.changes(keeper),
            intent=unit.intent,
        )

    def _send_handled(self, handled: Handled, unit: UnitOfWork, before: Snapshot | None) -> None:
        try:
            self._channel.request("handled", handled)
        except PagletsError as error:
            show(error)
            if handled.fault is not None:
                # The host refused the failure as well. End this process, which the host notices.
                raise SystemExit(EXIT_DONE_REFUSED) from error
            self._restore_state(before)
            self._send_handled(Handled(message_id=handled.message_id, fault=fault_of(error)), unit, None)
            return
        if handled.fault is None:
            unit.stored(self._context.keeper, handled.changes)

    def _restore_state(self, before: Snapshot | None) -> None:
        if before is not None:
            self._context.keeper.restore(before)
