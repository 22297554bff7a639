"""Kill, stop and cut off five real hosts at random, then check every record and every artifact.

    python -m tests.fault.chaos [--seconds 60] [--jobs 200] [--seed N] [--lost-after S] [--pyz FILE] [--keep DIR] [-v]

Print one line of JSON (`Verdict`). The exit code is 1 if a record is lost or wrong, or something is left over. The seed
decides the faults, their targets and times, but not the exact moment in each process.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import psutil

from build_zipapp import ROOT
from paglets.client.host_client import HostClient
from paglets.core.errors import PagletsError
from paglets.core.failpoints import VARIABLE
from paglets.system.compute_slots import submit_compute_job_group
from tests.acceptance.rig import HostProcess, Mesh, group_lines, is_home, wait_until
from tests.fault.hosts import zygotes
from tests.fault.plan import HARMS, HOME, NAMES, Fault, Wave, plan
from tests.fault.proxy import FaultProxy
from tests.fault.verdict import Verdict, look, wait_quiet

from byte_jobs import Bytes  # isort: skip  (its folder is on the path since the rig was imported)

CORES = 1

END_SECONDS = 3.0
"""The time limit for a host to end by SIGTERM. After that it is killed."""

HEAL_SECONDS = 120.0
"""The time limit for all groups to end and return home after the last fault."""


class Chaos:
    """An executor of a plan's faults. It starts the hosts of a mesh."""

    def __init__(self, mesh: Mesh, proxies: dict[str, FaultProxy], say: Callable[[str], None]) -> None:
        self._mesh = mesh
        self._proxies = proxies
        self._say = say
        self._began = time.monotonic()
        self._undoing: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._ending: set[str] = set()
        self._armed: set[str] = set()
        self.counts: Counter[str] = Counter()

    def start_hosts(self, *arguments: object) -> None:
        for name in NAMES:
            proxy = self._proxies[name]
            peers = [word for other in NAMES if other != name for word in ("--peer", self._proxies[other].url)]
            # The first host must make the key; then all are equal.
            peers = peers if name != HOME else []
            host = self._mesh.host(
                name, "--public-url", proxy.url, "--mesh-version", "chaos", "--cpu-cores", CORES, *peers, *arguments
            )
            proxy.port = host.port
            host.spawn()
            if name == HOME:
                host.wait_ready()
        for name in NAMES[1:]:
            self._mesh[name].wait_ready()
        self._mesh.wait_joined()

    def run(self, faults: tuple[Fault, ...], seconds: float) -> None:
        self._began = time.monotonic()
        for fault in faults:
            self._wait_until(fault.at)
            self._revive()
            said = f"{fault.act:11s} {fault.host:8s} {fault.seconds:5.2f} s  {fault.harm:13s}  {fault.point}"
            self._say(f"{self._now():7.3f}  {said}")
            with suppress(psutil.Error):
                ACTS[fault.act][1](self, fault, self._mesh[fault.host])
        self._wait_until(seconds)

    def heal(self) -> None:
        """Undo all faults that are still active, and disarm failpoints."""
        while self._undoing:
            heapq.heappop(self._undoing)[2]()
        for name in sorted(self._armed):
            self._mesh[name].kill()
            self._restart(self._mesh[name])
        for host in self._mesh.running():
            self._wait_ready(host)

    def _wait_ready(self, host: HostProcess) -> None:
        try:
            host.wait_ready()
        except AssertionError as error:
            raise AssertionError(f"{host.name} does not start again: {error}") from error

    def _now(self) -> float:
        return time.monotonic() - self._began

    def _wait_until(self, at: float) -> None:
        while self._undoing and self._undoing[0][0] <= at:
            due, _, undo = heapq.heappop(self._undoing)
            time.sleep(max(0.0, due - self._now()))
            undo()
        time.sleep(max(0.0, at - self._now()))

    def _undo_after(self, seconds: float, undo: Callable[[], None]) -> None:
        heapq.heappush(self._undoing, (self._now() + seconds, next(self._numbers), undo))

    # Faults.

    def kill(self, fault: Fault, host: HostProcess) -> None:
        if host.process is not None and not self._is_ending(host):
            host.kill()
            self._proxies[host.name].follow(False)
            self.counts["kills"] += 1
            self._undo_after(fault.seconds, partial(self._restart, host, fault.point))

    def kill_all(self, fault: Fault, host: HostProcess) -> None:
        """Kill all hosts. They restart one after the other, in an order that follows from the seed."""
        order = random.Random(fault.pick).sample(NAMES, len(NAMES))
        for nth, name in enumerate(order, start=1):
            self.kill(replace(fault, seconds=fault.seconds * nth / len(NAMES)), self._mesh[name])

    def end(self, fault: Fault, host: HostProcess) -> None:
        """Stop a host as a person does. Kill it if that takes too long."""
        if host.process is not None and not self._is_ending(host):
            host.process.terminate()
            self._ending.add(host.name)
            self.counts["ends"] += 1
            self._undo_after(END_SECONDS + fault.seconds, partial(self._restart, host, fault.point))

    def _is_ending(self, host: HostProcess) -> bool:
        return host.name in self._ending

    def _revive(self) -> None:
        """Restart a host that died at its failpoint."""
        for name in sorted(self._armed - self._ending):
            process = self._mesh[name].process
            if process is not None and process.poll() is not None:
                self.counts["points"] += 1
                self._mesh[name].kill()
                self._restart(self._mesh[name])

    def _restart(self, host: HostProcess, point: str = "") -> None:
        if self._is_ending(host):
            self._ending.discard(host.name)
            host.kill()
        host.spawn(**({VARIABLE: point} if point else {}))
        (self._armed.add if point else self._armed.discard)(host.name)
        self._proxies[host.name].follow(True)
        self.counts["restarts"] += 1

    def cut(self, fault: Fault, host: HostProcess) -> None:
        self.counts["cuts"] += self._proxies[fault.host].cut()

    def harm(self, fault: Fault, host: HostProcess) -> None:
        proxy = self._proxies[fault.host]
        proxy.set(**HARMS[fault.harm])
        self.counts["harms"] += 1
        self._undo_after(fault.seconds, proxy.heal)

    def stop_host(self, fault: Fault, host: HostProcess) -> None:
        if host.process is not None:
            self._stop(psutil.Process(host.pid), fault.seconds)

    def stop_zygote(self, fault: Fault, host: HostProcess) -> None:
        for zygote in zygotes(host):
            self._stop(zygote, fault.seconds)

    def stop_child(self, fault: Fault, host: HostProcess) -> None:
        children = [child for zygote in zygotes(host) for child in zygote.children()]
        if children:
            self._stop(children[int(fault.pick * len(children))], fault.seconds)

    def kill_zygote(self, fault: Fault, host: HostProcess) -> None:
        for zygote in zygotes(host):
            zygote.kill()
            self.counts["kills"] += 1

    def _stop(self, process: psutil.Process, seconds: float) -> None:
        process.send_signal(signal.SIGSTOP)
        self.counts["stops"] += 1
        self._undo_after(seconds, partial(_go_on, process))


