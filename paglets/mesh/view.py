"""What a table means to this host: who has joined, who keeps a disputed name, who is meant by a name."""

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
"""By store id, why that host is not, or no longer, a member under its name."""

MAX_NAMES_SHOWN = 12

OLD_STORE = "an old store"
"""How the mesh begins what it says of a host that is offline and whose name is another one's by now."""


def urls(member: MeshHost) -> tuple[str, ...]:
    """Every address under which the host is known, the one to use first."""
    return (member.url, *(url for url in member.addresses if url != member.url))


def problems(own: MeshHost, table: Table) -> Problems:
    """What is wrong with whom, this host included. Both sides of a problem find it by the same rule."""
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
    """Those that are members from now on, by store id: online, of this mesh, and the only one of their name."""
    fresh = [key for key, row in table.rows.items() if row.up and not row.was_in_mesh and same_mesh(row.host, own)]
    wrong = problems(own, table) if fresh else {}
    return tuple(key for key in fresh if key not in wrong)


def is_listed(row: Row, own: MeshHost) -> bool:
    """Not one that is gone and never was a member, since its name was in use: it has nothing that anybody waits for."""
    return row.up or row.was_in_mesh or not same_mesh(row.host, own)


def _other_version(row: Row, own: MeshHost) -> str:
    member = row.host
    if not row.up:
        return f"offline; its mesh version was {member.mesh_version!r}, its protocol {member.protocol}"
    if member.protocol != own.protocol:
        return (
            f"not joined: it speaks protocol {member.protocol}, this host speaks {own.protocol}; "
            "use the same paglets.pyz on both"
        )
    return (
        f"not joined: its mesh version is {member.mesh_version!r}, this host's is {own.mesh_version!r}; "
        "start both with the same --mesh-version"
    )


def _disputed(rows: list[Row]) -> dict[str, str]:
    """Of hosts with one name, the first of the mesh that is online keeps it."""
    online = [row.host for row in rows if row.up]
    if not online:
        return {}
    holder = min(online, key=_seniority)
    return {row.host.store_id: _not_holder(row, holder) for row in rows if row.host.store_id != holder.store_id}


def _seniority(member: MeshHost) -> tuple[int, str]:
    """Counted by the mesh, not by clocks, which may be wrong: a host joins one after the highest it meets."""
    return (member.joined or MAX_COUNT + 1, member.store_id)


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
    """The other hosts with which this one works at present, by name; none while this host is not joined."""
    if own.store_id in wrong:
        return ()
    members = [row.host for row in table.rows.values() if row.up and row.host.store_id not in wrong]
    return tuple(sorted(members, key=_by_name))


def load_edge(member: MeshHost) -> tuple[bool, bool, bool]:
    """Whether it has jobs that wait, free cores, jobs that run: what others decide by, and want to know at once."""
    return (member.queued_jobs > 0, member.free.cpu_cores > 0, member.running_jobs > 0)


def _by_name(member: MeshHost) -> tuple[str, str]:
    return (member.name, member.store_id)


def views(
    own: MeshHost,
    table: Table,
    wrong: Problems,
    seconds_since_seen: Callable[[str], float],
    offline_seconds: Callable[[str], float],
    contact_errors: Mapping[str, str],
) -> tuple[MeshHostView, ...]:
    """This host first, the others by name, last what is offline and no member by now.

    `contact_errors` are failed contacts by store id.
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
    """By store id, of hosts that are offline for want of a third that passes things on: this in words."""
    if own.reachable or own.store_id in wrong or any(member.reachable for member in online(own, table, wrong)):
        return {}
    rows = [row.host for row in table.rows.values() if not row.up and not row.host.reachable]
    return {member.store_id: no_route_text(member.name, own.name) for member in rows if same_mesh(member, own)}


def no_route_text(name: str, own_name: str) -> str:
    return f"{NO_ROUTE} {name}, nor to {own_name}, and no host is online that both can reach"


def candidates(own: MeshHost, table: Table, wrong: Problems, awaited_peers: tuple[str, ...]) -> tuple[Candidate, ...]:
    """Return every host of the table for placement, this one first, but none whose name belongs to another host.

    `awaited_peers`: URLs where a host is expected and none has answered yet. Without them, and without any host in the
    table (online or not, of this mesh or another version), this host is the only one.
    """
    there = {member.store_id for member in online(own, table, wrong)}
    rows = [row for key, row in table.rows.items() if key not in wrong or not same_mesh(row.host, own)]
    others = sorted((row.host for row in rows if is_listed(row, own)), key=_by_name)
    no_route = no_routes(own, table, wrong)
    is_alone = not any(is_listed(row, own) for row in table.rows.values())
    home = _candidate(own, True, "")
    return (
        replace(home, is_only=not awaited_peers, awaited_peers=awaited_peers) if is_alone else home,
        *(_candidate(each, each.store_id in there, no_route.get(each.store_id, "")) for each in others),
    )


def _candidate(member: MeshHost, is_online: bool, no_route: str) -> Candidate:
    return Candidate(
        host=member.ref,
        addresses=urls(member),
        mesh_version=member.mesh_version,
        online=is_online,
        no_route=no_route,
        tags=member.tags,
        offered=member.capacity,
        free=member.free,
        queued_jobs=member.queued_jobs,
        running_jobs=member.running_jobs,
    )


def find(own: MeshHost, table: Table, wrong: Problems, name_or_url: str) -> HostRef:
    """The joined host of that name or URL, an online one before an offline one.

    Raises Unknown, which names the hosts there are.
    """
    rows = [Row(host=own, last_seen_at=0.0, up=True)]
    rows += sorted(table.rows.values(), key=lambda row: (not row.up, -row.last_seen_at, row.host.store_id))
    known = [row.host for row in rows if same_mesh(row.host, own) and is_listed(row, own)]
    wanted = _as_url(name_or_url) if ":" in name_or_url else name_or_url
    hits = [member for member in known if wanted == member.name or wanted in urls(member)]
    hits.sort(key=lambda member: member.store_id in wrong)
    if not hits:
        raise _unknown(name_or_url, sorted({member.name for member in known}))
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
