"""`paglets jobs`: groups, queues and hosts: what runs, what waits, and why."""

from __future__ import annotations

import argparse
from typing import Any

from paglets.cli.commands.logs.parser import add_logs
from paglets.cli.options import (
    AMOUNT_FLAGS,
    Commands,
    Parser,
    add_command,
    add_commands,
    add_common,
    amount_of_bytes,
    count,
    lazy_handler,
)

STATUSES = {
    "running": "pending_jobs",
    "waiting": "pending_jobs",
    "failed": "failures",
    "cancelled": "failures",
    "done": "results",
}
"""Statuses of `jobs list`, in the order of its lines -> the list of a group's summary that has these jobs."""


def parser() -> Parser:
    made = Parser(prog="paglets jobs", description="Groups, queues and hosts: what runs, what waits, and why.")
    commands = add_commands(made)
    _add_listings(commands)
    _add_states(commands)
    _add_waits(commands)
    _add_cancel(commands)
    again = add_command(
        commands,
        "rerun-hook",
        "run a hook of a finished job again that failed (`jobs why` shows it)",
        "jobs rerun-hook words/monday",
    )
    again.add_argument("job", metavar="GROUP/JOBKEY", help="the job")
    add_common(again, lazy_handler("paglets.cli.commands.jobs.rerun_hook", "rerun"), waits=True)
    everything = add_command(commands, "show", "everything about one job: code, files, attempts, result file")
    everything.add_argument("job", metavar="GROUP/JOBKEY|ID", help="a job of a group, or a job's id")
    add_common(everything, lazy_handler("paglets.cli.commands.jobs.show", "show"), asks_all=True)
    add_logs(add_command(commands, "logs", "what a job printed; also as `paglets logs`"))
    _add_hosts(add_command(commands, "hosts", "which hosts could run a job, best first (nothing is submitted)"))
    return made


def _add_listings(commands: Commands) -> None:
    lines = add_command(
        commands,
        "list",
        "jobs that wait or run; of a group all jobs, with their results and failures",
        "jobs list",
        "jobs list words",
        "jobs list words --status failed",
    )
    lines.add_argument("group", nargs="?", metavar="GROUP", help="list all jobs of that group")
    lines.add_argument("--status", choices=list(STATUSES), help="only jobs of that status")
    lines.add_argument("--limit", type=count, default=100, metavar="N", help="jobs shown (default 100)")
    add_common(lines, lazy_handler("paglets.cli.commands.jobs.list", "list_jobs"), asks_all=True)
    lines.set_defaults(last="group")
    listing = add_command(commands, "groups", "groups and their counts; one group with its jobs", "jobs groups")
    listing.add_argument("name", nargs="?", metavar="GROUP", help="show that group: pending jobs, results, failures")
    listing.add_argument("--group", metavar="GROUP", help="the same")
    add_common(listing, lazy_handler("paglets.cli.commands.jobs.groups", "groups"), asks_all=True)
    queue = add_command(commands, "queue", "one host's queue and leases, with CPU ids and usage")
    _add_limit(queue)
    add_common(queue, lazy_handler("paglets.cli.commands.jobs.queue", "queue"))
    processes = add_command(commands, "ps", "what runs now, on all hosts of the mesh, and what it uses")
    processes.add_argument("--all", action="store_true", help="what waits, too")
    _add_limit(processes)
    add_common(processes, lazy_handler("paglets.cli.commands.jobs.list", "ps"), asks_all=True)


