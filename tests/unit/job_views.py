"""A view of a job, as a host tells it, with what a test does not care about filled in."""

from __future__ import annotations

from typing import Any

from paglets.api.slots import JobView


def job_view(key: str, *, group_id: str | None = None, status: str = "RUNNING", **more: Any) -> JobView:
    """`key` is its id too; `more`: further fields of the view."""
    told: dict[str, Any] = {
        "generation": 1,
        "attempt": 1,
        "residence": "here",
        "reason": "",
        "reason_text": "",
        "never": False,
        "waited_seconds": 0.0,
        "running_seconds": 0.0,
        "request": {},
    }
    return JobView(agent_id=key, group_id=group_id, job_key=key, status=status, **told | more)
