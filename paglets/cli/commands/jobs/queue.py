"""The handler of `paglets jobs queue`."""

from __future__ import annotations

import argparse

from paglets.cli.options import (
    mesh_client_of,
)
from paglets.cli.output import (
    print_json,
    print_table,
    say,
)
from paglets.cli.views.job_rows import JOB_HEADERS, job_row
from paglets.core.errors import EXIT_DONE
from paglets.slots.amounts import resources_text


def queue(options: argparse.Namespace) -> int:
    """List the jobs on one host with their leases and usage."""
    from paglets.client.slots import slots_of

    with mesh_client_of(options, of_one=True) as link:
        slots = slots_of(link, None, options.limit, options.timeout)
    if options.json:
        print_json(slots)
        return EXIT_DONE
    say(
        f"{slots.host.name}: {slots.running_jobs} running, {slots.queued_jobs} queued; "
        f"free {resources_text(slots.free)} of {resources_text(slots.capacity)}"
    )
    print_table(JOB_HEADERS, [job_row(job, slots) for job in slots.jobs])
    return EXIT_DONE
