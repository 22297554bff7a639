"""The host process: create files, threads and sockets, and run one `Host` with them."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import FrameType

from paglets.artifacts.folder import BlobFolder
from paglets.config import HostOptions
from paglets.core import failpoints
from paglets.core.clock import Clock, Entropy, SystemClock, SystemEntropy
from paglets.core.command import NAME, carried_command, program_path
from paglets.core.errors import EXIT_DONE, EXIT_FAILED, PagletsError, StartFailed, StoreUndecided
from paglets.core.text import counted, home_path, placed
from paglets.core.unpacked import HOME_VARIABLE
from paglets.core.urls import is_for_this_machine
from paglets.host import setup
from paglets.host.console import BACKGROUND, Console, address_line, ready_line
from paglets.host.datadir import last_store, permissions, run_file
from paglets.host.datadir.data_directory import LOG_NAME, DataDirectory, open_data_directory
from paglets.host.datadir.disk import HostDisk
from paglets.host.datadir.monitor import CHECK_SECONDS, DataDirectoryMonitor, Repair
from paglets.host.host import Host
from paglets.host.http.router import Router
from paglets.host.http.routes import ROUTES
from paglets.host.http.server import HttpServer
from paglets.host.network.reverse_poller import Handle, not_yet
from paglets.host.records.recovery import survivors
from paglets.host.runtime.meter import MachineMeter
from paglets.host.runtime.services import Environment, Settings
from paglets.host.runtime.threads import BackgroundWorker, MonitorThread, RunnerThread
from paglets.native import load_psutil, psutil_problem
from paglets.program import (
    Program,
    child_command,
    child_environment,
    this_program,
)
from paglets.program_copy import KeptCopy, remove_unused_copies, unpack_problem
from paglets.store import hosts, meta
from paglets.wire.auth import Verifier
from paglets.wire.keys import (
    KEY_VARIABLE,
    MeshKey,
    default_key_file,
    first_key,
    host_key,
    paglets_home,
)
from paglets.wire.local_hosts import running_hosts
from paglets.wire.pooled_client import PooledClient
from paglets.wire.request import Transport
from paglets.wire.transport import ThreadedTransport
from paglets.worker.host.launcher import ZygoteLauncher
from paglets.worker.host.zygote_link import ZygoteSettings
from paglets.worker.launch import Launcher, LaunchEvents
from paglets.worker.linux import zygote_mark
from paglets.worker.processes import kill_survivors, process_table

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LAUNCHER_CLOSE_SECONDS = 15.0
FAREWELL_SECONDS = 0.3
"""The time for sending the last gossip message. A host that misses it detects a little later that this host left."""


class _Handler:
    """The request handler of the server. It rejects all requests until the host is ready."""

    def __init__(self) -> None:
        self.handle: Handle = not_yet


def run_host(options: HostOptions) -> int:
    """Run a host in this process until SIGINT, SIGTERM, SIGHUP or a fatal error. Return the exit code.

    A host started by `host --background` leaves its terminal when it is ready.
    Raises StartFailed, StoreDamaged or StoreTransient if the host cannot start.
    """
    home = paglets_home(os.environ)
    if os.environ.get(HOME_VARIABLE):
        # Store the absolute path, because jobs inherit the variable and run in other folders.
        os.environ[HOME_VARIABLE] = str(home)
    console = Console(background=BACKGROUND in os.environ)
    with _start_failures():
        # Check the permissions before anything in `home` is trusted, above all the copy of the program.
        secured = permissions.secure(home)
    console.warn(secured.changed)
    if problem := unpack_problem(os.environ):
        console.print(
            f"this host runs from {program_path()}, which must not be replaced while the host runs: {problem}"
        )
    os.environ.pop(BACKGROUND, None)
    console.warn(secured.warning)
    umask = os.umask(permissions.UMASK)
    # Use a pipe, because the handler of a signal may never run while the main thread waits for an Event. For each
    # signal, Python writes a byte to the pipe, which the main thread reads.
    stop_reader, stop_writer = os.pipe()
    os.set_blocking(stop_writer, False)
    failed: list[BaseException] = []

    def fatal(error: BaseException) -> None:
        failed.append(error)
        os.write(stop_writer, b"!")

    def stop(number: int, frame: FrameType | None) -> None:
        """Do nothing, because Python has already written a byte to the pipe."""

    def handle_signals() -> None:
        signal.set_wakeup_fd(stop_writer, warn_on_full_buffer=False)
        for number in STOP_SIGNALS:
            # A host started with nohup must continue without its terminal.
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, stop)

    with ExitStack() as stack:
        with _start_failures():
            start(options, home, stack, fatal, handle_signals, umask, console)
        os.read(stop_reader, 1)
        console.print(f"paglets: host {options.name} is stopping")
    if failed and isinstance(failed[0], StoreUndecided):
        console.fail(failed[0])
        return failed[0].exit_code
    if failed:
        what = failed[0].message if isinstance(failed[0], PagletsError) else repr(failed[0])
        console.print(f"paglets: host {options.name} stopped because of an error in its store or runner: {what}")
        console.print("hint: host.log has the details")
        return EXIT_FAILED
    return EXIT_DONE


@contextmanager
def _start_failures() -> Iterator[None]:
    """Raise StartFailed in place of an OSError from the `with` block."""
    try:
        yield
    except OSError as error:
        raise StartFailed(f"the host cannot start: {placed(error)}") from error


def start(
    options: HostOptions,
    home: Path,
    stack: ExitStack,
    fatal: Callable[[BaseException], None],
    handle_signals: Callable[[], None],
    umask: int,
    console: Console,
) -> None:
    """Start all components of the host. `stack` stops them in reverse order. Processes of jobs get `umask`.

    The host accepts requests only after each part has run once and a test transaction has been committed.
    `handle_signals` is called before the run file is written, because `paglets stop` signals a host that has one.
    Raises StartFailed, StoreDamaged, StoreTransient.
    """
    clock, entropy = SystemClock(), SystemEntropy()
    _check_name_is_free(home, options)
    _check_code_paths(options)
    peers = setup.peer_urls(options)
    found = _take_key(options, peers)
    failpoints.arm(os.environ.pop(failpoints.VARIABLE, ""))
    path = options.data_dir or home / "hosts" / options.name
    opened = open_data_directory(path, entropy, fatal, name=options.name, log_level=options.log_level)
    folder = stack.enter_context(opened)
    key = found or _first_key(folder, entropy, console)
    announce = partial(console.announce, folder.log.info)
    background = BackgroundWorker(folder.log)
    stack.callback(background.stop)
    meter = MachineMeter(folder.path, clock, load_psutil())
    verifier = Verifier(key, store_id=folder.store_id, boot_id=folder.boot_id, clock=clock)
    handler = _Handler()
    server = _serve(options, verifier, handler, folder, stack)
    program = this_program()
    copy = KeptCopy(program)
    advertised = setup.AdvertisedUrl(options, server.port)
    settings = setup.settings(options, folder, program, advertised, meter.total(), clock.wall())
    console.warn(_too_many_cores(settings.offered.cpu_cores, meter.total().cpu_cores))
    connections = PooledClient(key, clock=clock, entropy=entropy, sender=folder.store_id)
    _end_survivors(folder)
    disk = HostDisk(folder.path, background, folder.log, copy.lacks)
    environment = Environment(
        clock=clock,
        entropy=entropy,
        store=folder.store,
        disk=disk,
        blobs=BlobFolder(folder.path, folder.log),
        meter=meter,
        log=folder.log,
        announce=announce,
        url=advertised.url,
        refused=server.refused,
        make_transport=lambda deliver: _transport(connections, deliver, clock, stack),
        make_launcher=lambda events: _launcher(program, events, folder, stack, umask),
    )
    host = Host(settings, environment, peers=peers)
    closed = host.start()
    host.runner.step()
    folder.store.write(meta.rewrite)
    _run(host, fatal, stack)
    handler.handle = host.reverse_poller.handle = Router(host, ROUTES).handle
    handle_signals()
    stack.callback(run_file.write(home, settings))
    _report_ready(settings, folder, closed, program, home, console, asked=options.bind_public is not None)
    repairs = (
        Repair(what=f"a folder in {folder.path}", repair=lambda: _recreate_folders(disk, folder.path)),
        Repair(what=f"the lock of {folder.path}", repair=folder.lock.repair),
        Repair(what="the copy of the program", repair=copy.restore),
        Repair(what="the address of this machine", repair=advertised.update),
        Repair(what=f"the run file in {home / 'run'}", repair=lambda: run_file.repair(home, settings)),
    )
    monitor = DataDirectoryMonitor(folder.path, repairs, disk.blocked_reason, announce, fatal)
    stack.callback(MonitorThread(CHECK_SECONDS, monitor.check, folder.log).stop)
    console.detach(folder.log.info, folder.take_output)


def _take_key(options: HostOptions, peers: tuple[str, ...]) -> MeshKey | None:
    """Return the mesh key, or None if there is none yet. Remove the key from the environment, which jobs inherit."""
    key = host_key(
        os.environ,
        peers=peers,
        key_file=options.key_file,
        config_key_file=options.config_key_file,
    )
    os.environ.pop(KEY_VARIABLE, None)
    return key


def _first_key(folder: DataDirectory, entropy: Entropy, console: Console) -> MeshKey:
    """Create a mesh key. Raises StartFailed if this host was in a mesh, because a new key would create another mesh."""
    key = first_key(os.environ, entropy, folder.store.read(hosts.load_others))
    path = home_path(default_key_file(os.environ))
    console.print(f"paglets: made the mesh key {path}; hosts on other machines need a copy of it")
    return key


def _too_many_cores(offered: int, there: int) -> str:
    return f"this host offers {offered} cores, but the machine has only {there}" if offered > there else ""


def _serve(
    options: HostOptions, verifier: Verifier, handler: _Handler, folder: DataDirectory, stack: ExitStack
) -> HttpServer:
    address, *more = setup.listen_addresses(options)
    server = HttpServer(
        address=address,
        more_addresses=more,
        handler=lambda request: handler.handle(request),
        verifier=verifier,
        allowed_hosts=setup.host_names(options),
        log=folder.log,
    )
    server.start()
    stack.callback(server.close)
    return server


def _transport(
    connections: PooledClient, deliver: Callable[[Callable[[], None]], None], clock: Clock, stack: ExitStack
) -> Transport:
    transport = ThreadedTransport(connections, deliver=deliver, clock=clock)
    stack.callback(transport.close)
    return transport


def _launcher(program: Program, events: LaunchEvents, folder: DataDirectory, stack: ExitStack, umask: int) -> Launcher:
    zygote = ZygoteSettings(
        command=child_command(program, "_zygote"),
        # The output of jobs may be read on other machines, so commands in it must not contain a path of this machine.
        environment=child_environment(program, os.environ | carried_command(NAME, str(program.path))),
        log_path=str(folder.path / LOG_NAME),
        store_id=folder.store_id,
        umask=umask,
    )
    launcher = ZygoteLauncher(zygote, events, log=folder.log, table=process_table(load_psutil()))

    def close() -> None:
        launcher.close()
        launcher.wait_closed(LAUNCHER_CLOSE_SECONDS)

    stack.callback(close)
    return launcher


def _end_survivors(folder: DataDirectory) -> None:
    zygotes = (None, None, zygote_mark(folder.store_id))
    stuck = kill_survivors([*folder.store.read(survivors), zygotes], load_psutil())
    for token in stuck:
        folder.log.warning(
            f"the process of run {token} of an earlier start cannot be killed: it is blocked in the kernel"
        )


def _farewell(host: Host) -> None:
    gone = threading.Event()

    def leave() -> None:
        host.gossip.leave()
        gone.set()

    host.runner.call_soon(leave)
    gone.wait(1.0)
    threading.Event().wait(FAREWELL_SECONDS)


def _run(host: Host, fatal: Callable[[BaseException], None], stack: ExitStack) -> None:
    runner = RunnerThread(host.runner, fatal)
    runner.start()
    stack.callback(runner.stop)
    stack.callback(_farewell, host)


def _recreate_folders(disk: HostDisk, folder: Path) -> str:
    made = disk.make_folders()
    tops = ", ".join(name for name in made if name.rpartition("/")[0] not in made)
    return f"{tops} in {folder} was removed and has been recreated; its content is lost" if made else ""


def _check_name_is_free(home: Path, options: HostOptions) -> None:
    """Raise StartFailed if another host of this name runs on this machine."""
    for running in running_hosts(home):
        if running.name == options.name:
            raise StartFailed(
                f"host {running.name} is already running on this machine, at {running.url} (process {running.pid})",
                hint=[f"stop it with `paglets stop {running.name}`, or choose another --name"],
            )


def _check_code_paths(options: HostOptions) -> None:
    """Raise StartFailed if a code path is not a folder, because then every job would fail."""
    for path in options.code_paths:
        if not Path(path).is_dir():
            raise StartFailed(f"the code path {path} is not a folder", hint=["fix --code-path or code_paths"])


def _report_ready(
    settings: Settings,
    folder: DataDirectory,
    closed: int,
    program: Program,
    home: Path,
    console: Console,
    *,
    asked: bool,
) -> None:
    """Print the ready line, the address line and warnings. Remove unused program copies, and remember the store.

    A background host only logs an address that no other machine can use, unless the user `asked` for an address.
    `closed` is the number of runs that an earlier start left open.
    """
    remove_unused_copies(program)
    console.print(ready_line(settings, folder.path))
    address = address_line(settings, folder.path)
    if console.background and not asked and is_for_this_machine(settings.url):
        folder.log.info(address)
    else:
        console.print(address)
    for note in (*folder.notes, *filter(None, [last_store.warning_of(home, settings.name, folder)])):
        console.announce(folder.log.warning, f"warning: {note}")
    try:
        last_store.remember(home, settings.name, folder)
    except OSError as error:
        folder.log.warning(f"the store id of this host cannot be stored for later starts: {error}")
    if closed:
        ended, jobs = counted(closed, "process", "processes"), "its jobs" if closed == 1 else "their jobs"
        console.print(f"paglets: {ended} ended with the previous run of this host; {jobs} are queued again")
    if psutil_problem():
        console.print(f"paglets: warning: resources are measured without psutil: {psutil_problem()}")
