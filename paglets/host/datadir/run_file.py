"""The run file of a host in `PAGLETS_HOME/run`. The user's commands and scripts read it to find the running host."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from paglets.core.files import private_folder, write_private
from paglets.host.runtime.services import Settings
from paglets.wire.local_hosts import read_run_file, start_of


def write(home: Path, settings: Settings) -> Callable[[], None]:
    """Write the run file, and return a function that removes it. Raises OSError."""
    path = _path(home, settings)
    private_folder(path.parent)
    local = settings.addresses[0] if settings.addresses else settings.url
    tree = {"name": settings.name, "url": local, "store_id": settings.store_id, "pid": settings.pid}
    tree["began"] = start_of(settings.pid)
    write_private(path, json.dumps(tree).encode())
    return lambda: _remove(path, settings.pid)


def repair(home: Path, settings: Settings) -> str:
    """Rewrite the run file if it is missing or invalid. Return a message, or "" if it was valid. Raises OSError."""
    path = _path(home, settings)
    if read_run_file(path) is not None:
        return ""
    write(home, settings)
    return f"{path} was removed or changed and has been recreated"


def _path(home: Path, settings: Settings) -> Path:
    return home / "run" / f"{settings.name}.json"


def _remove(path: Path, pid: int) -> None:
    """Remove the run file, unless another host of the same name has written it since."""
    found = read_run_file(path)
    if found is not None and found.pid == pid:
        with suppress(OSError):
            path.unlink()
