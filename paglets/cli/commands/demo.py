"""`paglets demo`: run a demonstration with three hosts and real input on this machine, then remove its files."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from collections import Counter
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass
from functools import partial
from io import StringIO
from pathlib import Path
from typing import TextIO

from paglets.cli.demo_mesh import HAS_SIGKILL, WAIT_SECONDS, DemoMesh, Interrupted, SignalGuard, wait_for
from paglets.cli.options import Parser
from paglets.cli.output import print_json, print_table, say
from paglets.cli.views.job_records import ended_line
from paglets.client.host_client import HostClient
from paglets.core.command import called_archive
from paglets.core.errors import EXIT_DONE, EXIT_FAILED, Unknown
from paglets.core.terminal import draws_on
from paglets.core.text import command_name, printable
from paglets.examples import identifiers
from paglets.examples.identifiers import SourceFile, Word
from paglets.slots.amounts import bytes_text
from paglets.system.progress import Progress, ProgressBar, how_ended
from paglets.system.submission import Submission

LAPTOP, WORKERS = "laptop", ("linux-a", "gpu-a")
FILES = 200
MOST_BYTES = 8_000_000
"""The maximum size of the input (source files of the standard library). Two cores process it within a few seconds."""

MOST_JOBS = 40
SHOWN_WORDS = 5
SHOWN_DIFFERENCES = 10
LIBRARY = Path(os.__file__).parent


def parser() -> Parser:
    made = Parser(
        prog="paglets demo",
        description=(
            f"Run three hosts on this machine, {LAPTOP}, {' and '.join(WORKERS)}, that index the source of\n"
            f"Python's standard library. The {LAPTOP} submits the jobs and is killed; the work continues. The\n"
            f"{LAPTOP} restarts, receives the results, and compares them with a count in one process.\n"
            "The demo takes less than half a minute and removes all its files."
        ),
        epilog="examples:\n  paglets demo\n  paglets demo --keep\n  paglets demo --json",
    )
    made.add_argument("--files", type=_count, default=FILES, metavar="N", help=f"use N input files (default: {FILES})")
    made.add_argument("--keep", action="store_true", help="keep the folder with the hosts' data")
    made.add_argument("--json", action="store_true", help="print the outcome as JSON, and the steps on stderr")
    made.set_defaults(handler=_demo)
    return made


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number of files")
    return int(text)


@dataclass(kw_only=True)
class DemoOutcome:
    """The outcome of the demonstration, as `--json` prints it."""

    files: int
    bytes: int
    jobs: int
    done: int = 0
    failed: int = 0
    done_before_kill: int = 0
    kills: int = 0
    rows: int = 0
    differences: int = 0
    equal: bool = False
    seconds: float = 0.0
    folder: str | None = None
    uses: tuple[Word, ...] = ()


def _demo(options: argparse.Namespace) -> int:
    files = identifiers.source_files(LIBRARY, most_files=options.files, most_bytes=MOST_BYTES)
    if not files:
        hint = ["run the demo with another Python"]
        raise Unknown(f"Python's standard library has no source files in {LIBRARY}", hint=hint)
    tell = StepLog(sys.stderr if options.json else sys.stdout)
    signals = SignalGuard()
    mesh = DemoMesh(signals, keep=options.keep)
    try:
        with signals, mesh:
            outcome = DemoRun(mesh, tell, files).run()
    except Interrupted as interrupted:
        # The terminal may be closed, so that printing fails.
        with suppress(OSError):
            say(f"interrupted; {mesh.end_text()}")
        return interrupted.exit_code
    tell(mesh.end_text())
    outcome.seconds = round(tell.seconds(), 2)
    outcome.folder = str(mesh.folder) if options.keep else None
    _conclude(outcome, options.json)
    return EXIT_DONE if outcome.equal else EXIT_FAILED


class StepLog:
    """A log that prints each step of the demonstration on a line, with the seconds since the start."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._began = time.monotonic()

    def seconds(self) -> float:
        return time.monotonic() - self._began

    def __call__(self, step: str) -> None:
        print(f"{self.seconds():5.1f} s  {step}", file=self._out, flush=True)


