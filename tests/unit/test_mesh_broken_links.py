"""Every host knows the pairs of hosts that cannot connect to each other."""

from __future__ import annotations

from dataclasses import replace

import pytest

from paglets.api.hosts import UnreachableHost
from paglets.core.errors import Invalid
from paglets.host.http.guard import RefusedPeers
from paglets.mesh.contact_errors import ONE_WAY_SECONDS
from paglets.mesh.table import MAX_UNREACHABLE_HOSTS, check_host
from tests.fakes.mesh import VirtualHost, VirtualMesh, member


def three() -> tuple[VirtualMesh, VirtualHost, VirtualHost, VirtualHost]:
    mesh = VirtualMesh()
    home, a, b = mesh.start_many(3)
    mesh.clock.advance(5)
    assert mesh.all_see_all()
    return mesh, home, a, b


def cuts_at(host: VirtualHost) -> list[tuple[str, str]]:
    return [(cut.source, cut.target) for cut in host.gossip.broken_links()]


def test_a_cut_in_one_direction_is_known_to_all_and_over_when_it_is_healed() -> None:
    mesh, home, a, b = three()
    mesh.network.cut(a.row.store_id, b.row.url)
    mesh.clock.advance(ONE_WAY_SECONDS * 3)
    assert mesh.all_see_all(), "they hear of each other"
    assert [cuts_at(host) for host in (home, a, b)] == [[("h01", "h02")]] * 3
    (cut,) = home.gossip.broken_links()
    assert ONE_WAY_SECONDS <= cut.seconds <= ONE_WAY_SECONDS * 3
    mesh.network.heal()
    mesh.clock.advance(10)
    assert [cuts_at(host) for host in (home, a, b)] == [[], [], []]


def test_a_cut_in_both_directions_between_two_workers_is_known_to_the_third() -> None:
    mesh, home, a, b = three()
    mesh.network.cut(a.row.store_id, b.row.url)
    mesh.network.cut(b.row.store_id, a.row.url)
    mesh.clock.advance(ONE_WAY_SECONDS * 3)
    assert cuts_at(home) == [("h01", "h02"), ("h02", "h01")]


def test_a_host_that_has_ended_is_no_cut() -> None:
    mesh, home, a, b = three()
    b.kill()
    mesh.clock.advance(ONE_WAY_SECONDS * 3)
    assert [cuts_at(host) for host in (home, a)] == [[], []]


def test_the_list_of_a_host_is_bounded() -> None:
    many = tuple(UnreachableHost(store_id=f"s{nth}", since=1.0) for nth in range(MAX_UNREACHABLE_HOSTS + 1))
    check_host(replace(member("a"), unreachable_hosts=many[1:]))
    for wrong in (many, (UnreachableHost(store_id="a/b", since=1.0),), (UnreachableHost(store_id="a", since=-1.0),)):
        with pytest.raises(Invalid):
            check_host(replace(member("a"), unreachable_hosts=wrong))


def test_whoever_knocks_with_a_wrong_key_the_list_is_short_and_forgets() -> None:
    refusals = RefusedPeers(most=3, keep_seconds=60)
    for nth in range(1000):
        refusals.note(f"10.0.{nth // 256}.{nth % 256}", float(nth))
    refusals.note("127.0.0.1", 1000.0)
    refusals.note("2001:db8::1", 1001.0)
    refusals.note("2001:db8::2", 1002.0)
    found = [(each.address, each.seconds) for each in refusals.seen(1003.0)]
    assert found == [("2001:db8::/64", 1.0), ("this machine", 3.0), ("10.0.3.231", 4.0)]
    assert refusals.seen(1062.5) == refusals.seen(1062.5)[:1]
    assert refusals.seen(2000.0) == ()
