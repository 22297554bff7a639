"""What several hosts say of the groups that they know, as one list."""

from __future__ import annotations

from collections.abc import Sequence

from paglets.api.groups import GroupLine


def merged_groups(answers: Sequence[Sequence[GroupLine]]) -> tuple[GroupLine, ...]:
    """Each group once: as its collector's host has it, else as its home has it; newest first."""
    found: dict[str, GroupLine] = {}
    for line in (line for lines in answers for line in lines):
        if line.here or line.group_id not in found:
            found[line.group_id] = line
    return tuple(sorted(found.values(), key=lambda line: (-line.created_at, line.group_id)))
