"""The handlers of `paglets jobs status`, `history` and `top`."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter, deque
from typing import Any

from paglets.api.slots import JobView, Slots
from paglets.cli.collectors import collector_caller, collector_of
from paglets.cli.options import LOOK_SECONDS, client_of
from paglets.cli.output import (
    ago,
    attempt_text,
    notice_if_slow,
    print_fields,
    print_json,
    print_table,
    say,
    waiting_for_all,
)
from paglets.cli.views.job_records import why_ended
from paglets.cli.views.offline_hosts import MissingHosts
from paglets.cli.views.wait_reasons import job_name
from paglets.client.host_client import HostClient
from paglets.core.errors import EXIT_DONE
from paglets.core.messages import Message
from paglets.core.record import to_json
from paglets.core.text import duration_text
from paglets.slots.amounts import bytes_text
from paglets.system.progress import how_ended

EVERY_SECONDS = 2.0
ENDED_HEADERS = ("ENDED", "JOB", "HOW", "HOST", "ATTEMPT", "TIME", "CAUSE")
HOST_HEADERS = ("HOST", "CORES", "MEMORY", "DISK", "GPUS", "RUNNING", "QUEUED")
TOP_HEADERS = ("HOST", "JOB", "ATTEMPT", "TIME", "CORES", "CPU", "RSS", "SCRATCH", "PROCESSES")


# The functions below run `jobs status`.


def status(options: argparse.Namespace) -> int:
    """Show how many jobs of a group are done, failed and pending."""
    with client_of(options) as client:
        reply = collector_caller(client, options.group)(Message("counts"))
    counts = status_counts(reply)
    if options.json:
        print_json(counts)
        return EXIT_DONE
    pending = ", ".join(f"{count:,} {name}" for name, count in counts["pending"].items())
    print_fields(
        {
            "group": counts["group_id"],
            "status": counts["status"],
            "done": f"{counts['completed_count']:,} of {counts['expected_count']:,}",
            "failed": _failed_text(counts),
            "pending": pending,
            "last report": ago(reply["last_report_at"], time.time()),
        }
    )
    return EXIT_DONE


def _failed_text(counts: dict[str, Any]) -> str:
    """Return a text such as `3 (2 cancelled, 1 exception)`, or "" if no job has failed."""
    causes = ", ".join(f"{count:,} {cause}" for cause, count in counts["failed"].items())
    return f"{counts['failed_count']:,} ({causes})" if causes else ""


def status_counts(reply: dict[str, Any]) -> dict[str, Any]:
    """Return the counts in a collector's reply. `pending` counts by status, `failed` by cause, most frequent first."""
    names = ("group_id", "status", "expected_count", "completed_count", "failed_count", "pending_count")
    by = {name: dict(Counter(reply[name]).most_common()) for name in ("pending", "failed")}
    return {**{name: reply[name] for name in names}, **by}


# The functions below run `jobs history`.


def history(options: argparse.Namespace) -> int:
    """List the ended jobs of a group, newest first."""
    with client_of(options) as client:
        entries = _newest(client, options.group, options.limit)
    if options.json:
        print_json({"group_id": options.group, "ended": entries})
        return EXIT_DONE
    if entries:
        print_table(ENDED_HEADERS, [_ended_row(entry, time.time()) for entry in entries])
    else:
        say(f"no job of {options.group} has ended yet")
    return EXIT_DONE


def _newest(client: HostClient, group_id: str, limit: int) -> list[dict[str, Any]]:
    """Return the `limit` newest entries of the collector's list of ended jobs, newest first."""
    collector = collector_of(client, group_id)
    found: deque[dict[str, Any]] = deque(maxlen=limit)
    after = 0
    while True:
        page = client.call_tree(collector, Message("ended", {"after": after}))
        if not page["ended"]:
            return list(reversed(found))
        found.extend(page["ended"])
        after = page["next"]


def _ended_row(entry: dict[str, Any], now: float) -> tuple[object, ...]:
    record = entry.get("result") or entry["failure"]
    runtime = record.get("runtime_seconds")
    return (
        ago(record.get("reported_at"), now),
        entry["job_key"],
        how_ended(record),
        record.get("host_name") or "",
        attempt_text(record.get("generation"), record.get("attempt")),
        "" if runtime is None else duration_text(runtime),
        why_ended(record),
    )


# The functions below run `jobs top`.


def top(options: argparse.Namespace) -> int:
    """Show the load of all hosts and the busiest jobs, once or until interrupted."""
    seconds = options.timeout or LOOK_SECONDS
    with client_of(options) as client:
        while True:
            with notice_if_slow(waiting_for_all(seconds)):
                answers, errors = client.mesh_slots(limit=1000, timeout=seconds)
            missing = MissingHosts(errors=errors)
            jobs = by_cpu_use(answers)[: options.limit]
            if options.watch and sys.stdout.isatty():
                print("\x1b[H\x1b[J", end="")
            if options.json:
                entries = [{"host": slots.host.name, **to_json(job)} for slots, job in jobs]
                print_json({"hosts": answers, "jobs": entries, "unreachable": missing.lines()})
            else:
                print_table(HOST_HEADERS, [_host_row(slots) for slots in answers])
                print()
                print_table(TOP_HEADERS, [_top_row(slots, job) for slots, job in jobs])
            missing.say()
            if not options.watch:
                return missing.exit_code
            sys.stdout.flush()
            time.sleep(EVERY_SECONDS)


def by_cpu_use(answers: tuple[Slots, ...]) -> list[tuple[Slots, JobView]]:
    """Return the running jobs of all hosts, sorted by CPU use, highest first."""
    running = [(slots, job) for slots in answers for job in slots.jobs if job.status == "RUNNING"]
    return sorted(running, key=lambda pair: (-cpu_share(pair[1]), pair[0].host.name, pair[1].agent_id))


def cpu_share(job: JobView) -> float:
    """Return the average number of cores that a job has used since its attempt started; 0 if unknown."""
    return job.usage.cpu_seconds / job.running_seconds if job.usage and job.running_seconds else 0.0


def _host_row(slots: Slots) -> tuple[object, ...]:
    used = slots.capacity - slots.free
    return (
        slots.host.name,
        f"{used.cpu_cores} of {slots.capacity.cpu_cores}",
        f"{bytes_text(used.memory_bytes)} of {bytes_text(slots.capacity.memory_bytes)}",
        f"{bytes_text(used.temp_storage_bytes)} of {bytes_text(slots.capacity.temp_storage_bytes)}",
        f"{used.gpus} of {slots.capacity.gpus}",
        slots.running_jobs,
        slots.queued_jobs,
    )


def _top_row(slots: Slots, job: JobView) -> tuple[object, ...]:
    usage = job.usage
    return (
        slots.host.name,
        job_name(job),
        attempt_text(job.generation, job.attempt),
        duration_text(job.running_seconds),
        len(job.lease.cpu_cores) if job.lease else "",
        f"{cpu_share(job):.0%}",
        bytes_text(usage.rss_bytes) if usage else "",
        bytes_text(usage.scratch_bytes) if usage else "",
        usage.processes if usage else "",
    )