ACTS: dict[str, tuple[int, Callable[[Chaos, Fault, HostProcess], None]]] = {
    "kill": (16, Chaos.kill),
    "kill all": (1, Chaos.kill_all),
    "end": (3, Chaos.end),
    "cut": (10, Chaos.cut),
    "harm": (12, Chaos.harm),
    "stop host": (8, Chaos.stop_host),
    "stop zygote": (4, Chaos.stop_zygote),
    "stop child": (4, Chaos.stop_child),
    "kill zygote": (2, Chaos.kill_zygote),
}
"""The faults and their relative frequencies."""

WEIGHTS = {name: weight for name, (weight, _) in ACTS.items()}


def _go_on(process: psutil.Process) -> None:
    with suppress(psutil.Error):
        process.send_signal(signal.SIGCONT)


class Submitter:
    """A submitter of the waves. It repeats each one until it is acknowledged."""

    def __init__(self, mesh: Mesh, url: str, waves: tuple[Wave, ...], most_seconds: float) -> None:
        self._environ = {"PAGLETS_HOME": str(mesh.home)}
        self._url = url
        self._waves = waves
        self._most_seconds = most_seconds
        self._began = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="submitter", daemon=True)
        self.tries = 0
        self.acknowledged: list[Wave] = []
        self.errors: Counter[str] = Counter()

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        self._thread.join(self._most_seconds)
        assert not self._thread.is_alive(), "the submitter hangs"

    def _run(self) -> None:
        for wave in self._waves:
            time.sleep(max(0.0, self._began + wave.at - time.monotonic()))
            while not self._submit(wave):
                if time.monotonic() - self._began > self._most_seconds:
                    return
                time.sleep(0.1)

    def _submit(self, wave: Wave) -> bool:
        self.tries += 1
        try:
            with HostClient(self._url, environ=self._environ, timeout=5.0) as client:
                submit_compute_job_group(
                    client,
                    Bytes,
                    list(wave.states),
                    group_id=wave.group_id,
                    collector_host=wave.collector_host,
                    return_home_when_complete=True,
                )
        except PagletsError as error:
            self.errors[error.code] += 1
            return False
        self.acknowledged.append(wave)
        return True


