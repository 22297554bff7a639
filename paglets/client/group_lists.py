"""What several hosts say of the groups that they know, as one list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from paglets.api.groups import GroupLine

UNKNOWN = "UNKNOWN"
"""Status in the line of a host that has only reports of a group."""


def merged_groups(answers: Sequence[Sequence[GroupLine]]) -> tuple[GroupLine, ...]:
    """Each group once: as its collector's host has it, else as its home has it; newest first."""
    found: dict[str, GroupLine] = {}
    waiting: dict[str, int] = {}
    for line in (line for lines in answers for line in lines):
        waiting[line.group_id] = waiting.get(line.group_id, 0) + line.waiting_reports
        known = found.get(line.group_id)
        if known is None or line.here or (known.status == UNKNOWN and not known.here):
            found[line.group_id] = line
    lines = (replace(line, waiting_reports=waiting[line.group_id]) for line in found.values())
    return tuple(sorted(lines, key=lambda line: (-line.created_at, line.group_id)))
