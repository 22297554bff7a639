"""Functions on lists of hosts: find a host by name or reference, and describe when it was last seen."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from paglets.api.hosts import MeshHostView
from paglets.core.refs import HostRef
from paglets.core.text import duration_text

STEP_SECONDS = 60.0
"""Smaller differences between `offline_seconds` and `seconds_since_seen` are ignored, because `offline_seconds` is
measured with a wall clock, which may be adjusted."""

NOT_JOINED = "not joined"
"""Start of `problem` for a host that answers but has not joined the mesh."""


def has_not_joined(view: MeshHostView) -> bool:
    return view.problem.startswith(NOT_JOINED)


def views_by_name(views: Iterable[MeshHostView]) -> dict[str, MeshHostView]:
    """Return the host for each name: the one that is online, else the one that joined the mesh first."""
    order = sorted(views, key=lambda view: (view.online, not has_not_joined(view), -(view.host.joined or math.inf)))
    return {view.host.name: view for view in order}


def view_of(host: HostRef, views: Iterable[MeshHostView]) -> MeshHostView | None:
    return next((view for view in views if view.host.store_id == host.store_id), None)


def offline_seconds(view: MeshHostView) -> float:
    """Return the larger of `offline_seconds` and `seconds_since_seen`, because each may be too small."""
    return max(view.offline_seconds, view.seconds_since_seen)


def is_long_known(view: MeshHostView) -> bool:
    """Return True if a host was already offline when the answering host last started or resumed."""
    return view.offline_seconds > view.seconds_since_seen + STEP_SECONDS


def last_contact_text(view: MeshHostView) -> str:
    """Return a text such as `last seen 24 s ago` or, if the answering host never saw the host, `not seen for 2 h`."""
    if view.was_seen:
        return f"last seen {duration_text(view.seconds_since_seen)} ago"
    if is_long_known(view):
        return f"not seen for {duration_text(view.offline_seconds)}"
    return f"not seen by the answering host, which has listened for {duration_text(view.seconds_since_seen)}"


def removed_text(host: HostRef, views: Sequence[MeshHostView]) -> str:
    """Return a text about a host that was removed from the mesh, or whose name another host has now; else ""."""
    view = view_of(host, views)
    if view is None:
        what = f"{host.name}, which is no longer a host of this mesh"
    elif not view.online and (heir := views_by_name(views)[view.host.name]).online:
        restarted = f"restarted with an empty data directory at {heir.host.url}"
        what = f"{host.name}, which {restarted} (or another machine has that name now)"
    else:
        return ""
    return f"{what}: its results are lost unless its old data directory is restored"
