"""The options of a host, from flags and from its section of a TOML file that describes the whole mesh.

An example of such a file:

[mesh]                      # for every host of the file
mesh_version = "analysis"
peers = ["http://laptop:8765"]

[hosts.gpu-a]               # the table's name is the host's name
bind_public = "auto"
tags = ["linux", "gpu"]
memory = "24 GiB"
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paglets.core.errors import Invalid, StartFailed
from paglets.core.refs import DEFAULT_PORT, check_host_name
from paglets.core.regular_files import read_regular
from paglets.core.text import counted
from paglets.core.urls import normalise_url
from paglets.settings import MOST_SHOWN, SETTINGS, shown

DEFAULT_MESH_VERSION = "default"
MAX_FILE_BYTES = 1 << 20
CONFIG_NAME = "hosts.toml"

MOST_TOLD = 20
"""The maximum number of mistakes that are listed for one file."""

FEW_MISTAKES = 3
"""The number of mistakes in a file after which messages about unknown keys no longer list all known keys."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostOptions:
    """The options of a host. None for a resource means all of the machine; port 0 means any free port.

    `bind_public` is "auto" or an address of this machine to listen on besides `host`. The default of `data_dir` is
    `PAGLETS_HOME/hosts/NAME`. `key_file` comes from a flag, `config_key_file` from the file. `pin_cpus` binds each job
    to its leased cores. `artifact_max_bytes` limits one stored artifact, `artifact_quota_bytes` all of them; 0 means no
    limit. Collectors on this host resubmit the jobs of a host that this host has not reached for
    `host_lost_after_seconds`. A resubmitted job waits up to `input_wait_seconds` for inputs that no host has. The
    process of a job is killed if it still runs `report_grace_seconds` after the job's report.
    """

    name: str
    host: str = "127.0.0.1"
    bind_public: str | None = None
    port: int = DEFAULT_PORT
    public_url: str | None = None
    reachable: bool = True
    peers: tuple[str, ...] = ()
    mesh_version: str = DEFAULT_MESH_VERSION
    tags: tuple[str, ...] = ()
    properties: Mapping[str, str] = field(default_factory=dict)
    data_dir: Path | None = None
    key_file: Path | None = None
    config_key_file: Path | None = None
    cpu_cores: int | None = None
    memory_bytes: int | None = None
    temp_storage_bytes: int | None = None
    gpus: int | None = None
    pin_cpus: bool = False
    code_paths: tuple[str, ...] = ()
    artifact_max_bytes: int = 0
    artifact_quota_bytes: int = 0
    host_lost_after_seconds: float = 120.0
    input_wait_seconds: float = 7 * 86400.0
    report_grace_seconds: float = 600.0
    log_level: str = "info"


_OTHER_FLAGS = {
    "reachable": "--unreachable",
    "peers": "--peer",
    "tags": "--tag",
    "properties": "--property",
    "code_paths": "--code-path",
    "cpu_cores": "--cores",
    "memory": "--mem",
    "temp_storage": "--disk",
}
"""The flags of settings whose flag is not simply the name of the setting with hyphens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """The value of an option and its source, such as `--tag`, `[mesh]` or `[hosts.w1]`."""

    value: Any
    source: str


def host_options(name: str, *, flags: Mapping[str, Any], file: Mapping[str, Any] | None = None) -> HostOptions:
    """Return the options of the host `name` from `flags` (setting -> value) and `file` (see `read_config`).

    Flags override the file. Raises Invalid for a wrong value; its message names the flag or key.
    """
    given = settings_of(name, flags=flags, file=file)
    values = {SETTINGS[setting][0]: found.value for setting, found in given.items()}
    if "key_file" in values and "key_file" not in flags:
        # PAGLETS_API_KEY overrides a key file from the configuration file, but not one from a flag. So each has its
        # own option.
        values["config_key_file"] = values.pop("key_file")
    return HostOptions(name=name, **values)


def settings_of(name: str, *, flags: Mapping[str, Any], file: Mapping[str, Any] | None = None) -> dict[str, Setting]:
    """Return the settings given for the host `name`. Flags override its section of `file`, which overrides `[mesh]`.

    All sections of the file are checked. Raises Invalid for a wrong value; its message names the flag or key.
    """
    check_host_name(name)
    mesh, hosts = _sections(file or {})
    found = {setting: Setting(value=value, source="[mesh]") for setting, value in mesh.items()}
    own = hosts.get(name, {})
    found |= {setting: Setting(value=value, source=f"[hosts.{name}]") for setting, value in own.items()}
    mistakes: list[str] = []
    from_flags = _checked(flags, flag_name, mistakes)
    _refuse(mistakes)
    return found | {setting: Setting(value=value, source=flag_name(setting)) for setting, value in from_flags.items()}


def flag_name(setting: str) -> str:
    """Return the flag of a setting, such as `--temp-storage`."""
    return _OTHER_FLAGS.get(setting, f"--{setting.replace('_', '-')}")


def _sections(file: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Return the checked settings of `[mesh]` and of each host. Raises Invalid like `_refuse`."""
    mistakes: list[str] = []
    _check_names(file, ("mesh", "hosts"), "the file", mistakes)
    mesh = _section(file.get("mesh", {}), "mesh", mistakes)
    hosts = _table(file.get("hosts", {}), "hosts", mistakes)
    for each in hosts:
        with _noted(mistakes):
            check_host_name(each)
    sections = {each: _section(section, f"hosts.{each[:MOST_SHOWN]}", mistakes) for each, section in hosts.items()}
    _refuse(mistakes)
    return mesh, sections


