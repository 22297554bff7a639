"""The lines with which a host says that it is ready."""

from __future__ import annotations

from pathlib import Path

from paglets.core.text import counted, home_path
from paglets.host.datadir.data_directory import LOG_NAME
from paglets.host.runtime.services import Settings
from paglets.slots.amounts import bytes_text


def ready_line(settings: Settings, folder: Path) -> str:
    """Return `host laptop is ready (8 cores, 31 GiB); log: ~/.paglets/hosts/laptop/host.log`."""
    offered = settings.offered
    parts = [counted(offered.cpu_cores, "core"), bytes_text(offered.memory_bytes)]
    parts += [counted(offered.gpus, "GPU")] if offered.gpus else []
    return f"host {settings.name} is ready ({', '.join(parts)}); log: {home_path(folder / LOG_NAME)}"


def where_line(settings: Settings, folder: Path) -> str:
    """Return where other hosts reach this one, what it is in the mesh, and where its data is."""
    tags = f", tags {' '.join(settings.tags)}" if settings.tags else ""
    return f"listening at {settings.url} (mesh {settings.mesh_version}{tags}); data in {home_path(folder)}"
