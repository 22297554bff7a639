"""What this machine has: offered at the start, and free just now."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import ModuleType

from paglets.core.clock import Clock
from paglets.slots.model import Resources

MEASURE_SECONDS = 1.0
"""A look at memory and disk costs a system call or two; grants ask more often than it changes."""


class MachineMeter:
    """`services.Meter` of a real machine. Without psutil, /proc is read; where there is none, all counts as free."""

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
            # After the measurement: servers' threads ask too, and must not see that there is one before it is made.
            self._measured_at = now
        return self._last

    def total(self) -> Resources:
        """Cores this process may use, memory, free disk, GPUs that the driver shows."""
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
    """Cores that this process may run on; containers and taskset give fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def gpu_count() -> int:
    """NVIDIA GPUs that the Linux driver shows; others are offered with `gpus` in the configuration."""
    folder = Path("/proc/driver/nvidia/gpus")
    return len(list(folder.iterdir())) if folder.is_dir() else 0
