import pytest

from paglets.core.errors import Invalid
from paglets.core.urls import HostAddress, normalise_url, parse_url


@pytest.mark.parametrize(
    ("url", "host", "port", "authority"),
    [
        ("http://w1", "w1", 8765, "w1:8765"),
        ("http://W1.example.org:80/", "w1.example.org", 80, "w1.example.org:80"),
        ("HTTP://10.0.0.1:1", "10.0.0.1", 1, "10.0.0.1:1"),
        ("http://[::1]:9000", "::1", 9000, "[::1]:9000"),
        ("http://[fe80::1%eth0]:9000", "fe80::1%eth0", 9000, "[fe80::1]:9000"),
    ],
)
def test_the_url_of_a_host_is_name_and_port(url: str, host: str, port: int, authority: str) -> None:
    address = parse_url(url)
    assert address == HostAddress(host=host, port=port)
    assert address.authority == authority


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("http://laptop:8765", "http://laptop:8765"),
        ("HTTP://Laptop:8765/", "http://laptop:8765"),
        ("laptop", "http://laptop:8765"),
        ("laptop:9000", "http://laptop:9000"),
        ("http://laptop", "http://laptop:8765"),
        ("http://10.0.0.7", "http://10.0.0.7:8765"),
        ("http://[2001:DB8::0001]:80", "http://[2001:db8::1]:80"),
        ("[::1]", "http://[::1]:8765"),
        ("http://lab_1.example.org.:1", "http://lab_1.example.org.:1"),
    ],
)
def test_a_url_of_a_host_is_written_one_way(given: str, url: str) -> None:
    assert normalise_url(given) == url
    assert normalise_url(url) == url


@pytest.mark.parametrize(
    "given",
    [
        "",
        "https://laptop:8765",
        "ftp://laptop",
        "file:///etc/passwd",
        "http://",
        "http://:8765",
        "http://user:secret@laptop:8765",
        "http://laptop:8765/v1/host",
        "http://laptop:8765?x=1",
        "http://laptop:8765#x",
        "http://laptop:0",
        "http://laptop:65536",
        "http://laptop:port",
        "http://lap top:8765",
        "http://laptop\n:8765",
        "http://-laptop",
        "http://[::1",
        "http://läptop:8765",
        "http://" + "a" * 300,
    ],
)
def test_what_is_not_the_address_of_a_host_is_refused(given: str) -> None:
    with pytest.raises(Invalid, match="is not the address of a host"):
        normalise_url(given)
