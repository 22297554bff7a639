"""The measurement of the total and the free resources of this machine."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from paglets.core.clock import Clock
from paglets.slots.model import Resources
from paglets.worker.processes import process_table

MEASURE_SECONDS = 1.0
"""Seconds for which a measurement is reused. Each grant of a slot needs one, and it costs one or two system calls."""


class MachineMeter:
    """The implementation of `Meter` for a real machine.

    Without psutil it reads /proc. Without both, it reports almost unlimited memory.
    """

    def __init__(self, folder: Path, clock: Clock, psutil: ModuleType | None) -> None:
        self._folder = folder
        self._clock = clock
        self._psutil = psutil
        self._measured_at = float("-inf")
        self._last = Resources()

    def available(self) -> Resources:
        now = self._clock.monotonic()
        if now - self._measured_at >= MEASURE_SECONDS:
            self._last = Resources(
                memory_bytes=self._memory("available", "MemAvailable"),
                temp_storage_bytes=shutil.disk_usage(self._folder).free,
            )
            # Set the time last. Otherwise a server thread that calls this meanwhile would return the old measurement.
            self._measured_at = now
        return self._last

    def memory_of(self, pids: Iterable[int]) -> int:
        table = process_table(self._psutil)
        return sum(info.rss_bytes for pid in pids if (info := table.get(pid)) is not None)

    def total(self) -> Resources:
        """Return the usable cores, the total memory, the free disk space and the number of NVIDIA GPUs."""
        return Resources(
            cpu_cores=usable_cores(),
            memory_bytes=self._memory("total", "MemTotal"),
            temp_storage_bytes=shutil.disk_usage(self._folder).free,
            gpus=gpu_count(),
        )

    def _memory(self, name: str, proc_name: str) -> int:
        if self._psutil is not None:
            return int(getattr(self._psutil.virtual_memory(), name))
        try:
            text = Path("/proc/meminfo").read_text()
        except OSError:
            return 1 << 62
        return next(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith(f"{proc_name}:"))


def usable_cores() -> int:
    """Return the number of cores that this process may use. A container or `taskset` may reduce it."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def gpu_count() -> int:
    """Return the number of NVIDIA GPUs that the Linux driver lists. Configure other GPUs with the option `gpus`."""
    folder = Path("/proc/driver/nvidia/gpus")
    return len(list(folder.iterdir())) if folder.is_dir() else 0
