"""What running paglets use: CPU, memory and processes of their trees, and the scratch on disk."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from paglets.api.slots import Usage
from paglets.worker.processes import ProcessInfo, ProcessTable, descendants, same_process

MAX_SCRATCH_ENTRIES = 20_000
"""A walk looks at no more files than this, about 0.1 s; a larger scratch is counted too small."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledRun:
    """A run to be sampled: its first process and its scratch directory."""

    token: str
    pid: int
    start_time: float
    work_dir: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What was seen of one run; `seen` is its processes with their start times."""

    usage: Usage
    seen: Mapping[int, float]


def sample_runs(table: ProcessTable, runs: tuple[SampledRun, ...], *, with_scratch: bool) -> dict[str, Sample]:
    """By token, for the runs that are still there."""
    everything = table.all()
    samples = {}
    for run in runs:
        if same_process(everything.get(run.pid), run.start_time):
            tree = [info for info in descendants(everything, (run.pid,)).values() if info.alive]
            scratch = scratch_bytes(run.work_dir) if with_scratch else 0
            seen = {info.pid: info.start_time for info in tree}
            samples[run.token] = Sample(usage=_usage(tree, scratch), seen=seen)
    return samples


def _usage(tree: list[ProcessInfo], scratch: int) -> Usage:
    # Pages that several processes share are counted for each: what they would need if they wrote to them.
    return Usage(
        cpu_seconds=sum(info.cpu_seconds for info in tree),
        rss_bytes=sum(info.rss_bytes for info in tree),
        scratch_bytes=scratch,
        processes=len(tree),
    )


def larger(one: Usage, other: Usage) -> Usage:
    """The maxima of both."""
    return Usage(
        cpu_seconds=max(one.cpu_seconds, other.cpu_seconds),
        rss_bytes=max(one.rss_bytes, other.rss_bytes),
        scratch_bytes=max(one.scratch_bytes, other.scratch_bytes),
        processes=max(one.processes, other.processes),
    )


def scratch_bytes(work_dir: str, most_entries: int = MAX_SCRATCH_ENTRIES) -> int:
    """Disk space of the files below `work_dir`, links not followed; what cannot be read counts nothing."""
    total, entries, waiting = 0, 0, [work_dir]
    while waiting and entries < most_entries:
        try:
            with os.scandir(waiting.pop()) as found:
                for entry in found:
                    entries += 1
                    if entries > most_entries:
                        break
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    total += entry.stat(follow_symlinks=False).st_blocks * 512
        except OSError:
            continue
    return total
