"""Which host a name or a reference means, as one host lists its mesh, and what is so of one that is gone for good."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from paglets.api.hosts import MeshHostView
from paglets.core.refs import HostRef
from paglets.core.text import duration_text

STEP_SECONDS = 60.0
"""Between two ages of a host. One is by a clock that may be set: smaller steps of it say nothing."""

NOT_JOINED = "not joined"
"""How the mesh begins what it says of a host that is there and no member."""


def has_not_joined(view: MeshHostView) -> bool:
    return view.problem.startswith(NOT_JOINED)


def views_by_name(views: Iterable[MeshHostView]) -> dict[str, MeshHostView]:
    """The host that each name means: the one that is online, else the one that was the first to have it in the mesh."""
    order = sorted(views, key=lambda view: (view.online, not has_not_joined(view), -(view.host.joined or math.inf)))
    return {view.host.name: view for view in order}


def view_of(host: HostRef, views: Iterable[MeshHostView]) -> MeshHostView | None:
    return next((view for view in views if view.host.store_id == host.store_id), None)


def offline_seconds(view: MeshHostView) -> float:
    """Return for how long a host has been offline at least."""
    return max(view.offline_seconds, view.seconds_since_seen)


def is_long_known(view: MeshHostView) -> bool:
    """Return True if it was offline before the host that was asked began to listen."""
    return view.offline_seconds > view.seconds_since_seen + STEP_SECONDS


def last_contact_text(view: MeshHostView) -> str:
    """Return `last heard of 24 s ago`, or how long the host has been offline at least."""
    if view.was_seen:
        return f"last heard of {duration_text(view.seconds_since_seen)} ago"
    if is_long_known(view):
        return f"not heard of for {duration_text(view.offline_seconds)}"
    return f"not heard of since the host that was asked began to listen, {duration_text(view.seconds_since_seen)} ago"


def removed_text(host: HostRef, views: Sequence[MeshHostView]) -> str:
    """What is so where `host` is no member any more, or its name is another one's by now; else ""."""
    view = view_of(host, views)
    if view is None:
        what = f"{host.name}, which was forgotten, or is no host of this mesh"
    elif not view.online and (heir := views_by_name(views)[view.host.name]).online:
        began = f"began anew with an empty data directory at {heir.host.url}"
        what = f"{host.name}, which {began} (or another machine has that name now)"
    else:
        return ""
    return f"{what}: the results that lay there are lost unless its old folder comes back"
