"""Hosts that are away: what is said of jobs and groups that are on one, and whether waiting for it is of use."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from paglets.api.hosts import NO_WAY, MemberView
from paglets.core.errors import PagletsError
from paglets.core.refs import HostRef
from paglets.core.text import command_name, duration_text
from paglets.mesh.view import OLD_STORE
from paglets.remote.asking import is_of
from paglets.remote.losthosts import heard_text, lost_text, view_of


def is_old(view: MemberView) -> bool:
    """Whether it is what is left of a host whose name another one has by now."""
    return view.problem.startswith(OLD_STORE)


def is_alone(views: Sequence[MemberView]) -> bool:
    """Whether the host that was asked, the first of them, is not joined itself: it works with none of the others."""
    return bool(views) and bool(views[0].problem) and not any(view.online for view in views[1:])


def offline_names(views: Iterable[MemberView], errors: Iterable[PagletsError] = ()) -> list[str]:
    """The hosts that are not asked: neither old stores, whose names others have, nor those of `errors`, who were."""
    told = tuple(errors)
    away = [view.member.name for view in views if not view.online and not is_old(view)]
    return [name for name in away if not any(is_of(name, error) for error in told)]


def away_text(view: MemberView, lost_after_seconds: float | None = None) -> str:
    """Return that a host with jobs is away, and when they are submitted again.

    `lost_after_seconds`: after so much silence, as the host of their collector is set; None: not known.
    """
    why = f" ({view.problem})" if view.problem.startswith(NO_WAY) else ""
    left = None if lost_after_seconds is None else max(0.0, lost_after_seconds - view.silent_seconds)
    when = "if that lasts" if left is None else f"in about {duration_text(left)}" if left else "within seconds"
    return (
        f"{view.member.name} is offline, {heard_text(view)}{why}: {when} the job is submitted again, "
        f"or at once with `{command_name()} mesh forget {view.member.name}`"
    )


def silence_text(host: HostRef, views: Sequence[MemberView]) -> str:
    """Of the collector's host, where it is not online: since when, or that it is gone; else ""."""
    view, lost = view_of(host, views), lost_text(host, views)
    if lost or view is None:
        return f"collector on {lost}"
    silent = f"not seen for {duration_text(view.silent_seconds)}" if view.heard else heard_text(view)
    return "" if view.online else f"collector on {host.name}, {silent}"
