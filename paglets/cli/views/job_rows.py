"""Table rows of waiting and running jobs, as their hosts know them."""

from __future__ import annotations

from paglets.api.slots import JobView, Slots
from paglets.cli.output import (
    attempt_text,
    ranges_text,
)
from paglets.cli.views.wait_reasons import holders_text, job_name, wait_reason_text
from paglets.core.text import duration_text
from paglets.slots.amounts import bytes_text
from paglets.slots.model import Resources

JOB_HEADERS = (
    *("JOB", "STATUS", "ATTEMPT", "TIME", "CORES", "MEMORY", "CPU IDS", "GPU IDS", "CPU TIME", "RSS", "SCRATCH"),
    "WHY",
)


def job_row(job: JobView, slots: Slots) -> tuple[object, ...]:
    """Return the table row of a job. `slots`: the jobs and leases of its host, to name the holders of resources."""
    wanted = Resources(**job.request.get("resources", {}))
    running = job.status == "RUNNING"
    usage = job.usage
    return (
        job_name(job),
        job.status if job.residence == "here" else f"{job.status} ({job.residence})",
        attempt_text(job.generation, job.attempt),
        duration_text(job.running_seconds if running else job.waited_seconds),
        wanted.cpu_cores,
        bytes_text(wanted.memory_bytes) if wanted.memory_bytes else "",
        ranges_text(job.lease.cpu_cores) if job.lease else "",
        ranges_text(job.lease.gpu_ids) if job.lease else "",
        duration_text(usage.cpu_seconds) if usage else "",
        bytes_text(usage.rss_bytes) if usage else "",
        bytes_text(usage.scratch_bytes) if usage else "",
        wait_reason_text(job.reason, job.reason_text, never=job.never, held=holders_text(slots, job.reason)),
    )
