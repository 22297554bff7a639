from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from paglets.api.hosts import Gossip
from paglets.core.errors import Invalid, Unknown
from paglets.mesh.gossip import Gossiper
from paglets.program import PROTOCOL
from paglets.slots.model import Resources
from paglets.store import hosts as stored
from paglets.store.db import Tx, open_store
from tests.fakes.clock import FakeClock, SeededEntropy
from tests.fakes.mesh import VirtualHost, VirtualMesh, member
from tests.fakes.network import LoopNetwork

GOSSIP = "POST /v1/mesh/gossip"


def joined_mesh(count: int, seed: int = 1) -> tuple[VirtualMesh, list[VirtualHost]]:
    mesh = VirtualMesh(seed)
    hosts = mesh.start_many(count)
    mesh.clock.advance_until(mesh.all_see_all, 2.0)
    return mesh, hosts


def no_faults(mesh: VirtualMesh) -> bool:
    return not any(host.driver.faults for host in mesh.hosts.values())


@pytest.mark.parametrize("count", [3, 10, 50])
def test_hosts_that_start_at_once_all_know_each_other_within_two_seconds(count: int) -> None:
    mesh = VirtualMesh(count)
    mesh.start_many(count)
    mesh.clock.advance_until(mesh.all_see_all, 2.0)
    assert no_faults(mesh)


