"""The first start of a script from an archive: keep a copy of the archive, and note that the two are equal."""

from __future__ import annotations

import os
import time
from pathlib import Path

from paglets.cli.script import ORIGINS, lock, origin, origins
from paglets.core.errors import StartFailed
from paglets.program import Program, collect_copies, keep_copy, write_private

MOST_ORIGINS = 16

SETTLED_SECONDS = 2.0
"""A file that changed more recently may change again within one tick of its clock, unseen: it is not noted."""


def keep(archive: str, seen: os.stat_result, home: str) -> str:
    """Return the path of a copy, locked; "" if there is none just now. `seen` is from before. Raises OSError."""
    try:
        copy = keep_copy(Program(path=Path(archive), is_archive=True), Path(home))
    except StartFailed:  # the archive is being replaced right now
        return ""
    path = str(copy.path)
    if not lock(path):
        return ""
    collect_copies(Path(home), copy)
    if seen.st_ctime < time.time() - SETTLED_SECONDS:
        noted = copy.path.with_name(ORIGINS)
        lines = [*origins(str(noted))[1 - MOST_ORIGINS :], origin(seen, path)]
        write_private(noted, "\n".join([*lines, ""]).encode())
    return path
