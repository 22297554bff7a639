import pytest

from paglets.core.urls import normalise_url
from paglets.mesh.addresses import bind_for, choose_address, public_address, public_url, routed_addresses


@pytest.mark.parametrize(
    ("routed", "interfaces", "best"),
    [
        (["192.168.1.5"], ["127.0.0.1", "172.17.0.1", "192.168.1.5"], "192.168.1.5"),
        (["192.168.1.5", "2003:db::5"], [], "192.168.1.5"),
        (["8.8.4.4"], ["10.0.0.1"], "8.8.4.4"),
        (["8.8.4.4", "fd00::5"], [], "fd00::5"),
        ([], ["127.0.0.1", "169.254.3.3", "fe80::1%eth0", "10.0.0.1"], "10.0.0.1"),
        ([], ["127.0.0.1", "::1"], "127.0.0.1"),
        (["127.0.0.1"], [], "127.0.0.1"),
        ([], [], "127.0.0.1"),
        (["0.0.0.0"], ["not an address"], "127.0.0.1"),
    ],
)
def test_the_address_to_tell_others_is_on_the_lan(routed: list[str], interfaces: list[str], best: str) -> None:
    assert choose_address(routed, interfaces) == best


@pytest.mark.parametrize(
    ("bind_host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:1"),
        ("0.0.0.0", "http://192.168.1.5:1"),
        ("::", "http://192.168.1.5:1"),
        ("::1", "http://[::1]:1"),
        ("laptop", "http://laptop:1"),
    ],
)
def test_the_public_url_follows_from_what_is_bound(bind_host: str, url: str) -> None:
    assert public_url(bind_host, 1, lambda: "192.168.1.5") == url


@pytest.mark.parametrize(
    ("address", "bind"), [("127.0.0.1", "127.0.0.1"), ("192.168.1.5", "0.0.0.0"), ("fd00::5", "::"), ("::1", "::1")]
)
def test_auto_listens_where_its_address_is_served(address: str, bind: str) -> None:
    assert bind_for(address) == bind


def test_asking_this_machine_gives_an_address_whether_online_or_not() -> None:
    assert normalise_url(public_url("0.0.0.0", 8765, public_address))
    assert all(normalise_url(public_url(address, 1, public_address)) for address in routed_addresses())