def _add_states(commands: Commands) -> None:
    reason = add_command(commands, "why", "why a job, or a group's jobs, do not run or did not succeed")
    reason.add_argument("job", metavar="GROUP|GROUP/JOBKEY|ID", help="a group, a job of a group, or a job's id")
    add_common(reason, lazy_handler("paglets.cli.commands.jobs.why", "why"))
    status = add_command(commands, "status", "how far a group is, in counts", "jobs status words")
    status.add_argument("group", metavar="GROUP")
    add_common(status, lazy_handler("paglets.cli.commands.jobs.overview", "status"))
    past = add_command(commands, "history", "the jobs of a group that ended, newest first", "jobs history words")
    past.add_argument("group", metavar="GROUP")
    past.add_argument("--limit", type=count, default=50, metavar="N", help="jobs shown (default 50)")
    add_common(past, lazy_handler("paglets.cli.commands.jobs.overview", "history"))
    load = add_command(
        commands, "top", "hosts by their load, and the running jobs that use most", "jobs top", "jobs top --watch"
    )
    load.add_argument("--watch", action="store_true", help="again and again, until interrupted")
    load.add_argument("--limit", type=count, default=20, metavar="N", help="jobs shown (default 20)")
    add_common(load, lazy_handler("paglets.cli.commands.jobs.overview", "top"), asks_all=True)


def _add_waits(commands: Commands) -> None:
    for name, handler, purpose in (
        (
            "wait",
            lazy_handler("paglets.cli.commands.jobs.wait", "wait"),
            "wait until all jobs of a group have ended; the exit code says how",
        ),
        (
            "watch",
            lazy_handler("paglets.cli.commands.jobs.wait", "watch"),
            "watch a group until all jobs have ended: a bar, or in a pipe a line for each job",
        ),
    ):
        waiting = add_command(commands, name, purpose, f"jobs {name} words", f"jobs {name} words --timeout 600")
        waiting.add_argument("group", metavar="GROUP")
        add_common(waiting, handler, waits=True)


def _add_cancel(commands: Commands) -> None:
    ending = add_command(
        commands,
        "cancel",
        "end jobs, queued and running ones, with all their processes",
        "jobs cancel words",
        "jobs cancel words/monday words/friday --reason 'wrong input'",
    )
    ending.add_argument("jobs", nargs="+", metavar="GROUP|GROUP/JOBKEY", help="a group, or a job of a group")
    ending.add_argument("--reason", default="", metavar="TEXT", help="kept in the failure of each job")
    ending.add_argument(
        "--force",
        action="store_true",
        help="where the group's collector cannot be asked: each host that answers ends what it has of it",
    )
    add_common(ending, lazy_handler("paglets.cli.commands.jobs.cancel", "cancel"))


def _add_limit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--limit", type=count, default=1000, metavar="N", help="jobs shown of each host (default 1000)")


def _add_hosts(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    repeated: dict[str, Any] = {"action": "append", "default": []}
    add("--tag", dest="required_host_tags", metavar="TAG", help="a tag that the host must have", **repeated)
    add("--prefer-tag", dest="preferred_host_tags", metavar="TAG", help="a tag that is better to have", **repeated)
    add("--exclude-tag", dest="excluded_host_tags", metavar="TAG", help="not on hosts with this tag", **repeated)
    add(
        *("--exclude-host", "--exclude-url"),
        dest="excluded_hosts",
        metavar="NAME|URL",
        help="not on this host",
        **repeated,
    )
    cores, memory, disk = AMOUNT_FLAGS
    size: dict[str, Any] = {"type": amount_of_bytes, "default": 0, "metavar": "SIZE"}
    add(*cores, type=int, default=1, dest="cpu_cores", metavar="N", help="cores that the job needs")
    add(*memory, dest="memory_bytes", help="memory that it needs, as 4G", **size)
    add(*disk, dest="temp_storage_bytes", help="temporary disk that it needs, as 10G", **size)
    add("--gpus", type=int, default=0, metavar="N", help="GPUs that it needs")
    add(
        *("--allow-home", "--home"),
        action="store_true",
        dest="allow_home_compute",
        help="the host asked may run it too",
    )
    add_common(parser, lazy_handler("paglets.cli.commands.jobs.hosts", "hosts"))


# One host's scheduler.


# Placement.
