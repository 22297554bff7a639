"""Whether two URLs name the same host: by scheme, lower-case host and port, and by nothing else."""

from __future__ import annotations

from urllib.parse import urlsplit

from paglets.core.refs import DEFAULT_PORT

_SCHEME_PORTS = {"http": 80, "https": 443}

Address = tuple[str, str, int]


def addresses_of(url: str) -> tuple[Address, ...]:
    """What `url` may mean as (scheme, host, port); empty where it names no host.

    A missing scheme is http. A URL without a port may mean its scheme's port or that of a host of the
    mesh: who excludes `http://laptop` means the laptop, and a host kept out in vain is a smaller harm
    than one used against the user's word.
    """
    text = url.strip()
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        host, port = (parts.hostname or "").rstrip("."), parts.port
    except ValueError:
        return ()
    if not host or parts.scheme not in _SCHEME_PORTS:
        return ()
    ports = (port,) if port is not None else (_SCHEME_PORTS[parts.scheme], DEFAULT_PORT)
    return tuple((parts.scheme, host, each) for each in ports)


def same_host(excluded: tuple[str, ...], known: tuple[str, ...]) -> str | None:
    """The first of the `excluded` URLs that names one of the `known` ones, or None."""
    if not excluded:
        return None
    addresses = {address for url in known for address in addresses_of(url)}
    return next((url for url in excluded if any(each in addresses for each in addresses_of(url))), None)
