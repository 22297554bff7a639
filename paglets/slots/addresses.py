"""The comparison of host URLs. Only the scheme, the host name in lower case, and the port are compared."""

from __future__ import annotations

from urllib.parse import urlsplit

from paglets.core.refs import DEFAULT_PORT

_SCHEME_PORTS = {"http": 80, "https": 443}

Address = tuple[str, str, int]


def addresses_of(url: str) -> tuple[Address, ...]:
    """Return the addresses that `url` may mean, each as (scheme, host, port); empty if it names no host.

    The default scheme is http. A URL without a port means both the port of its scheme and the default port of paglets,
    because excluding too many hosts does less harm than excluding too few.
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
    """Return the first URL in `excluded` that names the same host as a URL in `known`, or None."""
    if not excluded:
        return None
    addresses = {address for url in known for address in addresses_of(url)}
    return next((url for url in excluded if any(each in addresses for each in addresses_of(url))), None)
