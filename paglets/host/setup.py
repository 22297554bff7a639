"""What the options of a host come to on its machine: where it listens, whom it joins, what it offers."""

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


def others(options: HostOptions) -> tuple[str, ...]:
    """The peers that are not this host itself: one file of the mesh names the same peers to all its hosts."""
    own = {f"http://{name}:{options.port}" for name in (options.name, platform.node().lower())}
    if options.public_url:
        own.add(normalise_url(options.public_url))
    return tuple(url for url in options.peers if normalise_url(url) not in own)


def addresses(options: HostOptions) -> tuple[Address, ...]:
    """Where it listens, its own address first."""
    own = (options.host, options.port)
    if options.bind_public is None:
        return (own,)
    # `auto` follows the addresses of the machine, so it listens at all of that family; an address is only itself.
    name = bind_for(_chosen()) if options.bind_public == AUTO else options.bind_public
    if name == options.host or (name == IPV4_ANYWHERE and ":" not in options.host):
        return ((name, options.port),)
    return (own, (name, options.port))


def names(options: HostOptions) -> tuple[str, ...]:
    """By which names it may be asked, beside the addresses where it listens."""
    own = (options.name, platform.node(), "localhost")
    return (*own, options.public_url.split("://", 1)[-1]) if options.public_url else own


class Advertised:
    """The URL of a host for others. One that was chosen here follows the machine as it changes its network."""

    def __init__(self, options: HostOptions, port: int, choose: Callable[[], str] | None = None) -> None:
        self._choose = choose or _chosen
        self.port = port
        bind = options.bind_public or options.host
        self.is_chosen = options.public_url is None and bind in (AUTO, *ANYWHERE)
        self._url = options.public_url or public_url(ANYWHERE[0] if bind == AUTO else bind, port, self._choose)

    def url(self) -> str:
        """The URL as of the last look."""
        return self._url

    def follow(self) -> str:
        """Look at the addresses of the machine again; return what to say of a change, or "".

        A machine without a network keeps its URL, and so does one whose new address is of the other family, where the
        host does not listen.
        """
        address = self._choose()
        url, before = public_url(address, self.port, self._choose), self._url
        is_loopback = ip_literal(address) is None or address == LOOPBACK
        if not self.is_chosen or is_loopback or url == before or ("[" in url) != ("[" in before):
            return ""
        self._url = url
        return f"the address of this machine changed: others reach this host at {url} now, no longer at {before}"


def settings(
    options: HostOptions, folder: DataDirectory, program: Program, advertised: Advertised, there: Resources, now: float
) -> Settings:
    """Of a host that is `advertised` so to others, on a machine that has what is `there`."""
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
        offered=_offered(options, there),
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
    """What others are shown; that it was damaged is among them, for as long as its person leaves it there."""
    lost = {"damaged": folder.damaged_at} if folder.damaged_at else {}
    return {**lost, **options.properties}


def _offered(options: HostOptions, total: Resources) -> Resources:
    def given(value: int | None, there: int) -> int:
        return there if value is None else value

    return Resources(
        cpu_cores=given(options.cpu_cores, total.cpu_cores),
        memory_bytes=given(options.memory_bytes, total.memory_bytes),
        temp_storage_bytes=given(options.temp_storage_bytes, total.temp_storage_bytes),
        gpus=given(options.gpus, total.gpus),
    )


def _chosen() -> str:
    return public_address(_interfaces)


def _interfaces() -> list[str]:
    psutil = load_psutil()
    if psutil is None:
        return []
    return [address.address for addresses in psutil.net_if_addrs().values() for address in addresses]
