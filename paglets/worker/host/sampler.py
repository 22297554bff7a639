"""Samples of the resource use of runs: CPU time, memory, number of processes, and size of the scratch directory."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from paglets.api.slots import Usage
from paglets.worker.linux import oom_kills
from paglets.worker.processes import ProcessInfo, ProcessTable, descendants, same_process
from paglets.worker.scratch import scratch_bytes

SAMPLE_SHARE = 0.02
"""Maximum share of one core that sampling may use. On a machine with very many processes, sampling is less frequent.
The share counts CPU time, not elapsed time, so that a delay of one second does not postpone the next sample by 50 s."""

SCRATCH_EVERY = 5
"""Scratch directories are measured in every fifth round, because this takes longer than reading the processes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledRun:
    """A run to sample, given by its first process and its scratch directory."""

    token: str
    pid: int
    start_time: float
    work_dir: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The resource use of one run at one time. `seen`: the start times of the run's processes, by pid."""

    usage: Usage
    seen: Mapping[int, float]


def sample_runs(table: ProcessTable, runs: tuple[SampledRun, ...], *, with_scratch: bool) -> dict[str, Sample]:
    """Return a sample, by run token, for each run whose first process is alive."""
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
    # Count shared pages once for each process: each needs a copy as soon as it writes to them.
    return Usage(
        cpu_seconds=sum(info.cpu_seconds for info in tree),
        rss_bytes=sum(info.rss_bytes for info in tree),
        scratch_bytes=scratch,
        processes=len(tree),
    )


def larger(one: Usage, other: Usage) -> Usage:
    """Return a Usage with the larger value of each field."""
    return Usage(
        cpu_seconds=max(one.cpu_seconds, other.cpu_seconds),
        rss_bytes=max(one.rss_bytes, other.rss_bytes),
        scratch_bytes=max(one.scratch_bytes, other.scratch_bytes),
        processes=max(one.processes, other.processes),
    )


class Sampler:
    """A sampler that measures all runs about every `seconds`. The method `run` is the body of its thread.

    `runs`: returns the runs to sample. `sampled`: receives the samples, and the count of OOM kills as it was one round
    earlier.
    """

    def __init__(
        self,
        table: ProcessTable,
        seconds: float,
        runs: Callable[[], tuple[SampledRun, ...]],
        sampled: Callable[[Mapping[str, Sample], int], None],
    ) -> None:
        self._table = table
        self._seconds = seconds
        self._runs = runs
        self._sampled = sampled
        self._busy = threading.Event()
        self._closed = threading.Event()

    def resume(self) -> None:
        """Take samples until `pause` is called."""
        self._busy.set()

    def pause(self) -> None:
        """Stop taking samples until `resume` is called."""
        self._busy.clear()

    def close(self) -> None:
        """End the sampling thread after its current round."""
        self._closed.set()
        self._busy.set()

    def run(self) -> None:
        """Take samples until `close` is called."""
        rounds, oom_before = 0, 0
        while True:
            idle = not self._busy.is_set()
            self._busy.wait()
            if self._closed.is_set():
                return
            began = time.thread_time()
            oom_count = oom_kills()
            oom_before = oom_count if idle else oom_before
            runs = self._runs()
            samples = sample_runs(self._table, runs, with_scratch=rounds % SCRATCH_EVERY == 0) if runs else {}
            self._sampled(samples, oom_before)
            rounds, oom_before = rounds + 1, oom_count
            self._closed.wait(max(self._seconds, (time.thread_time() - began) / SAMPLE_SHARE))