@contextmanager
def _noted(mistakes: list[str], place: str = "") -> Iterator[None]:
    """Catch Invalid from the block. Append `place` and its message to `mistakes`, so that all are reported together."""
    try:
        yield
    except Invalid as error:
        mistakes.append(place + error.message)


def _refuse(mistakes: list[str]) -> None:
    """Raise Invalid if there are mistakes: with the first as message, and the first MOST_TOLD as detail `mistakes`."""
    if mistakes:
        more, left = len(mistakes) - 1, len(mistakes) - MOST_TOLD
        raise Invalid(
            mistakes[0] + (f" (and {counted(more, 'further mistake')})" if more else ""),
            mistakes=mistakes[:MOST_TOLD] + ([f"and {counted(left, 'further mistake')}"] if left > 0 else []),
        )


def host_names(file: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the hosts in a configuration file. Raises Invalid for any mistake in the file."""
    return tuple(_sections(file)[1])


def data_dirs(file: Mapping[str, Any]) -> dict[str, Path]:
    """Return the configured data directories by host name. Raises Invalid for any mistake in the file."""
    mesh, sections = _sections(file)
    found = {name: (mesh | section).get("data_dir") for name, section in sections.items()}
    return {name: path for name, path in found.items() if path is not None}


def addresses_read(file: Mapping[str, Any]) -> dict[str, str]:
    """Return the addresses in a valid file: a dict from each address, as the file has it, to its normal form."""
    sections = (file.get("mesh", {}), *file.get("hosts", {}).values())
    written = [text for section in sections for text in section.get("peers", ())]
    written += [section["public_url"] for section in sections if "public_url" in section]
    return {text: normalise_url(text) for text in written}


def read_config(path: Path) -> dict[str, Any]:
    """Return the content of a TOML file as a dict. Raises StartFailed, which names the file and, if known, the line."""
    try:
        data = read_regular(path, MAX_FILE_BYTES)
    except OSError as error:
        raise StartFailed(f"{path} cannot be read: {error.strerror or error}") from error
    if len(data) > MAX_FILE_BYTES:
        raise StartFailed(f"{path} has more than {MAX_FILE_BYTES:,} bytes, too many for a configuration file")
    try:
        return tomllib.loads(data.decode("utf-8-sig"))  # skip the byte-order mark that Windows editors write
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise StartFailed(f"{path} is not TOML: {error}") from error
    except RecursionError as error:
        raise StartFailed(f"{path} cannot be read: lists or tables in it are nested too deep") from error
    except ValueError as error:  # Python refuses to convert a number with thousands of digits
        raise StartFailed(f"{path} cannot be read: a number in it has too many digits") from error


def checked_config(path: Path) -> dict[str, Any]:
    """Return the content of a TOML file as a dict, after a check of all keys and values.

    Raises StartFailed for an unreadable file, and Invalid, with the details of `_refuse`, for mistakes in it.
    """
    tree = read_config(path)
    try:
        _sections(tree)
    except Invalid as error:
        way = f"; `paglets config check {path}` names them" if len(error.details["mistakes"]) > 1 else ""
        raise Invalid(f"{path}: {error.message}{way}", **error.details) from error
    return tree


def _section(section: Any, where: str, mistakes: list[str]) -> dict[str, Any]:
    table = _table(section, where, mistakes)
    _check_names(table, tuple(SETTINGS), where, mistakes)
    known = {setting: value for setting, value in table.items() if setting in SETTINGS}
    return _checked(known, lambda setting: f"{where}.{setting}", mistakes)


def _table(value: Any, where: str, mistakes: list[str]) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return value
    mistakes.append(f"{where} must be a table, got {shown(value)}")
    return {}


def _check_names(table: Mapping[str, Any], known: tuple[str, ...], where: str, mistakes: list[str]) -> None:
    for name in table:
        if name not in known:
            hint = _hint(name, known, len(mistakes)) if len(mistakes) < MOST_TOLD else ""
            mistakes.append(f"unknown key {shown(name)} in {where}{hint}")


def _hint(name: str, known: tuple[str, ...], mistakes: int) -> str:
    if near := difflib.get_close_matches(name, known, 1):
        return f": did you mean {near[0]!r}?"
    return f": known are {', '.join(known)}" if mistakes < FEW_MISTAKES else ""


def _checked(settings: Mapping[str, Any], place: Callable[[str], str], mistakes: list[str]) -> dict[str, Any]:
    """Return the converted values of the valid settings. Append a message to `mistakes` for each invalid one."""
    values = {}
    for setting, value in settings.items():
        _, check = SETTINGS[setting]
        with _noted(mistakes, f"{place(setting)}: "):
            values[setting] = check(value)
    return values