@pytest.mark.parametrize("count", [3, 30])
def test_a_new_host_is_in_its_peers_table_at_once_and_in_all_within_two_seconds(count: int) -> None:
    mesh, hosts = joined_mesh(count)
    mesh.clock.advance(7)
    late = mesh.start(member("late"), peers=[hosts[count // 2].row.url])
    mesh.clock.advance_until(lambda: late.online_names(), 2.0)
    assert "late" in hosts[count // 2].online_names()
    mesh.clock.advance_until(mesh.all_see_all, 2.0)


def test_when_receive_returns_the_sender_is_in_the_table() -> None:
    mesh = VirtualMesh()
    host = mesh.start(member("a"))
    row = member("b")
    answer = host.gossip.receive(Gossip(mesh_version="test", protocol=PROTOCOL, hosts=(row,)), row.store_id)
    assert host.online_names() == ["b"]
    assert host.gossip.by_store("store-b") == row
    assert answer.hosts[0].name == "a"


def test_a_host_without_peers_is_a_mesh_of_one() -> None:
    mesh = VirtualMesh()
    host = mesh.start(member("a"))
    mesh.clock.advance(5)
    (own,) = host.gossip.hosts()
    assert (own.host.name, own.online, own.problem, own.host.joined) == ("a", True, "", 1)
    assert sum(mesh.network.sent.values()) == 0


def test_a_peer_that_starts_later_is_found_within_the_back_off() -> None:
    mesh = VirtualMesh()
    early = mesh.start(member("early"), peers=["http://late:8765"])
    mesh.clock.advance(60)
    ((url, problem),) = early.gossip.peer_problems()
    assert (url, "refused" in problem) == ("http://late:8765", True)
    mesh.start(member("late"))
    mesh.clock.advance_until(mesh.all_see_all, 5.1)
    assert early.gossip.peer_problems() == ()


def test_a_joined_peer_is_no_problem_when_it_is_offline_moved_or_unreachable() -> None:
    mesh = VirtualMesh()
    away, moves = mesh.start(member("away")), mesh.start(member("moves"))
    host = mesh.start(member("host"), peers=["http://away:8765", "http://moves:8765", "http://typo:8765"])
    mesh.clock.advance(5)
    away.kill()
    moves.kill()
    moved = replace(moves.row, url="http://new:8765", boot_id="2", boot_count=2, reachable=False)
    mesh.start(moved, peers=[host.row.url])
    mesh.clock.advance(60)
    assert [url for url, _ in host.gossip.peer_problems()] == ["http://typo:8765"]
    assert host.problem_of("moves") == ""
    host = mesh.restart(host)
    mesh.clock.advance(20)
    assert "http://away:8765" not in [url for url, _ in host.gossip.peer_problems()]


def test_a_mended_peer_takes_the_place_of_one_that_never_answered_and_of_no_other() -> None:
    mesh = VirtualMesh()
    mesh.start(member("a"))
    b = mesh.start(member("b"), peers=["http://a:8765", "http://typo:8765"])
    mesh.clock.advance_until(mesh.all_see_all, 10.0)
    b.kill()
    b = mesh.restart(b, peers=["http://other:8765"])
    assert b.store.read(stored.load_peers) == ("http://a:8765", "http://other:8765")


def is_alone(host: VirtualHost) -> bool:
    return host.gossip.candidates()[0].is_only


def test_a_host_is_the_only_one_before_it_knows_another_and_after_it_forgot_it() -> None:
    mesh = VirtualMesh()
    host = mesh.start(member("host"))
    assert is_alone(host)
    other = mesh.start(member("other"), peers=[host.row.url])
    mesh.clock.advance_until(mesh.all_see_all, 5.0)
    assert not is_alone(host)
    assert not is_alone(other)
    other.kill()
    host.kill()
    host = mesh.restart(host)
    assert not is_alone(host), "it reads its members before it does anything"
    mesh.clock.advance(60)
    assert not is_alone(host), "offline hosts are known"
    host.gossip.forget("store-other")
    assert is_alone(host)


def test_a_host_with_a_peer_is_not_the_only_one_unless_that_is_itself_or_forgotten() -> None:
    mesh = VirtualMesh()
    host = mesh.start(member("host"), peers=["http://late:8765", "http://host:8765"])
    mesh.clock.advance(60)
    assert host.gossip.candidates()[0].awaited_peers == ("http://late:8765",)
    late = mesh.start(member("late"))
    seen = []
    mesh.clock.advance_until(lambda: seen.append(is_alone(host)) or host.online_names() == ["late"], 6.0)
    assert not any(seen)
    late.kill()
    mesh.clock.advance(60)
    host.gossip.forget("store-late")
    assert is_alone(host)
    host.kill()
    assert is_alone(mesh.restart(host)), "only a peer given at this start is awaited"


def test_a_host_of_another_mesh_version_is_known_all_the_same() -> None:
    mesh = VirtualMesh()
    host = mesh.start(member("host"))
    mesh.start(member("other", mesh_version="v2"), peers=[host.row.url])
    mesh.clock.advance(5)
    assert host.online_names() == []
    assert not is_alone(host)


def test_a_host_that_is_its_own_peer_stays_calm() -> None:
    mesh = VirtualMesh()
    host = mesh.start(member("a"), peers=["http://a:8765"])
    mesh.clock.advance(60)
    assert len(host.gossip.hosts()) == 1
    assert sum(mesh.network.sent.values()) == 1


@pytest.mark.parametrize("count", [3, 30])
def test_a_killed_host_is_offline_for_all_within_fifteen_seconds(count: int) -> None:
    mesh, hosts = joined_mesh(count)
    mesh.clock.advance(5)
    hosts[1].kill()
    del mesh.hosts["h01"]
    took = mesh.clock.advance_until(mesh.all_see_all, 15.0)
    assert took > 3
    assert hosts[0].gossip.by_store("store-h01") is not None


def test_a_host_that_leaves_is_offline_for_all_at_once() -> None:
    mesh, hosts = joined_mesh(10)
    mesh.clock.advance(5)
    hosts[3].leave()
    del mesh.hosts["h03"]
    mesh.clock.advance_until(mesh.all_see_all, 0.2)
    mesh.clock.advance(20)
    assert mesh.all_see_all()


@pytest.mark.parametrize("count", [3, 30])
def test_a_restarted_host_rejoins_and_is_known_to_all_within_two_seconds(count: int) -> None:
    mesh, hosts = joined_mesh(count)
    hosts[1].kill()
    mesh.clock.advance(16)
    again = mesh.restart(hosts[1], url="http://elsewhere:9000")
    mesh.clock.advance_until(mesh.all_see_all, 2.0)
    for host in hosts[2:]:
        known = host.gossip.by_store("store-h01")
        assert known is not None
        assert (known.url, known.boot_count) == ("http://elsewhere:9000", 2)
    assert again.gossip.by_store("store-h00") is not None


def test_a_fast_restart_is_seen_though_the_host_never_was_offline() -> None:
    mesh, hosts = joined_mesh(3)
    hosts[1].kill()
    mesh.restart(hosts[1])

    def all_know_the_new_boot() -> bool:
        known = [host.gossip.by_store("store-h01") for host in (hosts[0], hosts[2])]
        return all(row is not None and row.boot_id == "h01-2" for row in known)

    mesh.clock.advance_until(all_know_the_new_boot, 2.0)


def test_a_mesh_whose_hosts_all_restart_comes_together_again() -> None:
    mesh, hosts = joined_mesh(10)
    for host in hosts:
        host.kill()
    mesh.clock.advance(600)
    for host in hosts[1:]:
        mesh.restart(host)
        mesh.clock.advance(0.5)
    del mesh.hosts["h00"]
    mesh.clock.advance_until(mesh.all_see_all, 2.0)


def test_changed_tags_are_known_to_all_within_two_seconds() -> None:
    mesh, hosts = joined_mesh(30)
    mesh.clock.advance(5)
    hosts[4].row = replace(hosts[4].row, tags=("gpu",))

    def all_know() -> bool:
        rows = [host.gossip.by_store("store-h04") for host in hosts]
        return all(row is not None and row.tags == ("gpu",) for row in rows)

    hosts[4].driver.runner.wake("gossip")
    mesh.clock.advance_until(all_know, 2.0)


def test_a_queue_that_fills_is_told_at_once_and_at_most_once_a_second() -> None:
    mesh, hosts = joined_mesh(3)
    mesh.clock.advance(5)
    hosts[1].row = replace(hosts[1].row, queued_jobs=7, free=Resources())
    hosts[1].driver.runner.wake("gossip")
    mesh.clock.advance_until(lambda: _queued(hosts[0], "h01") == 7, 0.2)
    mesh.network.sent.clear()
    for n in range(100):
        hosts[1].row = replace(hosts[1].row, queued_jobs=n % 2)
        hosts[1].driver.runner.wake("gossip")
        mesh.clock.advance(0.1)
    assert mesh.network.sent[("store-h01", GOSSIP)] <= 2 * 11 + 12


def _queued(host: VirtualHost, name: str) -> int:
    row = host.gossip.by_store(f"store-{name}")
    return -1 if row is None else row.queued_jobs


def test_the_second_host_of_a_name_is_refused_and_everybody_says_so() -> None:
    mesh, (a, b, c) = joined_mesh(3)
    mesh.clock.advance(60)
    twin_row = member("h01", store_id="a-store", url="http://twin:8765", boot_id="twin-1")
    mesh.hosts["h01"] = twin = mesh.start(twin_row, peers=[a.row.url])
    mesh.clock.advance(3)
    for host in (a, b, c, twin):
        assert "start the one at http://twin:8765 with another --name" in host.problem_of("h01")
    assert twin.gossip.problem()
    assert not b.gossip.problem()
    assert twin.gossip.online() == ()
    assert a.gossip.find("h01").store_id == "store-h01"
    assert a.online_names() == ["h01", "h02"]
    assert b.online_names() == ["h00", "h02"]


def test_the_holder_of_a_name_keeps_it_through_a_restart() -> None:
    mesh, (a, b, _c) = joined_mesh(3)
    mesh.start(member("h01", store_id="a-store", url="http://twin:8765", boot_id="twin-1"), peers=[a.row.url])
    mesh.clock.advance(3)
    b.kill()
    mesh.clock.advance(30)
    assert a.gossip.find("h01").store_id == "a-store"
    assert "the name h01 is that of a-store at http://twin:8765 now" in a.problem_of("h01")
    mesh.restart(b)
    mesh.clock.advance(3)
    assert a.gossip.find("h01").store_id == "store-h01"


def test_a_host_that_was_refused_for_its_name_leaves_nothing_when_it_is_gone() -> None:
    mesh, hosts = joined_mesh(3)
    mesh.clock.advance(10)
    twin = mesh.start(member("h01", store_id="a-store", url="http://twin:8765"), peers=[hosts[0].row.url])
    mesh.clock.advance(3)
    for host in hosts:
        assert len(names_of_candidates(host)) == 3
    twin.kill()
    mesh.hosts["h01"] = hosts[1]
    mesh.clock.advance(20)
    late = mesh.start(member("late"), peers=[hosts[0].row.url])
    mesh.clock.advance(3)
    for host in (*hosts, late):
        assert sorted(view.host.name for view in host.gossip.hosts()) == ["h00", "h01", "h02", "late"]
        assert len(names_of_candidates(host)) == 4
        assert "a-store" not in {row.store_id for row in host.store.read(stored.load)}
    mesh.restart(twin, name="other")
    mesh.clock.advance_until(mesh.all_see_all, 6.0)


def names_of_candidates(host: VirtualHost) -> list[str]:
    return [each.host.name for each in host.gossip.candidates()]


def test_what_is_silent_is_still_known_by_its_store_while_it_is_not_listed() -> None:
    """The host may have joined in another part of a partitioned mesh, so a copy of a job there is not lost at once."""
    mesh, hosts = joined_mesh(3)
    mesh.clock.advance(10)
    twin = mesh.start(member("h01", store_id="a-store", url="http://twin:8765"), peers=[hosts[0].row.url])
    mesh.clock.advance(60)
    twin.kill()
    mesh.clock.advance(20)
    assert hosts[0].gossip.by_store("a-store") is not None
    assert 15 < hosts[0].gossip.seconds_since_contact("a-store") < 40
    mesh.clock.advance(3_700)
    assert hosts[0].gossip.by_store("a-store") is None


def test_two_mesh_versions_do_not_join_and_both_sides_say_why() -> None:
    mesh, (a, _b, _c) = joined_mesh(3)
    other = mesh.start(member("other", mesh_version="v2"), peers=[a.row.url])
    mesh.clock.advance(3)
    assert "'v2', this host's is 'test'" in a.problem_of("other")
    assert "'test', this host's is 'v2'" in other.problem_of("h00")
    assert "other" not in a.online_names()
    assert other.gossip.online() == ()
    assert [view.host.name for view in other.gossip.hosts()] == ["other", "h00"]
    assert a.gossip.by_store("store-other") is None
    other.kill()
    mesh.clock.advance(20)
    assert a.problem_of("other").startswith("offline; its mesh version was 'v2'")
    assert "store-other" not in {row.store_id for row in a.store.read(stored.load)}


def test_a_host_restarted_with_the_right_version_joins() -> None:
    mesh, (a, _b, _c) = joined_mesh(3)
    other = mesh.start(member("other", mesh_version="v2"), peers=[a.row.url])
    mesh.clock.advance(3)
    other.kill()
    mesh.restart(other, mesh_version="test")
    mesh.clock.advance_until(mesh.all_see_all, 2.0)
    assert a.problem_of("other") == ""


def test_a_rolling_upgrade_ends_in_one_mesh() -> None:
    mesh, hosts = joined_mesh(5)
    for host in hosts:
        mesh.hosts[host.row.name].kill()
        mesh.restart(host, mesh_version="v2")
        mesh.clock.advance(20)
    mesh.clock.advance_until(mesh.all_see_all, 2.0)


def test_a_peer_with_another_key_is_a_problem_with_a_way_out() -> None:
    mesh = VirtualMesh()
    mesh.start(member("a"))
    b = mesh.start(member("b"), peers=["http://a:8765"])
    b.key = "another key"
    mesh.clock.advance(3)
    ((_url, problem),) = b.gossip.peer_problems()
    assert "copy mesh.key" in problem


def test_a_laptop_that_slept_takes_nobody_for_dead_and_is_back_at_once() -> None:
    mesh, hosts = joined_mesh(5)
    mesh.clock.advance(10)
    hosts[2].driver.stop()
    mesh.network.part(("store-h02",), tuple(h.row.store_id for h in hosts if h is not hosts[2]))
    mesh.clock.advance(600)
    assert "h02" not in hosts[0].online_names()
    hosts[2].driver.resume()
    mesh.clock.advance(3)
    assert len(hosts[2].online_names()) == 4
    assert all(view.seconds_since_seen < 5 for view in hosts[2].gossip.hosts())
    mesh.network.heal()
    mesh.clock.advance_until(mesh.all_see_all, 6.0)


def test_before_its_first_look_round_a_woken_host_blames_nobody() -> None:
    mesh, hosts = joined_mesh(3)
    hosts[1].driver.stop()
    mesh.clock.advance(600)
    assert len(hosts[1].online_names()) == 2
    assert hosts[1].gossip.seconds_since_seen("store-h00") < 3
    assert hosts[1].gossip.seconds_since_seen("nobody") < 10


def test_a_parted_mesh_sees_two_halves_and_comes_together_again() -> None:
    mesh, hosts = joined_mesh(10)
    ids = [host.row.store_id for host in hosts]
    mesh.network.part(tuple(ids[:5]), tuple(ids[5:]))
    mesh.clock.advance(20)
    assert all(len(host.online_names()) == 4 for host in hosts)
    mesh.network.heal()
    mesh.clock.advance_until(mesh.all_see_all, 15.0)


def test_a_host_that_nobody_can_reach_stays_online_by_its_own_beats() -> None:
    mesh, hosts = joined_mesh(3)
    behind = mesh.start(member("nat", reachable=False), peers=[hosts[0].row.url])
    mesh.network.leave(behind.row.url)
    # Its own requests still come back: only its address is closed.
    mesh.clock.advance(60)
    assert all("nat" in host.online_names() for host in hosts)
    assert behind.online_names() == ["h00", "h01", "h02"]


def test_a_host_to_which_one_can_only_listen_is_a_problem_with_a_way_out() -> None:
    mesh, hosts = joined_mesh(3)
    behind = mesh.start(member("nat"), peers=[hosts[0].row.url])
    mesh.network.leave(behind.row.url)
    mesh.clock.advance(60)
    assert "h00 cannot connect to nat at http://nat:8765, but gets its requests" in hosts[0].problem_of("nat")
    assert "set `reachable = false` in [hosts.nat]" in hosts[0].problem_of("nat")
    told = behind.problem_of("nat")
    assert told.startswith("h00, h01, h02 cannot connect to this host at http://nat:8765: open that port")
    assert not behind.gossip.problem()
    mesh.network.join(behind.row.url, behind.row.store_id, behind.handle)
    mesh.clock.advance(30)
    assert hosts[0].problem_of("nat") == behind.problem_of("nat") == ""


def test_of_a_host_that_is_just_back_nobody_says_that_it_cannot_be_connected_to() -> None:
    mesh, hosts = joined_mesh(3)
    hosts[1].kill()
    mesh.clock.advance(120)
    assert "cannot be reached" in hosts[0].problem_of("h01") or "refused" in hosts[0].problem_of("h01")
    again = mesh.restart(hosts[1])
    mesh.network.leave(again.row.url)  # its server comes later
    for _ in range(14):
        mesh.clock.advance(1)
        assert "but gets its requests" not in hosts[0].problem_of("h01")
    mesh.network.join(again.row.url, again.row.store_id, again.handle)
    mesh.clock.advance(10)
    assert hosts[0].problem_of("h01") == ""


def test_a_host_not_seen_since_the_start_is_shown_as_not_seen() -> None:
    mesh, hosts = joined_mesh(3)
    hosts[1].kill()
    hosts[0].kill()
    mesh.clock.advance(600)
    mesh.restart(hosts[0])
    mesh.clock.advance(3)
    heard = {view.host.name: view.was_seen for view in hosts[2].gossip.hosts()}
    assert heard == {"h00": True, "h01": True, "h02": True}
    late = mesh.start(member("late"), peers=[hosts[2].row.url])
    mesh.clock.advance(3)
    for host in (mesh.hosts["h00"], late):
        views = {view.host.name: view for view in host.gossip.hosts()}
        assert (views["h01"].was_seen, views["h02"].was_seen) == (False, True)
        assert views["h01"].seconds_since_seen < 7


def offline_seconds(host: VirtualHost, name: str) -> float:
    return next(view.offline_seconds for view in host.gossip.hosts() if view.host.name == name)


def test_how_long_a_host_is_away_counts_through_sleep_and_restarts_until_it_is_back() -> None:
    mesh, hosts = joined_mesh(3)
    assert offline_seconds(hosts[0], "h01") == 0.0
    hosts[1].kill()
    mesh.clock.advance(20)
    assert 5 < offline_seconds(hosts[0], "h01") <= 20
    mesh.clock.suspend(86_400)
    hosts[0].kill()
    again = mesh.restart(hosts[0])
    mesh.clock.advance(3)
    assert 86_400 < offline_seconds(again, "h01") < 86_430
    assert offline_seconds(again, "h02") == 0.0
    back = mesh.restart(hosts[1])
    mesh.clock.advance_until(mesh.all_see_all, 5.0)
    assert offline_seconds(again, "h01") == 0.0
    back.kill()
    mesh.clock.advance(20)
    assert offline_seconds(again, "h01") <= 20


def test_a_host_that_stopped_while_this_one_was_down_is_offline_from_its_start() -> None:
    mesh, hosts = joined_mesh(2)
    hosts[0].kill()
    hosts[1].kill()
    mesh.clock.suspend(86_400)
    again = mesh.restart(hosts[0])
    mesh.clock.advance(20)
    assert offline_seconds(again, "h01") == 20
    again.kill()
    mesh.clock.suspend(86_400)
    assert offline_seconds(mesh.restart(hosts[0]), "h01") == 86_420


def test_two_hosts_behind_nat_without_a_third_say_that_there_is_no_way() -> None:
    mesh = VirtualMesh()
    third = mesh.start(member("third"))
    n1, n2 = (mesh.start(member(name, reachable=False), peers=[third.row.url]) for name in ("n1", "n2"))
    mesh.clock.advance(10)
    assert n1.online_names() == ["n2", "third"]
    third.kill()
    mesh.clock.advance(40)
    text = "nobody can connect to n2, nor to n1, and no host is online that both can reach"
    assert n1.problem_of("n2") == text
    n1.kill()
    n1 = mesh.restart(n1)
    mesh.clock.advance(5)
    assert n1.problem_of("n2") == ""
    mesh.clock.advance(10)
    assert n1.problem_of("n2") == text
    found = {each.host.name: (each.online, each.no_route) for each in n1.gossip.candidates()}
    assert found == {"n1": (True, ""), "n2": (False, text), "third": (False, "")}
    mesh.restart(third)
    mesh.clock.advance(20)
    assert n1.problem_of("n2") == n2.problem_of("n1") == ""


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_with_a_fifth_of_all_messages_lost_hosts_stay_online(seed: int) -> None:
    mesh, hosts = joined_mesh(10, seed)
    mesh.network.loss = 0.2
    seen = 0
    for _ in range(60):
        mesh.clock.advance(1)
        seen += sum(len(host.online_names()) for host in hosts)
    assert seen >= 0.99 * 60 * 90
    assert no_faults(mesh)


def test_wrong_wall_clocks_change_nothing() -> None:
    mesh, hosts = joined_mesh(3)
    mesh.clock.wall_error_seconds = -86_400
    hosts[1].row = replace(hosts[1].row, started_at=2e9)
    mesh.clock.advance(30)
    assert mesh.all_see_all()


def test_another_store_at_a_members_address_ends_the_member_at_once() -> None:
    mesh, hosts = joined_mesh(3)
    hosts[1].kill()
    del mesh.hosts["h01"]
    wiped = mesh.start(member("h01", store_id="new-store", boot_id="new-1"), peers=[hosts[0].row.url])
    mesh.clock.advance(15)
    assert hosts[2].gossip.find("h01").store_id == "new-store"
    assert wiped.online_names() == ["h00", "h02"]
    assert "the name h01 is that of new-stor at http://h01:8765 now" in hosts[0].problem_of("h01")
    assert "`paglets mesh forget store-h0`" in hosts[0].problem_of("h01")
    assert hosts[0].gossip.hosts()[-1].host.store_id == "store-h01"
    assert [each.host.store_id for each in hosts[0].gossip.candidates()] == ["store-h00", "new-store", "store-h02"]


def test_a_store_restored_from_a_backup_is_heard_again() -> None:
    mesh, hosts = joined_mesh(3)
    for _ in range(3):
        hosts[1].kill()
        hosts[1] = mesh.restart(hosts[1])
        mesh.clock.advance(2)
    hosts[1].kill()
    mesh.restart(hosts[1], boot_count=1, boot_id="restored", tags=("restored",))

    def known_as_restored() -> bool:
        row = hosts[0].gossip.by_store("store-h01")
        return row is not None and row.tags == ("restored",)

    mesh.clock.advance_until(known_as_restored, 6.0)
    assert mesh.hosts["h01"].gossip.problem() == ""


def test_a_copied_data_directory_is_a_problem_on_both() -> None:
    mesh, hosts = joined_mesh(3)
    copy = mesh.start(replace(hosts[1].row, url="http://copy:8765", boot_id="copy-1"), peers=[hosts[0].row.url])
    mesh.clock.advance(60)
    for host in (copy, hosts[1]):
        assert "copy of this host's data directory" in host.gossip.problem()
        assert host.gossip.online() == ()


def test_an_idle_mesh_writes_nothing() -> None:
    mesh, hosts = joined_mesh(10)
    mesh.clock.advance(5)
    before = [host.database.total_changes for host in hosts]
    mesh.clock.advance(60)
    assert [host.database.total_changes for host in hosts] == before


@pytest.mark.parametrize(
    ("count", "requests_a_second", "bytes_a_second"), [(3, 0.7, 3_000), (10, 1.0, 12_000), (50, 1.2, 60_000)]
)
def test_what_an_idle_mesh_costs_each_host(count: int, requests_a_second: float, bytes_a_second: float) -> None:
    mesh, _hosts = joined_mesh(count)
    mesh.clock.advance(5)
    mesh.network.sent.clear()
    mesh.network.bytes_sent.clear()
    mesh.clock.advance(10)
    assert sum(mesh.network.sent.values()) / count / 10 <= requests_a_second
    assert sum(mesh.network.bytes_sent.values()) / count / 10 <= bytes_a_second


def test_what_a_new_host_costs_grows_with_the_mesh_and_not_with_its_square() -> None:
    mesh, hosts = joined_mesh(50)
    mesh.clock.advance(5)
    mesh.network.sent.clear()
    mesh.start(member("late"), peers=[hosts[0].row.url])
    mesh.clock.advance(1)
    assert sum(mesh.network.sent.values()) <= 2 * 50 + 2 * 50


def test_parts_wake_when_a_host_joins_moves_or_restarts_and_not_at_heartbeats() -> None:
    mesh, hosts = joined_mesh(3)
    mesh.clock.advance(5)
    hosts[0].woken.clear()
    mesh.clock.advance(60)
    assert hosts[0].woken == []
    hosts[1].row = replace(hosts[1].row, url="http://moved:1")
    mesh.network.join("http://moved:1", "store-h01", hosts[1].handle)
    mesh.clock.advance(3)
    assert len(hosts[0].woken) == 1
    hosts[2].kill()
    mesh.restart(hosts[2])
    mesh.clock.advance(3)
    assert len(hosts[0].woken) == 2


def test_any_authenticated_request_is_a_sign_of_life() -> None:
    mesh, hosts = joined_mesh(3)
    hosts[1].kill()
    mesh.clock.advance(30)
    assert hosts[0].online_names() == ["h02"]
    hosts[0].gossip.record_contact("store-h01")
    assert hosts[0].online_names() == ["h01", "h02"]
    hosts[0].gossip.record_contact("a-stranger")
    assert len(hosts[0].gossip.hosts()) == 3


def test_failed_connections_of_other_parts_end_the_wait_for_a_silent_host() -> None:
    mesh, hosts = joined_mesh(2)
    hosts[1].kill()
    mesh.clock.advance(4.5)
    hosts[0].gossip.record_failure("store-h01")
    hosts[0].gossip.record_failure("store-h01")
    assert hosts[0].online_names() == []


def test_a_forgotten_member_does_not_come_back_by_hearsay() -> None:
    mesh, hosts = joined_mesh(3)
    hosts[1].kill()
    mesh.clock.advance(20)
    hosts[0].gossip.forget("store-h01")
    mesh.clock.advance(60)
    assert [view.host.name for view in hosts[0].gossip.hosts()] == ["h00", "h02"]
    with pytest.raises(Unknown, match="there are: h00, h02"):
        hosts[0].gossip.find("h01")
    hosts[0].kill()
    hosts[0] = mesh.restart(hosts[0])
    mesh.clock.advance(60)
    assert [view.host.name for view in hosts[0].gossip.hosts()] == ["h00", "h02"]
    assert hosts[0].gossip.is_forgotten("store-h01")
    mesh.restart(hosts[1])
    mesh.clock.advance_until(mesh.all_see_all, 2.0)
    assert not hosts[0].gossip.is_forgotten("store-h01")
    assert hosts[0].store.read(stored.load_forgotten) == {}


def test_rows_that_are_not_well_formed_are_refused_and_change_nothing() -> None:
    mesh = VirtualMesh()
    host = mesh.start(member("a"))
    bad = (member("b"), member("c", url="http://169.254.169.254/latest"))
    with pytest.raises(Invalid, match="host c"):
        host.gossip.receive(Gossip(mesh_version="test", protocol=PROTOCOL, hosts=bad), "store-b")
    assert len(host.gossip.hosts()) == 1


def test_the_same_seed_tells_the_same_story() -> None:
    def story() -> object:
        mesh, hosts = joined_mesh(10, seed=5)
        mesh.network.loss = 0.1
        mesh.clock.advance(20)
        return sorted(mesh.network.sent.items()), [view for host in hosts for view in host.gossip.hosts()]

    assert story() == story()


def test_many_server_threads_may_take_in_gossip_at_once(tmp_path: Path) -> None:
    clock = FakeClock()
    store = open_store(tmp_path / "paglets.db", lambda error: None)
    network = LoopNetwork(clock, SeededEntropy(1))
    own = member("own")
    gossip = Gossiper(store, clock, SeededEntropy(2), network.transport("store-own"), own, lambda: own)

    def tell(n: int) -> None:
        row = member(f"h{n:03}")
        for beat in range(1, 4):
            gossip.record_contact(row.store_id)
            told = Gossip(mesh_version="test", protocol=PROTOCOL, hosts=(replace(row, heartbeat=beat),))
            gossip.receive(told, row.store_id)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(tell, range(100)))
    assert [row.name for row in gossip.online()] == [f"h{n:03}" for n in range(100)]
    assert len(store.read(stored.load)) == 100
    store.close()


def test_gossip_is_answered_while_a_large_change_holds_the_writer(tmp_path: Path) -> None:
    clock = FakeClock()
    store = open_store(tmp_path / "paglets.db", lambda error: None)
    own = member("own")
    transport = LoopNetwork(clock, SeededEntropy(1)).transport("store-own")
    gossip = Gossiper(store, clock, SeededEntropy(2), transport, own, lambda: own)

    def tell(heartbeat: int) -> Gossip:
        gossip.record_contact("store-w1")
        row = member("w1", heartbeat=heartbeat)
        return gossip.receive(Gossip(mesh_version="test", protocol=PROTOCOL, hosts=(row,)), row.store_id)

    tell(1)
    with ThreadPoolExecutor(1) as pool:

        def large(tx: Tx) -> str:
            return pool.submit(tell, 2).result(10).hosts[0].name

        assert store.write(large) == "own"
    store.close()