class DemoRun:
    """The demonstration, with one method for each step."""

    def __init__(self, mesh: DemoMesh, tell: StepLog, files: list[SourceFile]) -> None:
        self._mesh = mesh
        self._tell = tell
        self._files = files
        self._bundles = identifiers.bundles(files, MOST_JOBS)
        total = sum(file.size_bytes for file in files)
        self._outcome = DemoOutcome(files=len(files), bytes=total, jobs=len(self._bundles))

    def run(self) -> DemoOutcome:
        laptop, workers = self._start()
        group_id = self._submit(laptop)
        laptop.close()
        self._kill(group_id, workers[0])
        self._follow_work(group_id, workers[0])
        self._come_home(group_id, workers[0])
        return self._outcome

    def _start(self) -> tuple[HostClient, list[HostClient]]:
        self._tell(f"starting three hosts on this machine, in {printable(self._mesh.folder)}")
        self._mesh.start(LAPTOP, "--tag", "laptop")
        laptop = self._mesh.client(LAPTOP)
        for name in WORKERS:
            self._mesh.start(name, "--peer", laptop.host.url, "--tag", "linux")
        workers = [self._mesh.client(name) for name in WORKERS]
        wait_for(lambda: _all_know_all(laptop, *workers), "the hosts to know each other")
        self._tell(f"{LAPTOP}, {' and '.join(WORKERS)} run and know each other; each offers one core to jobs")
        return laptop, workers

    def _submit(self, laptop: HostClient) -> str:
        outcome = self._outcome
        self._tell(
            f"input: {outcome.files} files of Python's standard library, {bytes_text(outcome.bytes)}, from {LIBRARY}"
        )
        # Hide the hints that `submit` prints: they name commands that do not work after the demo.
        with redirect_stderr(StringIO()):
            submission = identifiers.submit(laptop, self._bundles)
        self._tell(f"the {LAPTOP} submitted {outcome.jobs} jobs; each writes a database of its files' identifiers")
        wait_for(lambda: submission.detached, "the jobs to be detached", WAIT_SECONDS)
        collector = laptop.group(submission.group_id).collector.host.name
        self._tell(
            f"detached: the jobs and their files are on {' and '.join(WORKERS)}, the collector is on {collector}"
        )
        return submission.group_id

    def _kill(self, group_id: str, other: HostClient) -> None:
        pid = self._mesh.kill(LAPTOP)
        self._outcome.kills += 1
        how = "kill -9" if HAS_SIGKILL else "TerminateProcess (Windows has no kill -9)"
        self._tell(f"{how}: the {LAPTOP}, process {pid}, is dead")
        summary = wait_for(lambda: other.summary(group_id), "the collector")
        self._outcome.done_before_kill = summary["completed_count"]
        running = sum(slots.running_jobs for slots in other.mesh_slots(limit=1)[0])
        done, expected = summary["completed_count"], summary["expected_count"]
        self._tell(f"{other.host.name} reports: {done} of {expected} jobs done, {running} running")

    def _follow_work(self, group_id: str, other: HostClient) -> None:
        jobs, by_host = self._outcome.jobs, Counter[str]()
        bar = ProgressBar(f"without the {LAPTOP}", time.monotonic, all_failures=True)
        progress = bar.progress
        progress.expected = progress.pending = jobs
        show = bar.show if draws_on(sys.stderr) else partial(self._quarters, progress)
        for key, record in _submission(group_id, other).as_completed(2 * WAIT_SECONDS):
            progress.news = [(key, record)]
            progress.counts[how_ended(record)] += 1
            progress.pending -= 1
            by_host[record["host_name"]] += 1
            if progress.ended > self._outcome.done_before_kill:
                show()
        self._outcome.done = progress.counts["done"]
        self._outcome.failed = progress.ended - self._outcome.done
        shares = ", ".join(f"{count} on {name}" for name, count in sorted(by_host.items()))
        self._tell(f"{progress.words()} without the {LAPTOP}: {shares}")

    def _quarters(self, progress: Progress) -> None:
        """Print new failures, and the progress after each quarter of the jobs. Used if stderr is not a terminal."""
        for key, record in progress.news:
            if how_ended(record) != "done":
                say(ended_line(key, record))
        if progress.pending and progress.ended % max(1, self._outcome.jobs // 4) == 0:
            self._tell(progress.words())

    def _come_home(self, group_id: str, other: HostClient) -> None:
        status = wait_for(lambda: other.summary(group_id), "the collector")
        self._tell(
            f"the collector on {status['collector']['host_name']} reports {status['status']}; restarting the {LAPTOP}"
        )
        self._mesh.start(LAPTOP, "--tag", "laptop", "--peer", other.host.url)
        with self._mesh.client(LAPTOP) as laptop:
            wait_for(lambda: _is_home(laptop, group_id), "the collector to move home")
            self._tell(f"the collector has moved home to the {LAPTOP} with all results")
            self._compare(laptop, group_id)

    def _compare(self, laptop: HostClient, group_id: str) -> None:
        outcome, folder = self._outcome, self._mesh.folder / "results"
        folder.mkdir()
        databases = identifiers.fetch(laptop, _submission(group_id, laptop), folder)
        uses = identifiers.merge(databases, self._mesh.folder / identifiers.DATABASE)
        outcome.rows = len(uses)
        outcome.uses = tuple(identifiers.most_used(uses, SHOWN_WORDS))
        self._tell(f"fetched {len(databases)} databases from the {LAPTOP} and merged them: {outcome.rows:,} rows")
        expected = identifiers.uses_in((file.name, file.path) for file in self._files)
        wrong = identifiers.differences(uses, expected)
        outcome.differences = len(wrong)
        outcome.equal = not wrong and not outcome.failed
        self._tell(
            f"counted again in one process without paglets: {len(expected):,} rows, "
            + ("all equal" if not wrong else f"{len(wrong):,} DIFFERENT")
        )
        for line in wrong[:SHOWN_DIFFERENCES]:
            say(line)


def _all_know_all(*clients: HostClient) -> bool:
    return all(sum(view.online for view in client.hosts()) == len(clients) for client in clients)


def _is_home(laptop: HostClient, group_id: str) -> bool:
    summary = laptop.summary(group_id)
    return bool(summary["status"] == "COMPLETE" and summary["collector"]["host_name"] == LAPTOP)


def _submission(group_id: str, client: HostClient) -> Submission:
    """Return a Submission of an existing group, to follow it through a host that did not submit it."""
    return Submission(client.group(group_id), client, lambda: client.group(group_id))


def _conclude(outcome: DemoOutcome, as_json: bool) -> None:
    if as_json:
        print_json(outcome)
        return
    print()
    rows = [(word.identifier, f"{word.uses:,}", f"{word.files:,}") for word in outcome.uses]
    print_table(("IDENTIFIER", "USES", "FILES"), rows)
    print()
    print("next:")
    commands = _next_commands(outcome.folder, command_name())
    width = max(len(command) for command in commands)
    for command, purpose in commands.items():
        print(f"  {command:<{width}}  # {purpose}")


def _next_commands(folder: str | None, command: str) -> dict[str, str]:
    """Return the commands to run next, each with its purpose."""
    if folder is not None:
        home = f"PAGLETS_HOME={shlex.quote(folder)}/home"
        return {
            f"{home} {command} host --name {LAPTOP}": f"start the {LAPTOP} with the group again",
            f"{home} {command} jobs groups": "list the group, in another terminal",
            f"rm -r {shlex.quote(folder)}": "remove the data",
        }
    commands = {
        f"{command} demo --keep": "run the demo again and keep the hosts' data",
        f"{command} host": "start a host of your own",
    }
    archive, _ = called_archive()
    if archive:
        commands[f"unzip -p {shlex.quote(archive)} src/paglets/examples/identifiers.py"] = (
            "print this demo's job, to copy it"
        )
    return commands
