"""How long processes of paglets may take. What is decided here, `runs` carries out."""

from __future__ import annotations

from typing import Literal

from paglets.core.text import duration_text
from paglets.host.records.run_repository import Run

Limit = Literal["", "timeout", "hook_timeout", "report_grace"]


def exceeded(run: Run, now: float, report_grace_seconds: float) -> Limit:
    """Return which limit this process has exceeded, "" for none. `now`: the host's monotonic clock."""
    if run.ended_for:
        return ""
    if run.over_at is not None and now - run.over_at > report_grace_seconds:
        return "report_grace"
    if run.timeout_seconds and now - run.began > run.timeout_seconds:
        return "timeout" if run.entry == "attempt" else "hook_timeout"
    return ""


def words(run: Run, limit: Limit, report_grace_seconds: float) -> str:
    """Say why a process is ended that has exceeded `limit`."""
    if limit == "report_grace":
        return f"its process did not end within {duration_text(report_grace_seconds)} of its report, and was ended"
    return f"it ran longer than {limit}_seconds = {run.limit_seconds:g}, and was ended"
