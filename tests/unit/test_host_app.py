"""What the composition root decides before it opens anything."""

from __future__ import annotations

from paglets.config import HostOptions
from paglets.host.app import others


def test_a_host_that_a_shared_file_names_as_peer_is_no_peer_of_itself() -> None:
    peers = ("http://laptop:8765", "http://gpu-a:8765")
    assert others(HostOptions(name="laptop", peers=peers)) == ("http://gpu-a:8765",)
    assert others(HostOptions(name="linux-a", peers=peers)) == peers


def test_another_host_of_the_same_machine_is_a_peer() -> None:
    peers = ("http://laptop:8765",)
    assert others(HostOptions(name="laptop", port=8766, peers=peers)) == peers


def test_the_public_url_names_this_host_too() -> None:
    options = HostOptions(name="a", public_url="http://A.example:80", peers=("http://a.example:80",))
    assert others(options) == ()
