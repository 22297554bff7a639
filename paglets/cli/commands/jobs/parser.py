"""The parser of `paglets jobs` and its subcommands."""

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
"""The statuses of jobs, in the order of `jobs list`. Each maps to the field of a group's summary with these jobs."""


def parser() -> Parser:
    made = Parser(prog="paglets jobs", description="List, explain, watch and cancel jobs and groups.")
    commands = add_commands(made)
    _add_listings(commands)
    _add_states(commands)
    _add_waits(commands)
    _add_cancel(commands)
    again = add_command(
        commands,
        "rerun-hook",
        "rerun the failed hooks of a finished job (`jobs why` shows them)",
        "jobs rerun-hook words/monday",
    )
    again.add_argument("job", metavar="GROUP/JOBKEY", help="rerun the hooks of this job")
    add_common(again, lazy_handler("paglets.cli.commands.jobs.rerun_hook", "rerun"), waits=True)
    everything = add_command(commands, "show", "show all details of one job: code, files, attempts, result file")
    everything.add_argument("job", metavar="GROUP/JOBKEY|ID", help="name the job by its group and key, or by its id")
    add_common(everything, lazy_handler("paglets.cli.commands.jobs.show", "show"), asks_all=True)
    add_logs(add_command(commands, "logs", "show the output of a job, like `paglets logs`"))
    _add_hosts(add_command(commands, "hosts", "list the hosts that could run a job, best first (submits nothing)"))
    return made


def _add_listings(commands: Commands) -> None:
    lines = add_command(
        commands,
        "list",
        "list waiting and running jobs, or all jobs of a group with their results and failures",
        "jobs list",
        "jobs list words",
        "jobs list words --status failed",
    )
    lines.add_argument("group", nargs="?", metavar="GROUP", help="list all jobs of this group")
    lines.add_argument("--status", choices=list(STATUSES), help="list only jobs with this status")
    lines.add_argument("--limit", type=count, default=100, metavar="N", help="show at most N jobs (default: 100)")
    add_common(lines, lazy_handler("paglets.cli.commands.jobs.list", "list_jobs"), asks_all=True)
    lines.set_defaults(last="group")
    listing = add_command(commands, "groups", "list groups with counts, or show one group with its jobs", "jobs groups")
    listing.add_argument("name", nargs="?", metavar="GROUP", help="show the jobs, results and failures of this group")
    listing.add_argument("--group", metavar="GROUP", help="show this group, like the argument GROUP")
    add_common(listing, lazy_handler("paglets.cli.commands.jobs.groups", "groups"), asks_all=True)
    queue = add_command(commands, "queue", "show the queue and leases of one host, with CPU ids and resource usage")
    _add_limit(queue)
    add_common(queue, lazy_handler("paglets.cli.commands.jobs.queue", "queue"))
    processes = add_command(commands, "ps", "list running jobs on all hosts, with their resource usage")
    processes.add_argument("--all", action="store_true", help="list waiting jobs, too")
    _add_limit(processes)
    add_common(processes, lazy_handler("paglets.cli.commands.jobs.list", "ps"), asks_all=True)


def _add_states(commands: Commands) -> None:
    reason = add_command(commands, "why", "explain why jobs wait, failed or were cancelled")
    reason.add_argument("job", metavar="GROUP|GROUP/JOBKEY|ID", help="explain this group, or this job")
    add_common(reason, lazy_handler("paglets.cli.commands.jobs.why", "why"))
    status = add_command(commands, "status", "count the jobs of a group by status", "jobs status words")
    status.add_argument("group", metavar="GROUP", help="count the jobs of this group")
    add_common(status, lazy_handler("paglets.cli.commands.jobs.overview", "status"))
    past = add_command(commands, "history", "list the ended jobs of a group, newest first", "jobs history words")
    past.add_argument("group", metavar="GROUP", help="list the jobs of this group")
    past.add_argument("--limit", type=count, default=50, metavar="N", help="show at most N jobs (default: 50)")
    add_common(past, lazy_handler("paglets.cli.commands.jobs.overview", "history"))
    load = add_command(
        commands, "top", "show the load of all hosts and the busiest jobs", "jobs top", "jobs top --watch"
    )
    load.add_argument("--watch", action="store_true", help="repeat until interrupted")
    load.add_argument("--limit", type=count, default=20, metavar="N", help="show at most N jobs (default: 20)")
    add_common(load, lazy_handler("paglets.cli.commands.jobs.overview", "top"), asks_all=True)


def _add_waits(commands: Commands) -> None:
    for name, handler, purpose in (
        (
            "wait",
            lazy_handler("paglets.cli.commands.jobs.wait", "wait"),
            "wait until all jobs of a group have ended, and return the outcome as the exit code",
        ),
        (
            "watch",
            lazy_handler("paglets.cli.commands.jobs.wait", "watch"),
            "watch a group until all jobs have ended: a bar on a terminal, else a line for each job",
        ),
    ):
        waiting = add_command(commands, name, purpose, f"jobs {name} words", f"jobs {name} words --timeout 600")
        waiting.add_argument("group", metavar="GROUP", help="follow the jobs of this group")
        add_common(waiting, handler, waits=True)


def _add_cancel(commands: Commands) -> None:
    ending = add_command(
        commands,
        "cancel",
        "cancel queued and running jobs, and end all their processes",
        "jobs cancel words",
        "jobs cancel words/monday words/friday --reason 'wrong input'",
    )
    ending.add_argument("jobs", nargs="+", metavar="GROUP|GROUP/JOBKEY|ID", help="cancel this group, or this job")
    ending.add_argument("--reason", default="", metavar="TEXT", help="store this text in the failure of each job")
    ending.add_argument(
        "--force",
        action="store_true",
        help="cancel without the collector; if its host was removed, also delete the results that wait for it",
    )
    add_common(ending, lazy_handler("paglets.cli.commands.jobs.cancel", "cancel"))


def _add_limit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--limit", type=count, default=1000, metavar="N", help="show at most N jobs of each host (default: 1000)"
    )


def _add_hosts(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    repeated: dict[str, Any] = {"action": "append", "default": []}
    add("--tag", dest="required_host_tags", metavar="TAG", help="require this tag", **repeated)
    add("--prefer-tag", dest="preferred_host_tags", metavar="TAG", help="prefer hosts with this tag", **repeated)
    add("--exclude-tag", dest="excluded_host_tags", metavar="TAG", help="exclude hosts with this tag", **repeated)
    add(
        *("--exclude-host", "--exclude-url"),
        dest="excluded_hosts",
        metavar="NAME|URL",
        help="exclude this host",
        **repeated,
    )
    cores, memory, disk = AMOUNT_FLAGS
    size: dict[str, Any] = {"type": amount_of_bytes, "default": 0, "metavar": "SIZE"}
    add(*cores, type=int, default=1, dest="cpu_cores", metavar="N", help="require this many cores (default: 1)")
    add(*memory, dest="memory_bytes", help="require this much memory, such as 4G", **size)
    add(*disk, dest="temp_storage_bytes", help="require this much temporary disk, such as 10G", **size)
    add("--gpus", type=int, default=0, metavar="N", help="require this many GPUs")
    add(
        *("--allow-home", "--home"),
        action="store_true",
        dest="allow_home_compute",
        help="include the host that this command connects to",
    )
    add_common(parser, lazy_handler("paglets.cli.commands.jobs.hosts", "hosts"))
