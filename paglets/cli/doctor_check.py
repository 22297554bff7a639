"""What `paglets doctor` says of each thing that it looked at."""

from __future__ import annotations

from dataclasses import dataclass

GOOD, WARNING, BAD = "ok", "warning", "bad"

FEW_BYTES = 1 << 30
"""Less than that free on a disk is told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What was looked at, how it is (`ok`, `warning`, `bad`), in words, and what to do about it."""

    name: str
    state: str = GOOD
    found: str
    advice: str = ""
