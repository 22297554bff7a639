"""What a host is told at its start: by flags, and by its section of a TOML file that describes the whole mesh.

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
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paglets.core.errors import Invalid, StartFailed
from paglets.core.refs import DEFAULT_PORT, check_host_name
from paglets.core.text import counted
from paglets.core.urls import normalise_url
from paglets.slots.model import MAX_PROPERTIES, MAX_PROPERTY_CHARACTERS, MAX_TAG_CHARACTERS, MAX_TAGS

DEFAULT_MESH_VERSION = "default"
MAX_FILE_BYTES = 1 << 20
MAX_AMOUNT = 1 << 62
MAX_SECONDS = 10 * 365 * 86400.0
LEAST_LOST_AFTER_SECONDS = 10.0
MOST_PROPERTIES = MAX_PROPERTIES - 2
"""The host itself may add that its database was damaged, and why it starts nothing."""

CONFIG_NAME = "hosts.toml"

_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_BYTES = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?)(?:i?b)?\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostOptions:
    """A host's settings. None of an amount: what the machine has. `port` 0: any free one.

    `bind_public` is "auto" or an address of this machine to listen on beside `host`; `data_dir` None
    is `PAGLETS_HOME/hosts/NAME`. `key_file` comes from a flag, `config_key_file` from the file. `pin_cpus`
    holds each job to the cores that it leased. `artifact_max_bytes` bounds one file that the host keeps for others,
    `artifact_quota_bytes` all of them; 0: no limit. A host that did not speak to the host of a collector for
    `host_lost_after_seconds` is lost, and the collector's jobs there are begun anew; inputs that no host has are waited
    for `input_wait_seconds`.
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


def parse_bytes(text: str) -> int:
    """Bytes of `512M`, `1.5 GiB`, `2000`; units are powers of 1024. Raises Invalid."""
    match = _BYTES.fullmatch(text)
    if match is None:
        raise Invalid(f"{text[:40]!r} is not an amount of bytes: write 512M, 1.5 GiB or 2000")
    amount = (
        int(float(match[1]) * _UNITS[match[2].lower()]) if "." in match[1] else int(match[1]) * _UNITS[match[2].lower()]
    )
    return _within(amount)


def parse_property(text: str) -> tuple[str, str]:
    """Key and value of `python=3.12`. Raises Invalid."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise Invalid(f"{text[:80]!r} is not a property: write KEY=VALUE")
    return key.strip(), value


# Each setting of the file: a function that checks its value and gives that of the option. They raise Invalid without
# the place, which their caller knows.


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value or not value.isprintable():
        raise Invalid(f"expected a text, got {value!r}")
    return value


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise Invalid(f"expected a whole number, 0 or more, got {value!r}")
    return _within(value)


def _cores(value: Any) -> int:
    if _count(value) < 1:
        raise Invalid("expected at least 1")
    return int(value)


def _within(amount: int) -> int:
    if amount > MAX_AMOUNT:
        raise Invalid(f"{amount} is more than any machine has")
    return amount


def _flag(value: Any) -> bool:
    if type(value) is not bool:
        raise Invalid(f"expected true or false, got {value!r}")
    return value


def _lost_after(value: Any) -> float:
    if _seconds(value) < LEAST_LOST_AFTER_SECONDS:
        raise Invalid(f"expected at least {LEAST_LOST_AFTER_SECONDS:g} seconds: a busy host is silent for longer")
    return float(value)


def _seconds(value: Any) -> float:
    if type(value) not in (int, float) or not 0 < value <= MAX_SECONDS:
        raise Invalid(f"expected a number of seconds, got {value!r}")
    return float(value)


def _bytes(value: Any) -> int:
    return parse_bytes(value) if isinstance(value, str) else _count(value)


def _port(value: Any) -> int:
    if _count(value) > 65535:
        raise Invalid(f"expected a port number up to 65535 (0: any free one), got {value}")
    return int(value)


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)):
        raise Invalid(f"expected a list of texts, got {value!r}")
    return tuple(dict.fromkeys(_text(item) for item in value))


def _tags(value: Any) -> tuple[str, ...]:
    tags = _texts(value)
    for tag in tags:
        if "," in tag:
            raise Invalid(f"{tag!r} is one tag with a comma: give each tag by itself")
    if len(tags) > MAX_TAGS or any(len(tag) > MAX_TAG_CHARACTERS for tag in tags):
        raise Invalid(f"at most {MAX_TAGS} tags of {MAX_TAG_CHARACTERS} characters are allowed")
    return tags


def _url(value: Any) -> str:
    return normalise_url(_text(value))


def _urls(value: Any) -> tuple[str, ...]:
    return tuple(_url(item) for item in _texts(value))


def _properties(value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise Invalid(f"expected a table, got {value!r}")
    properties = {_text(key): str(_text(item)) for key, item in value.items()}
    too_long = any(len(key) + len(item) > MAX_PROPERTY_CHARACTERS for key, item in properties.items())
    if too_long or len(properties) > MOST_PROPERTIES:
        raise Invalid(f"at most {MOST_PROPERTIES} properties of {MAX_PROPERTY_CHARACTERS} characters are allowed")
    return properties


def _path(value: Any) -> Path:
    return Path(_text(value)).expanduser().absolute()


def _paths(value: Any) -> tuple[str, ...]:
    return tuple(str(_path(item)) for item in _texts(value))


SETTINGS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "host": ("host", _text),
    "bind_public": ("bind_public", _text),
    "port": ("port", _port),
    "public_url": ("public_url", _url),
    "reachable": ("reachable", _flag),
    "peers": ("peers", _urls),
    "mesh_version": ("mesh_version", _text),
    "tags": ("tags", _tags),
    "properties": ("properties", _properties),
    "data_dir": ("data_dir", _path),
    "key_file": ("key_file", _path),
    "cpu_cores": ("cpu_cores", _cores),
    "memory": ("memory_bytes", _bytes),
    "temp_storage": ("temp_storage_bytes", _bytes),
    "gpus": ("gpus", _count),
    "pin_cpus": ("pin_cpus", _flag),
    "code_paths": ("code_paths", _paths),
    "artifact_max_size": ("artifact_max_bytes", _bytes),
    "artifact_storage_quota": ("artifact_quota_bytes", _bytes),
    "host_lost_after": ("host_lost_after_seconds", _lost_after),
    "input_wait": ("input_wait_seconds", _seconds),
}
"""Name in the file (and, with dashes, of the flag) -> option and check."""

_OTHER_FLAGS = {
    "reachable": "--unreachable",
    "peers": "--peer",
    "tags": "--tag",
    "properties": "--property",
    "code_paths": "--code-path",
}
"""Settings that are lists, whose flag is given once for each entry; and one that a flag can only take away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What was given: the value of an option, and where it came from (`--tag`, `[mesh]`, `[hosts.w1]`)."""

    value: Any
    source: str


def host_options(name: str, *, flags: Mapping[str, Any], file: Mapping[str, Any] | None = None) -> HostOptions:
    """The options of the host `name`: `flags` by setting (only those given) win over its part of `file`.

    `file` is what `read_config` gave. Raises Invalid naming flag or key.
    """
    given = settings_of(name, flags=flags, file=file)
    values = {SETTINGS[setting][0]: found.value for setting, found in given.items()}
    if "key_file" in values and "key_file" not in flags:
        # The environment wins over the file's, and loses to the flag's.
        values["config_key_file"] = values.pop("key_file")
    return HostOptions(name=name, **values)


def settings_of(name: str, *, flags: Mapping[str, Any], file: Mapping[str, Any] | None = None) -> dict[str, Setting]:
    """What was given of the host `name`, by setting: flags win over its section of `file`, that wins over `[mesh]`.

    The whole file is checked, so that a mistake is found anywhere. Raises Invalid naming flag or key.
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
    """The flag of a setting: `--temp-storage`."""
    return _OTHER_FLAGS.get(setting, f"--{setting.replace('_', '-')}")


