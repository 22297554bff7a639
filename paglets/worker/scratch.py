"""The scratch directory of a run: its size on disk, and how to empty it."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress

MAX_SCRATCH_ENTRIES = 20_000
"""Maximum number of files to count, which takes about 0.1 s. The size of a larger directory is underestimated."""


def scratch_bytes(work_dir: str, most_entries: int = MAX_SCRATCH_ENTRIES) -> int:
    """Return the disk space used by the files below `work_dir`. Links are not followed; unreadable files count as 0."""
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


def empty_scratch(work_dir: str) -> None:
    """Remove all files in the scratch directory of an attempt that failed because the disk was full.

    The host may need this space to store the outcome, which it does before the process ends.
    """
    if os.path.islink(work_dir):
        return
    with suppress(OSError):
        for entry in list(os.scandir(work_dir)):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                with suppress(OSError):
                    os.unlink(entry.path)
