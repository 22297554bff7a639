"""The settings of a host, from its options and its machine: addresses, peers, offered resources."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable

from paglets.config import HostOptions
from paglets.core.urls import ip_literal, normalise_url
from paglets.host.datadir.data_directory import DataDirectory
from paglets.host.http.listener import Address
from paglets.host.runtime.services import Settings
from paglets.mesh.addresses import ANYWHERE, LOOPBACK, bind_for, public_address, public_url
from paglets.native import load_psutil
from paglets.program import PROGRAM_VERSION, Program
from paglets.slots.model import Resources

AUTO = "auto"
IPV4_ANYWHERE = ANYWHERE[0]


def peer_urls(options: HostOptions) -> tuple[str, ...]:
    """Return the configured peers without this host itself, because all hosts may use the same list of peers."""
    own = {f"http://{name}:{options.port}" for name in (options.name, platform.node().lower())}
    if options.public_url:
        own.add(normalise_url(options.public_url))
    return tuple(url for url in options.peers if normalise_url(url) not in own)


def listen_addresses(options: HostOptions) -> tuple[Address, ...]:
    """Return the addresses to listen on, the local one first."""
    own = (options.host, options.port)
    if options.bind_public is None:
        return (own,)
    # With `auto`, the public address may change while the host runs. So listen on all addresses, unless it is loopback.
    name = bind_for(_public_address()) if options.bind_public == AUTO else options.bind_public
    if name == options.host or (name == IPV4_ANYWHERE and ":" not in options.host):
        return ((name, options.port),)
    return (own, (name, options.port))


def host_names(options: HostOptions) -> tuple[str, ...]:
    """Return the names that requests may use in their Host header, besides the listen addresses."""
    own = (options.name, platform.node(), "localhost")
    return (*own, options.public_url.split("://", 1)[-1]) if options.public_url else own


class AdvertisedUrl:
    """The URL of a host for other machines.

    It follows address changes of the machine if the host listens on all addresses and no URL is configured.
    """

    def __init__(self, options: HostOptions, port: int, choose: Callable[[], str] | None = None) -> None:
        self._choose = choose or _public_address
        self.port = port
        bind = options.bind_public or options.host
        self.is_chosen = options.public_url is None and bind in (AUTO, *ANYWHERE)
        self._url = options.public_url or public_url(ANYWHERE[0] if bind == AUTO else bind, port, self._choose)

    def url(self) -> str:
        """Return the current URL."""
        return self._url

    def update(self) -> str:
        """Read the addresses of the machine again. Return a message if the URL changed, else "".

        The URL stays the same if the machine has no network, or if its new address has the other IP version, on which
        the host does not listen.
        """
        address = self._choose()
        url, before = public_url(address, self.port, self._choose), self._url
        is_loopback = ip_literal(address) is None or address == LOOPBACK
        if not self.is_chosen or is_loopback or url == before or ("[" in url) != ("[" in before):
            return ""
        self._url = url
        return f"the address of this machine changed: other hosts now reach this host at {url}, not at {before}"


def settings(
    options: HostOptions,
    folder: DataDirectory,
    program: Program,
    advertised: AdvertisedUrl,
    total: Resources,
    now: float,
) -> Settings:
    """Return the settings of a host on a machine with these total resources."""
    url, port = advertised.url(), advertised.port
    local = public_url(options.host, port, lambda: LOOPBACK)
    return Settings(
        store_id=folder.store_id,
        boot_id=folder.boot_id,
        boot_count=folder.boot_count,
        name=options.name,
        url=url,
        addresses=(local,) if local != url or advertised.is_chosen else (),
        mesh_version=options.mesh_version,
        started_at=now,
        offered=_offered(options, total),
        tags=options.tags,
        properties=tuple(sorted(_properties(options, folder).items())),
        reachable=options.reachable,
        code_paths=options.code_paths,
        pin_cpus=options.pin_cpus,
        artifact_max_bytes=options.artifact_max_bytes,
        artifact_quota_bytes=options.artifact_quota_bytes,
        host_lost_after_seconds=options.host_lost_after_seconds,
        input_wait_seconds=options.input_wait_seconds,
        report_grace_seconds=options.report_grace_seconds,
        python=platform.python_version(),
        pid=os.getpid(),
        program=f"paglets {PROGRAM_VERSION}",
        build=program.sha256() if program.archive else "",
    )


def _properties(options: HostOptions, folder: DataDirectory) -> dict[str, str]:
    """Return the properties that other hosts see: the configured ones, and the time of the latest database damage."""
    damaged = {"damaged": folder.damaged_at} if folder.damaged_at else {}
    return {**damaged, **options.properties}


def _offered(options: HostOptions, total: Resources) -> Resources:
    def configured(value: int | None, default: int) -> int:
        return default if value is None else value

    return Resources(
        cpu_cores=configured(options.cpu_cores, total.cpu_cores),
        memory_bytes=configured(options.memory_bytes, total.memory_bytes),
        temp_storage_bytes=configured(options.temp_storage_bytes, total.temp_storage_bytes),
        gpus=configured(options.gpus, total.gpus),
    )


def _public_address() -> str:
    return public_address(_interfaces)


def _interfaces() -> list[str]:
    psutil = load_psutil()
    if psutil is None:
        return []
    return [address.address for addresses in psutil.net_if_addrs().values() for address in addresses]