def _sections(file: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Checked settings of `[mesh]`, and of each host. Raises Invalid, whose details have all `mistakes`."""
    mistakes: list[str] = []
    _check_names(file, ("mesh", "hosts"), "the file", mistakes)
    mesh = _section(file.get("mesh", {}), "mesh", mistakes)
    hosts = _table(file.get("hosts", {}), "hosts", mistakes)
    for each in hosts:
        with _noted(mistakes):
            check_host_name(each)
    sections = {each: _section(section, f"hosts.{each}", mistakes) for each, section in hosts.items()}
    _refuse(mistakes)
    return mesh, sections


@contextmanager
def _noted(mistakes: list[str], place: str = "") -> Iterator[None]:
    """What is wrong is written down, so that all of it can be told at once."""
    try:
        yield
    except Invalid as error:
        mistakes.append(place + error.message)


def _refuse(mistakes: list[str]) -> None:
    """Raises Invalid with the first, where there are some."""
    if mistakes:
        more = len(mistakes) - 1
        raise Invalid(mistakes[0] + (f" (and {counted(more, 'further mistake')})" if more else ""), mistakes=mistakes)


def host_names(file: Mapping[str, Any]) -> tuple[str, ...]:
    """The hosts that a file describes, all of it checked. Raises Invalid."""
    return tuple(_sections(file)[1])


def data_dirs(file: Mapping[str, Any]) -> dict[str, Path]:
    """The data directories that a file names, by host, all of it checked. Raises Invalid."""
    mesh, sections = _sections(file)
    found = {name: (mesh | section).get("data_dir") for name, section in sections.items()}
    return {name: path for name, path in found.items() if path is not None}


def addresses_read(file: Mapping[str, Any]) -> dict[str, str]:
    """The addresses of hosts in a file that is right, as they are written -> as they are read."""
    sections = (file.get("mesh", {}), *file.get("hosts", {}).values())
    written = [text for section in sections for text in section.get("peers", ())]
    written += [section["public_url"] for section in sections if "public_url" in section]
    return {text: _url(text) for text in written}


def read_config(path: Path) -> dict[str, Any]:
    """The tree of a TOML file. Raises StartFailed where it cannot be read, naming file and line."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise StartFailed(f"{path} has more than {MAX_FILE_BYTES:,} bytes: that is no configuration")
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise StartFailed(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise StartFailed(f"{path} is not TOML: {error}") from error


def checked_config(path: Path) -> dict[str, Any]:
    """The tree of a TOML file, of which every key is right. Raises StartFailed, Invalid, which name the file.

    The details of Invalid have all `mistakes`.
    """
    tree = read_config(path)
    try:
        _sections(tree)
    except Invalid as error:
        way = f"; `paglets config check {path}` names all" if len(error.details["mistakes"]) > 1 else ""
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
    mistakes.append(f"{where} must be a table, got {value!r}")
    return {}


def _check_names(table: Mapping[str, Any], known: tuple[str, ...], where: str, mistakes: list[str]) -> None:
    for name in table:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
            mistakes.append(f"unknown key {name!r} in {where}: {hint}")


def _checked(settings: Mapping[str, Any], place: Callable[[str], str], mistakes: list[str]) -> dict[str, Any]:
    """The values of the options that are right, by setting."""
    values = {}
    for setting, value in settings.items():
        _, check = SETTINGS[setting]
        with _noted(mistakes, f"{place(setting)}: "):
            values[setting] = check(value)
    return values
