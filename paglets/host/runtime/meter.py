"""The resources of this machine: totals at the start, and current free amounts."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import ModuleType

from paglets.core.clock import Clock
from paglets.slots.model import Resources

MEASURE_SECONDS = 1.0
"""The age up to which a measurement is reused: each costs one or two system calls, and each slot grant needs one."""


class MachineMeter:
    """The `Meter` of a real machine. Without psutil it reads /proc; without /proc all memory counts as free."""

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
            # Set the time last: server threads call this method, too, and must not take the previous value as new.
            self._measured_at = now
        return self._last

    def total(self) -> Resources:
        """Return the cores this process may use, total memory, free disk space and the GPUs that the driver lists."""
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
    """Return the number of cores this process may run on. Containers and taskset may allow fewer than exist."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def gpu_count() -> int:
    """Return the number of NVIDIA GPUs that the Linux driver lists. Others need `gpus` in the configuration."""
    folder = Path("/proc/driver/nvidia/gpus")
    return len(list(folder.iterdir())) if folder.is_dir() else 0
