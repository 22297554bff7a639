"""A thread that looks at what running paglets use."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

from paglets.worker.linux import oom_kills
from paglets.worker.processes import ProcessTable
from paglets.worker.usage import Sample, SampledRun, sample_runs

SAMPLE_SHARE = 0.02
"""Sampling takes no more than this share of one core: on a machine with very many processes it is done less often.
By processor time: after a look that the machine held up for a second, the next would be a minute away."""

SCRATCH_EVERY = 5
"""Scratch is walked in every fifth round: it costs more than a look at processes and changes more slowly."""


class Sampler:
    """Samples all runs about once in `seconds`, on a thread of its own, which calls `run`.

    `watched` gives what runs; `sampled` gets the samples, and how many processes the system had killed for want of
    memory one round before.
    """

    def __init__(
        self,
        table: ProcessTable,
        seconds: float,
        watched: Callable[[], tuple[SampledRun, ...]],
        sampled: Callable[[Mapping[str, Sample], int], None],
    ) -> None:
        self._table = table
        self._seconds = seconds
        self._watched = watched
        self._sampled = sampled
        self._busy = threading.Event()
        self._closed = threading.Event()

    def wake(self) -> None:
        """Sample from now on."""
        self._busy.set()

    def pause(self) -> None:
        """Nothing runs."""
        self._busy.clear()

    def close(self) -> None:
        """End the thread."""
        self._closed.set()
        self._busy.set()

    def run(self) -> None:
        """Sample until `close` is called."""
        rounds, oom_before = 0, 0
        while True:
            idle = not self._busy.is_set()
            self._busy.wait()
            if self._closed.is_set():
                return
            began = time.thread_time()
            oom_count = oom_kills()
            oom_before = oom_count if idle else oom_before
            runs = self._watched()
            samples = sample_runs(self._table, runs, with_scratch=rounds % SCRATCH_EVERY == 0) if runs else {}
            self._sampled(samples, oom_before)
            rounds, oom_before = rounds + 1, oom_count
            self._closed.wait(max(self._seconds, (time.thread_time() - began) / SAMPLE_SHARE))
