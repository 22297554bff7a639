"""Messages about hosts that are offline or did not answer, and about jobs and groups on them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from paglets.api.hosts import NO_ROUTE, MeshHostView
from paglets.cli.output import say
from paglets.client.fan_out import names_host
from paglets.client.hosts import last_contact_text, offline_seconds, removed_text, view_of
from paglets.core.errors import EXIT_DONE, EXIT_UNREACHABLE, PagletsError
from paglets.core.refs import HostRef
from paglets.core.text import command_name, duration_text
from paglets.mesh.view import OLD_STORE


def is_superseded(view: MeshHostView) -> bool:
    """Return True if another host now has the name of this host, for example because its data directory was lost."""
    return view.problem.startswith(OLD_STORE)


def is_alone(views: Sequence[MeshHostView]) -> bool:
    """Return True if the first host, which was asked, has not joined the mesh and sees no other host online."""
    return bool(views) and bool(views[0].problem) and not any(view.online for view in views[1:])


LONG_OFFLINE_SECONDS = 86_400.0
"""The time after which commands mention an offline host only if they found nothing or cannot answer without it.

A laptop that sleeps overnight returns within this time. `mesh hosts` and `doctor` always mention the host.
"""

MOST_NAMED = 5


def is_long_offline(view: MeshHostView) -> bool:
    """Return True if the host has been offline for at least LONG_OFFLINE_SECONDS."""
    return not view.online and offline_seconds(view) >= LONG_OFFLINE_SECONDS


def forget_hint(names: Sequence[str]) -> str:
    """Return a hint with the command that removes hosts that will not come back."""
    if len(names) == 1:
        return f"if it will not come back, `paglets mesh forget {names[0]}` removes it"
    return "`paglets mesh forget NAME` removes a host that will not come back"


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingHosts:
    """The hosts whose answers are missing after a request to all hosts.

    `errors`: the errors of online hosts that did not answer. `offline`: the hosts that were offline and not asked.
    """

    errors: tuple[PagletsError, ...] = ()
    offline: tuple[MeshHostView, ...] = ()

    @property
    def exit_code(self) -> int:
        """The exit code of a command that shows the answers of the other hosts. Offline hosts do not change it."""
        return EXIT_UNREACHABLE if self.errors else EXIT_DONE

    def lines(self) -> list[str]:
        """Return a line for each missing host: the value of `unreachable` in `--json` output."""
        return [*(error.message for error in self.errors), *(f"{view.host.name} is offline" for view in self.offline)]

    def none_of(self, things: str) -> str:
        """Return the line for an empty list, such as `no groups on the hosts that answered`."""
        return f"no {things} on the hosts that answered" if self.lines() else f"there are no {things}"

    def say(self, *, is_empty: bool = False) -> None:
        """Print the errors of the hosts that did not answer, then the names of the offline hosts, on stderr.

        Hosts that have been offline for long are named only if nothing was found (`is_empty`).
        """
        unheard = [error for error in self.errors if error.retryable]
        for error in self.errors if len(unheard) < 2 else (each for each in self.errors if each not in unheard):
            say(error)
        if len(unheard) > 1:
            say(f"no answer from {first_few([error.message.partition(': ')[0] for error in unheard])}")
        offline = [view for view in self.offline if is_empty or not is_long_offline(view)]
        if offline:
            say(_not_asked(offline))

    def note(self) -> str:
        """Return a suffix for a not-found message, such as ` (offline and not asked: w1 for 3 min)`, or ""."""
        return f" ({_not_asked(self.offline)})" if self.offline else ""


def missing_hosts(views: Iterable[MeshHostView], errors: Iterable[PagletsError] = ()) -> MissingHosts:
    """Return the missing hosts after a request to all hosts. `errors`: its errors. Superseded hosts are ignored."""
    known = tuple(errors)
    away = [view for view in views if not view.online and not is_superseded(view)]
    offline = [view for view in away if not any(names_host(view.host.name, error) for error in known)]
    return MissingHosts(errors=known, offline=tuple(offline))


def _not_asked(views: Sequence[MeshHostView]) -> str:
    """Return a text such as `offline and not asked: w1 for 3 min`."""
    texts = [f"{view.host.name} for {duration_text(offline_seconds(view))}" for view in views]
    return f"offline and not asked: {first_few(texts)}"


def first_few(texts: Sequence[str]) -> str:
    """Return the first MOST_NAMED texts and the number of the others, such as `w1, w2, w3, w4, w5 and 4 more`."""
    more = f" and {len(texts) - MOST_NAMED:,} more" if len(texts) > MOST_NAMED else ""
    return ", ".join(texts[:MOST_NAMED]) + more


def warn_of_missing_hosts(group_id: str, unreachable: Mapping[str, str]) -> None:
    """Print the hosts that may have more jobs or reports of a group, one line for each reason.

    `unreachable`: the reason why a host did not answer, by name of host.
    """
    for reason in dict.fromkeys(unreachable.values()):
        names = [name for name, why in unreachable.items() if why == reason]
        say(f"{first_few(names)} may have more of {group_id}: {reason}")


def offline_text(view: MeshHostView, lost_after_seconds: float | None = None) -> str:
    """Return the message that the host of a job is offline, with the time until the job is resubmitted.

    `lost_after_seconds`: the time without contact after which the collector's host declares a host lost, or None if
    unknown.
    """
    why = f" ({view.problem})" if view.problem.startswith(NO_ROUTE) else ""
    left = None if lost_after_seconds is None else max(0.0, lost_after_seconds - view.seconds_since_seen)
    when = "if that lasts" if left is None else f"in about {duration_text(left)}" if left else "within seconds"
    return (
        f"{view.host.name} is offline, {last_contact_text(view)}{why}: {when} the job is submitted again, "
        f"or at once with `{command_name()} mesh forget {view.host.name}`"
    )


def collector_problem(host: HostRef, views: Sequence[MeshHostView]) -> str:
    """Return a text about the collector's host if it is offline or was removed, or "" if it is online."""
    view, lost = view_of(host, views), removed_text(host, views)
    if lost or view is None:
        return f"collector on {lost}"
    unreachable = f"not seen for {duration_text(view.seconds_since_seen)}" if view.was_seen else last_contact_text(view)
    return "" if view.online else f"collector on {host.name}, {unreachable}"
