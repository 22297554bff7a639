"""The composition root of production: files, threads and sockets around one `Host`."""

from __future__ import annotations

import os
import platform
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from paglets.artifacts.folder import BlobFolder
from paglets.config import HostOptions
from paglets.core import failpoints
from paglets.core.clock import Clock, SystemClock, SystemEntropy
from paglets.core.errors import EXIT_DONE, EXIT_FAILED, PagletsError, StartFailed, StoreUndecided
from paglets.core.text import counted, placed
from paglets.core.urls import normalise_url
from paglets.host import known, runfile
from paglets.host.disk import HostDisk
from paglets.host.folder import HostFolder, open_folder
from paglets.host.host import Host, World
from paglets.host.http.router import Router
from paglets.host.http.routes import ROUTES
from paglets.host.http.server import HttpServer
from paglets.host.meter import MachineMeter
from paglets.host.pulling import Handle, not_yet
from paglets.host.recovery import survivors
from paglets.host.shell import Settings
from paglets.host.threads import Every, Later, RunnerThread
from paglets.host.watch import LOOK_SECONDS, Mender, Watch
from paglets.mesh.addresses import bind_for, public_address, public_url
from paglets.native import load_psutil, psutil_problem
from paglets.program import (
    PROGRAM_VERSION,
    KeptCopy,
    Program,
    child_command,
    child_environment,
    collect_copies,
    enter_copy,
    this_program,
)
from paglets.remote.auth import Verifier
from paglets.remote.exchange import Transport
from paglets.remote.keys import KEY_VARIABLE, host_key, paglets_home
from paglets.remote.local import running_hosts
from paglets.remote.transport import Connections, ThreadedTransport
from paglets.slots.model import Resources
from paglets.worker.launch import Launcher, LaunchEvents
from paglets.worker.launcher import ZygoteLauncher
from paglets.worker.process import kill_survivors

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LAUNCHER_CLOSE_SECONDS = 15.0
FAREWELL_SECONDS = 0.3
"""For the last gossip to go out; who misses it sees the host as offline a little later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """What a host that has started says of itself."""

    host: Host
    server: HttpServer
    url: str


class _Door:
    """What the server hands requests to: nobody until the host is ready."""

    def __init__(self) -> None:
        self.handle: Handle = not_yet


def run_host(options: HostOptions) -> int:
    """Run a host in the foreground until SIGINT, SIGTERM or SIGHUP; gives the exit code. Raises StartFailed."""
    home = paglets_home(os.environ)
    say(enter_copy(home, sys.argv[1:]))
    # Not an Event: a signal that reaches another thread, or comes at a bad moment, does not wake a main thread that
    # waits for a lock, and its handler never runs. The byte that Python writes here for each signal is there to read.
    ended, ending = os.pipe()
    os.set_blocking(ending, False)
    failed: list[BaseException] = []

    def fatal(error: BaseException) -> None:
        failed.append(error)
        os.write(ending, b"!")

    def stop(number: int, frame: FrameType | None) -> None:
        """The byte has been written by now."""

    def listen() -> None:
        signal.set_wakeup_fd(ending, warn_on_full_buffer=False)
        for number in ENDING:
            # Who started it with nohup wants it to go on without a terminal.
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, stop)

    with ExitStack() as stack:
        with _start_failures():
            start(options, home, stack, fatal, listen)
        os.read(ended, 1)
        say(f"paglets: host {options.name} is ending")
    if failed and isinstance(failed[0], StoreUndecided):
        say(f"paglets: {failed[0].message}")
        return failed[0].exit_code
    if failed:
        what = failed[0].message if isinstance(failed[0], PagletsError) else repr(failed[0])
        say(f"paglets: host {options.name} ended by a fault of its store or runner: {what}; see host.log")
        return EXIT_FAILED
    return EXIT_DONE


@contextmanager
def _start_failures() -> Iterator[None]:
    """What a disk has against a start is told as such. Raises StartFailed."""
    try:
        yield
    except OSError as error:
        raise StartFailed(f"the host cannot start: {placed(error)}; mend that, and start it again") from error


def say(text: str) -> None:
    """A line for the person at the terminal; data never goes to stderr, nor this to stdout."""
    # Where the terminal or the pipe is gone nobody listens: the host goes on.
    with suppress(OSError):
        if text:
            print(text, file=sys.stderr, flush=True)


def _tell(folder: HostFolder, text: str) -> None:
    folder.log(text)
    say(f"paglets: {text}")


def start(
    options: HostOptions,
    home: Path,
    stack: ExitStack,
    fatal: Callable[[BaseException], None],
    listen: Callable[[], None],
) -> Ready:
    """Start everything; `stack` ends it in the right order. `listen` is called before anybody can find the host: from
    then on signals end it well. Raises StartFailed, StoreDamaged."""
    clock, entropy = SystemClock(), SystemEntropy()
    _check_name_is_free(home, options)
    _check_code_paths(options)
    peers = others(options)
    key = host_key(
        os.environ,
        entropy=entropy,
        peers=peers,
        key_file=options.key_file,
        config_key_file=options.config_key_file,
    )
    os.environ.pop(KEY_VARIABLE, None)
    failpoints.arm(os.environ.pop(failpoints.VARIABLE, ""))
    folder = stack.enter_context(open_folder(options.data_dir or home / "hosts" / options.name, entropy, fatal))
    later = Later(folder.log)
    stack.callback(later.stop)
    meter = MachineMeter(folder.path, clock, load_psutil())
    verifier = Verifier(key, store_id=folder.store_id, boot_id=folder.boot_id, clock=clock)
    door = _Door()
    server = _server(options, verifier, door, folder)
    server.start()
    stack.callback(server.close)
    program = this_program()
    copy = KeptCopy(program)
    settings = _settings(options, folder, program, server.port, _offered(options, meter.total()), clock.wall())
    if settings.offered.cpu_cores > meter.total().cpu_cores:
        there = meter.total().cpu_cores
        say(f"paglets: warning: this host offers {settings.offered.cpu_cores} cores, and the machine has {there}")
    connections = Connections(key, clock=clock, entropy=entropy, sender=folder.store_id)
    _end_survivors(folder)
    world = World(
        clock=clock,
        entropy=entropy,
        store=folder.store,
        disk=(disk := HostDisk(folder.path, later, folder.log, copy.lacks)),
        blobs=BlobFolder(folder.path, folder.log),
        meter=meter,
        log=folder.log,
        tell=lambda text: _tell(folder, text),
        make_transport=lambda deliver: _transport(connections, deliver, clock, stack),
        make_launcher=lambda events: _launcher(program, events, folder, stack),
    )
    host = Host(settings, world, peers=peers)
    closed = host.start()
    runner = RunnerThread(host.runner, fatal)
    runner.start()
    stack.callback(runner.stop)
    stack.callback(_farewell, host)
    door.handle = host.pulling.handle = Router(host, ROUTES).handle
    listen()
    stack.callback(runfile.write(home, settings))
    _greet(settings, folder, closed, program, home)
    menders = (
        Mender(what=f"a folder in {folder.path}", mend=lambda: _made_anew(disk, folder.path)),
        Mender(what="the copy of the program", mend=copy.restore),
        Mender(what=f"the run file in {home / 'run'}", mend=lambda: runfile.mend(home, settings)),
    )
    watch = Watch(folder.path, menders, disk.obstacle, lambda text: _tell(folder, text), fatal)
    stack.callback(Every(LOOK_SECONDS, watch.look, folder.log).stop)
    return Ready(host=host, server=server, url=settings.url)


def others(options: HostOptions) -> tuple[str, ...]:
    """The peers that are not this host itself: one file of the mesh names the same peers to all its hosts."""
    own = {f"http://{name}:{options.port}" for name in (options.name, platform.node().lower())}
    if options.public_url:
        own.add(normalise_url(options.public_url))
    return tuple(url for url in options.peers if normalise_url(url) not in own)


def _server(options: HostOptions, verifier: Verifier, door: _Door, folder: HostFolder) -> HttpServer:
    more = [] if options.bind_public is None else [(bind_for(_public(options)), options.port)]
    names = [options.name, platform.node(), "localhost"]
    if options.public_url:
        names.append(options.public_url.split("://", 1)[-1])
    address = (options.host, options.port)
    if more and more[0][0] in ("0.0.0.0", "::"):
        # All addresses of the family include the loopback that `host` names.
        address, more = more[0], []
    return HttpServer(
        address=address,
        more_addresses=more,
        handler=lambda request: door.handle(request),
        verifier=verifier,
        allowed_hosts=names,
        log=folder.log,
    )


def _public(options: HostOptions) -> str:
    assert options.bind_public is not None
    return public_address(_interfaces) if options.bind_public == "auto" else options.bind_public


def _interfaces() -> list[str]:
    psutil = load_psutil()
    if psutil is None:
        return []
    return [address.address for addresses in psutil.net_if_addrs().values() for address in addresses]


def _settings(
    options: HostOptions, folder: HostFolder, program: Program, port: int, offered: Resources, now: float
) -> Settings:
    bind = options.host if options.bind_public is None else _public(options)
    url = options.public_url or public_url(bind, port, lambda: public_address(_interfaces))
    local = public_url(options.host, port, lambda: "127.0.0.1")
    return Settings(
        store_id=folder.store_id,
        boot_id=folder.boot_id,
        boot_count=folder.boot_count,
        name=options.name,
        url=url,
        addresses=(local,) if local != url else (),
        mesh_version=options.mesh_version,
        started_at=now,
        offered=offered,
        tags=options.tags,
        properties=tuple(sorted(_properties(options, folder).items())),
        reachable=options.reachable,
        code_paths=options.code_paths,
        pin_cpus=options.pin_cpus,
        artifact_max_bytes=options.artifact_max_bytes,
        artifact_quota_bytes=options.artifact_quota_bytes,
        host_lost_after_seconds=options.host_lost_after_seconds,
        input_wait_seconds=options.input_wait_seconds,
        python=platform.python_version(),
        pid=os.getpid(),
        program=f"paglets {PROGRAM_VERSION}",
        build=program.sha256() if program.is_archive else "",
    )


def _properties(options: HostOptions, folder: HostFolder) -> dict[str, str]:
    """What others are shown; that it was damaged is among them, for as long as its person leaves it there."""
    lost = {"damaged": folder.damaged_at} if folder.damaged_at else {}
    return {**lost, **options.properties}


def _offered(options: HostOptions, total: Resources) -> Resources:
    def given(value: int | None, there: int) -> int:
        return there if value is None else value

    return Resources(
        cpu_cores=given(options.cpu_cores, total.cpu_cores),
        memory_bytes=given(options.memory_bytes, total.memory_bytes),
        temp_storage_bytes=given(options.temp_storage_bytes, total.temp_storage_bytes),
        gpus=given(options.gpus, total.gpus),
    )


def _transport(
    connections: Connections, deliver: Callable[[Callable[[], None]], None], clock: Clock, stack: ExitStack
) -> Transport:
    transport = ThreadedTransport(connections, deliver=deliver, clock=clock)
    stack.callback(transport.close)
    return transport


def _launcher(program: Program, events: LaunchEvents, folder: HostFolder, stack: ExitStack) -> Launcher:
    launcher = ZygoteLauncher(
        child_command(program, "_zygote"),
        child_environment(program, os.environ),
        events,
        psutil=load_psutil(),
        log=folder.log,
        zygote_log=str(folder.path / "host.log"),
    )

    def close() -> None:
        launcher.close()
        launcher.wait_closed(LAUNCHER_CLOSE_SECONDS)

    stack.callback(close)
    return launcher


def _end_survivors(folder: HostFolder) -> None:
    stuck = kill_survivors(folder.store.read(survivors), load_psutil())
    for token in stuck:
        folder.log(f"the process of run {token} of an earlier start cannot be ended; the kernel holds it")


def _farewell(host: Host) -> None:
    gone = threading.Event()

    def leave() -> None:
        host.gossip.leave()
        gone.set()

    host.runner.soon(leave)
    gone.wait(1.0)
    threading.Event().wait(FAREWELL_SECONDS)


def _made_anew(disk: HostDisk, folder: Path) -> str:
    made = disk.make_folders()
    tops = ", ".join(name for name in made if name.rpartition("/")[0] not in made)
    return f"{tops} in {folder} was removed: it was made anew, and what it had is lost" if made else ""


def _check_name_is_free(home: Path, options: HostOptions) -> None:
    """Two hosts of one name on one machine would be taken for one another. Raises StartFailed."""
    for running in running_hosts(home):
        if running.name == options.name:
            raise StartFailed(
                f"a host named {running.name} runs here already, at {running.url} (process {running.pid}): "
                "end that one, or choose another --name"
            )


def _check_code_paths(options: HostOptions) -> None:
    """A folder that is not there would be the failure of every job. Raises StartFailed."""
    for path in options.code_paths:
        if not Path(path).is_dir():
            raise StartFailed(f"the code path {path} is not a folder: mend --code-path or code_paths")


def _greet(settings: Settings, folder: HostFolder, closed: int, program: Program, home: Path) -> None:
    if program.is_archive:
        collect_copies(home, program)
    offered = settings.offered
    say(
        f"paglets: host {settings.name} is ready at {settings.url} (mesh {settings.mesh_version}, "
        f"{counted(offered.cpu_cores, 'core')}, {offered.memory_bytes / (1 << 30):.1f} GiB, {offered.gpus} GPUs"
        + (f", tags {' '.join(settings.tags)}" if settings.tags else "")
        + f"); data in {folder.path}"
    )
    for note in (*folder.notes, *filter(None, [known.warning_of(home, settings.name, folder)])):
        _tell(folder, f"warning: {note}")
    try:
        known.remember(home, settings.name, folder)
    except OSError as error:
        folder.log(f"which store this host has cannot be remembered: {error}")
    if closed:
        cut_off = counted(closed, "process", "processes")
        say(f"paglets: {cut_off} of an earlier start cut off; the jobs go on from the queue")
    if psutil_problem():
        say(f"paglets: measuring without psutil: {psutil_problem()}")
