"""What the options of a host come to on its machine: where it listens, whom it joins, what it offers."""

from __future__ import annotations

import os
import platform

from paglets.config import HostOptions
from paglets.core.urls import normalise_url
from paglets.host.folder import HostFolder
from paglets.host.http.listener import Address
from paglets.host.shell import Settings
from paglets.mesh.addresses import bind_for, public_address, public_url
from paglets.native import load_psutil
from paglets.program import PROGRAM_VERSION, Program
from paglets.slots.model import Resources


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
    public = (bind_for(_public(options)), options.port)
    # All addresses of the family include the loopback that `host` names.
    return (public,) if public[0] in ("0.0.0.0", "::") else (own, public)


def names(options: HostOptions) -> tuple[str, ...]:
    """By which names it may be asked, beside the addresses where it listens."""
    own = (options.name, platform.node(), "localhost")
    return (*own, options.public_url.split("://", 1)[-1]) if options.public_url else own


def settings(
    options: HostOptions, folder: HostFolder, program: Program, port: int, there: Resources, now: float
) -> Settings:
    """Of a host that listens on `port`, on a machine that has what is `there`."""
    bind = options.host if options.bind_public is None else _public(options)
    url = options.public_url or public_url(bind, port, lambda: public_address(_interfaces))
    local = public_url(options.host, port, lambda: "127.0.0.1")
    return Settings(
        store_id=folder.store_id,
        boot_id=folder.boot_id,
        boot_count=folder.boot_count,
        name=options.name,
        url=url,
        addresses=(local,) if local != url else (),
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
        build=program.sha256() if program.is_archive else "",
    )


def _properties(options: HostOptions, folder: HostFolder) -> dict[str, str]:
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


def _public(options: HostOptions) -> str:
    assert options.bind_public is not None
    return public_address(_interfaces) if options.bind_public == "auto" else options.bind_public


def _interfaces() -> list[str]:
    psutil = load_psutil()
    if psutil is None:
        return []
    return [address.address for addresses in psutil.net_if_addrs().values() for address in addresses]
