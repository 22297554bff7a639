"""Views of a membership table: joined hosts, disputed names, lookup by name, and candidates for placement."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from paglets.api.hosts import NO_ROUTE, MeshHost, MeshHostView
from paglets.core.errors import Invalid, Unknown
from paglets.core.refs import SHORT_ID_CHARACTERS, HostRef
from paglets.core.urls import normalise_url
from paglets.mesh.table import MAX_COUNT, ONLINE_SECONDS, Row, Table, same_mesh
from paglets.slots.model import Candidate

Problems = Mapping[str, str]
"""A map from the store id of a host to the reason why the host has not joined the mesh, or has lost its name."""

MAX_NAMES_SHOWN = 12

OLD_STORE = "an old store"
"""First words of the problem text of an offline host whose name now belongs to another host."""


def urls(host: MeshHost) -> tuple[str, ...]:
    """Return all URLs of a host, starting with the preferred URL."""
    return (host.url, *(url for url in host.addresses if url != host.url))


def problems(own: MeshHost, table: Table) -> Problems:
    """Return the problems of all hosts, including this host. All hosts apply the same rules to a disputed name."""
    found: dict[str, str] = {}
    by_name: dict[str, list[Row]] = {}
    by_name.setdefault(own.name, []).append(Row(host=own, last_seen_at=0.0, up=True))
    for store_id, row in table.rows.items():
        if same_mesh(row.host, own):
            by_name.setdefault(row.host.name, []).append(row)
        else:
            found[store_id] = _other_version(row, own)
    for rows in by_name.values():
        if len(rows) > 1:
            found.update(_disputed(rows))
    return found


def newly_joined(own: MeshHost, table: Table) -> tuple[str, ...]:
    """Return the store ids of hosts that join now: online hosts of this mesh without a problem (`problems`)."""
    fresh = [key for key, row in table.rows.items() if row.up and not row.was_in_mesh and same_mesh(row.host, own)]
    wrong = problems(own, table) if fresh else {}
    return tuple(key for key in fresh if key not in wrong)


def is_listed(row: Row, own: MeshHost) -> bool:
    """Return False for an offline host that never joined because its name was in use. It has no jobs of this mesh."""
    return row.up or row.was_in_mesh or not same_mesh(row.host, own)


def _other_version(row: Row, own: MeshHost) -> str:
    host = row.host
    if not row.up:
        return f"offline; its mesh version was {host.mesh_version!r}, its protocol {host.protocol}"
    if host.protocol != own.protocol:
        return (
            f"not joined: it uses protocol {host.protocol}, this host uses {own.protocol}; "
            "use the same paglets.pyz on both"
        )
    return (
        f"not joined: its mesh version is {host.mesh_version!r}, this host's is {own.mesh_version!r}; "
        "start both with the same --mesh-version"
    )


def _disputed(rows: list[Row]) -> dict[str, str]:
    """Return the problems of hosts with the same name. The online host that joined the mesh first keeps the name."""
    online = [row.host for row in rows if row.up]
    if not online:
        return {}
    holder = min(online, key=_seniority)
    return {row.host.store_id: _not_holder(row, holder) for row in rows if row.host.store_id != holder.store_id}


def _seniority(host: MeshHost) -> tuple[int, str]:
    """Return a sort key that is lowest for the host that joined first. It uses no clock, because clocks may differ."""
    return (host.joined or MAX_COUNT + 1, host.store_id)


def _not_holder(row: Row, holder: MeshHost) -> str:
    if row.up:
        return (
            f"not joined: the name {holder.name} belongs to the host at {holder.url}; "
            f"start the one at {row.host.url} with another --name"
        )
    old, new = (each.store_id[:SHORT_ID_CHARACTERS] for each in (row.host, holder))
    return (
        f"{OLD_STORE} ({old}): the name {holder.name} is that of {new} at {holder.url} now; "
        f"`paglets mesh forget {old}` if it does not come back"
    )


def online(own: MeshHost, table: Table, wrong: Problems) -> tuple[MeshHost, ...]:
    """Return the other joined hosts that are online, by name. Return no hosts if this host has not joined."""
    if own.store_id in wrong:
        return ()
    hosts = [row.host for row in table.rows.values() if row.up and row.host.store_id not in wrong]
    return tuple(sorted(hosts, key=_by_name))


def load_edge(host: MeshHost) -> tuple[bool, bool, bool]:
    """Return whether the host has waiting jobs, free cores and running jobs. A change is pushed to other hosts."""
    return (host.queued_jobs > 0, host.free.cpu_cores > 0, host.running_jobs > 0)


def _by_name(host: MeshHost) -> tuple[str, str]:
    return (host.name, host.store_id)


def views(
    own: MeshHost,
    table: Table,
    wrong: Problems,
    seconds_since_seen: Callable[[str], float],
    offline_seconds: Callable[[str], float],
    contact_errors: Mapping[str, str],
) -> tuple[MeshHostView, ...]:
    """Return views of all hosts: this host, then the others by name, then offline hosts that are listed in `wrong`.

    `contact_errors`: the texts of contact errors, by store id.
    """
    joined = own.store_id not in wrong
    no_route = {
        key: text for key, text in no_routes(own, table, wrong).items() if seconds_since_seen(key) > ONLINE_SECONDS
    }
    others = [
        MeshHostView(
            host=row.host,
            online=row.up and joined and key not in wrong,
            seconds_since_seen=seconds_since_seen(key),
            offline_seconds=offline_seconds(key),
            was_seen=row.was_seen,
            problem=wrong.get(key) or no_route.get(key) or contact_errors.get(key, ""),
        )
        for key, row in table.rows.items()
        if is_listed(row, own)
    ]
    others.sort(key=lambda view: (_is_past(table.rows[view.host.store_id], wrong), _by_name(view.host)))
    own_problem = wrong.get(own.store_id) or contact_errors.get(own.store_id, "")
    return (MeshHostView(host=own, online=True, seconds_since_seen=0.0, problem=own_problem), *others)


def _is_past(row: Row, wrong: Problems) -> bool:
    return not row.up and row.host.store_id in wrong


def no_routes(own: MeshHost, table: Table, wrong: Problems) -> Mapping[str, str]:
    """Return a text for each offline host that this host cannot reach, by store id.

    Neither it nor this host accepts connections, and no host that could forward requests is online.
    """
    if own.reachable or own.store_id in wrong or any(host.reachable for host in online(own, table, wrong)):
        return {}
    rows = [row.host for row in table.rows.values() if not row.up and not row.host.reachable]
    return {host.store_id: no_route_text(host.name, own.name) for host in rows if same_mesh(host, own)}


def no_route_text(name: str, own_name: str) -> str:
    return f"{NO_ROUTE} {name}, nor to {own_name}, and no host is online that both can reach"


def candidates(own: MeshHost, table: Table, wrong: Problems, awaited_peers: tuple[str, ...]) -> tuple[Candidate, ...]:
    """Return all hosts as candidates for placement, this host first. Hosts that have lost their name are left out.

    `awaited_peers`: the URLs where a host is expected but none has replied yet. `is_only` is set for this host if there
    is no such URL and no other host, not even an offline host or one of another mesh version.
    """
    there = {host.store_id for host in online(own, table, wrong)}
    rows = [row for key, row in table.rows.items() if key not in wrong or not same_mesh(row.host, own)]
    others = sorted((row.host for row in rows if is_listed(row, own)), key=_by_name)
    no_route = no_routes(own, table, wrong)
    is_alone = not any(is_listed(row, own) for row in table.rows.values())
    home = _candidate(own, True, "")
    return (
        replace(home, is_only=not awaited_peers, awaited_peers=awaited_peers) if is_alone else home,
        *(_candidate(each, each.store_id in there, no_route.get(each.store_id, "")) for each in others),
    )


def _candidate(host: MeshHost, is_online: bool, no_route: str) -> Candidate:
    return Candidate(
        host=host.ref,
        addresses=urls(host),
        mesh_version=host.mesh_version,
        online=is_online,
        no_route=no_route,
        tags=host.tags,
        offered=host.capacity,
        free=host.free,
        queued_jobs=host.queued_jobs,
        running_jobs=host.running_jobs,
    )


def find(own: MeshHost, table: Table, wrong: Problems, name_or_url: str) -> HostRef:
    """Return the host with this name or URL. Joined hosts are preferred, then online hosts.

    Raises Unknown, which lists the names of the known hosts.
    """
    rows = [Row(host=own, last_seen_at=0.0, up=True)]
    rows += sorted(table.rows.values(), key=lambda row: (not row.up, -row.last_seen_at, row.host.store_id))
    known = [row.host for row in rows if same_mesh(row.host, own) and is_listed(row, own)]
    wanted = _as_url(name_or_url) if ":" in name_or_url else name_or_url
    hits = [host for host in known if wanted == host.name or wanted in urls(host)]
    hits.sort(key=lambda host: host.store_id in wrong)
    if not hits:
        raise _unknown(name_or_url, sorted({host.name for host in known}))
    return hits[0].ref


def _as_url(text: str) -> str:
    try:
        return normalise_url(text)
    except Invalid as error:
        raise Unknown(f"{text[:200]!r} is neither the name nor the URL of a host: {error.message}") from error


def _unknown(wanted: str, names: Iterable[str]) -> Unknown:
    there = list(names)
    near = difflib.get_close_matches(wanted.lower(), there, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    more = f" and {len(there) - MAX_NAMES_SHOWN} more" if len(there) > MAX_NAMES_SHOWN else ""
    return Unknown(
        f"no host {wanted[:200]!r} in this mesh; {hint}there are: {', '.join(there[:MAX_NAMES_SHOWN])}{more}",
        names=there,
    )
