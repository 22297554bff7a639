"""A change of the host's address at run time: other hosts learn it, and the host reports it."""

from __future__ import annotations

from tests.unit.host_rig import Rig


def test_others_learn_a_new_address_at_once_and_connect_there() -> None:
    laptop = Rig(name="laptop")
    worker = Rig(name="worker", beside=laptop)
    laptop.network.leave(laptop.url)
    laptop.url = "http://10.1.2.3:8765"
    laptop.network.join(laptop.url, laptop.settings.store_id, laptop.answer_request)
    laptop.run(3)
    member = worker.host.gossip.by_store(laptop.settings.store_id)
    assert member is not None
    assert (member.url, member.name) == ("http://10.1.2.3:8765", "laptop")
    assert laptop.host.identity().url == "http://10.1.2.3:8765"
    worker.run(30)
    assert worker.host.gossip.is_online(laptop.settings.store_id)
    assert worker.host.gossip.broken_links() == ()