# The whole run.


def wait_all_home(mesh: Mesh, waves: list[Wave], say: Callable[[str], None]) -> None:
    """Wait until each group is complete and its collector at home, or the time is over."""
    began = time.monotonic()
    away = [wave.group_id for wave in waves]

    def home() -> bool:
        before = list(away)
        with suppress(PagletsError):
            away[:] = [group_id for group_id in away if not is_home(mesh[HOME], group_id)]
        if away != before:
            say(f"{time.monotonic() - began:7.3f}  away: {' '.join(away)}")
        return not away

    with suppress(AssertionError):
        wait_until(home, timeout_seconds=HEAL_SECONDS, what="the collectors to come home")
    for group_id in away:
        print(f"not home: {group_lines(mesh[HOME]).get(group_id)}", file=sys.stderr)


def run(
    mesh: Mesh,
    *,
    seconds: float,
    jobs: int,
    seed: int,
    lost_after: float | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Verdict:
    """Run the whole test on a mesh without hosts. The caller closes the mesh."""
    made = plan(seconds, jobs, seed, WEIGHTS, lost_after)
    verdict = Verdict(seed=seed, jobs=jobs)
    with ExitStack() as stack:
        proxies = {name: stack.enter_context(FaultProxy(seed=seed + n)) for n, name in enumerate(NAMES)}
        chaos = Chaos(mesh, proxies, say)
        chaos.start_hosts(*([] if lost_after is None else ["--host-lost-after", lost_after]))
        submitter = Submitter(mesh, proxies[HOME].url, made.waves, seconds + HEAL_SECONDS)
        submitter.start()
        chaos.run(made.faults, seconds)
        chaos.heal()
        healed = time.monotonic()
        submitter.join()
        wait_all_home(mesh, submitter.acknowledged, say)
        verdict.seconds_to_heal = round(time.monotonic() - healed, 1)
        say(f"submissions: {submitter.tries}, refused: {dict(submitter.errors)}")
        folder = mesh.folder / "got"
        folder.mkdir()
        for wave in made.waves:
            look(mesh, wave, verdict, folder)
        verdict.left = wait_quiet(mesh)
        verdict.waves, verdict.acknowledged = len(made.waves), len(submitter.acknowledged)
        verdict.submissions = submitter.tries
        for name, count in chaos.counts.items():
            setattr(verdict, name, count)
    return verdict


def close(mesh: Mesh) -> list[str]:
    """End the hosts. Return those that do not end."""
    try:
        mesh.close()
    except AssertionError as error:
        return [str(error)]
    return []


# The command.


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fault.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--lost-after", type=float, help="hosts are lost after so many seconds, and some are away longer"
    )
    parser.add_argument("--pyz", type=Path, help="the archive to run (default: it is built)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep all files of the hosts there if it fails")
    parser.add_argument("-v", "--verbose", action="store_true", help="say on stderr what is done to whom")
    given = parser.parse_args(argv)
    # Catch an exception too: whoever ends this, the started processes must end.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    with tempfile.TemporaryDirectory(prefix="chaos-") as name:
        folder = Path(name)
        mesh = Mesh(folder / "mesh", given.pyz.absolute() if given.pyz else build(folder), sys.executable)
        say = partial(print, file=sys.stderr, flush=True) if given.verbose else (lambda text: None)
        good = False
        try:
            verdict = run(
                mesh,
                seconds=given.seconds,
                jobs=given.jobs,
                seed=given.seed,
                lost_after=given.lost_after,
                say=say,
            )
            verdict.left += close(mesh)
            print(json.dumps(asdict(verdict)), flush=True)
            good = verdict.is_good
        finally:
            for process in mesh.processes():
                with suppress(psutil.Error):
                    process.kill()
            if given.keep and not good:
                shutil.copytree(folder / "mesh", given.keep, symlinks=True, dirs_exist_ok=True)
    return 0 if good else 1


def build(folder: Path) -> Path:
    path = folder / "paglets.pyz"
    command = [sys.executable, ROOT / "build_zipapp.py", "--output", path]
    subprocess.run(command, check=True, timeout=300, stdout=subprocess.DEVNULL)
    return path


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
