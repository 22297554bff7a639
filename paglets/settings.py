"""The settings of a host: for each, the option that it sets, and the function that checks its value."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from paglets.core.errors import Invalid
from paglets.core.urls import normalise_url
from paglets.slots.model import MAX_PROPERTIES, MAX_PROPERTY_CHARACTERS, MAX_TAG_CHARACTERS, MAX_TAGS

MAX_AMOUNT = 1 << 62
MAX_SECONDS = 10 * 365 * 86400.0
LEAST_LOST_AFTER_SECONDS = 10.0
MOST_PROPERTIES = MAX_PROPERTIES - 2
"""The maximum number of properties that a user can set.

The host itself may add two, which report a damaged database and the reason why the host starts no jobs.
"""

_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_BYTES = re.compile(r"\s*([0-9]{1,20}(?:\.[0-9]{1,20})?)\s*([kmgt]?)(?:i?b)?\s*", re.IGNORECASE)
"""The pattern of an amount of bytes. It limits the digits, because Python refuses to convert thousands of digits."""

MOST_SHOWN = 80

LOG_LEVELS = ("debug", "info", "warning", "error")


def parse_bytes(text: str) -> int:
    """Convert an amount such as `512M`, `1.5 GiB` or `2000` to bytes. Units are powers of 1024. Raises Invalid."""
    match = _BYTES.fullmatch(text)
    if match is None:
        raise Invalid(f"{text[:40]!r} is not an amount of bytes: write 512M, 1.5 GiB or 2000")
    amount = (
        int(float(match[1]) * _UNITS[match[2].lower()]) if "." in match[1] else int(match[1]) * _UNITS[match[2].lower()]
    )
    return _within(amount)


def parse_property(text: str) -> tuple[str, str]:
    """Return key and value of a text such as `python=3.12`. Raises Invalid."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise Invalid(f"{text[:80]!r} is not a property: write KEY=VALUE")
    return key.strip(), value


def user_path(text: str) -> Path:
    """Return the path that a person typed, with `~` expanded. Raises Invalid if the home folder is unknown."""
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        user = Path(text).parts[0]
        raise Invalid(f"the home directory {user!r} is not known on this machine: write out the path") from error


def shown(value: Any) -> str:
    """Return a shortened `repr` of the value."""
    try:
        text = repr(value)
    except ValueError:
        return "a number of thousands of digits"
    except RecursionError:
        return "a table of thousands of levels"
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."


# Each function below checks the value of a setting and converts it to the value of the option. The messages of its
# errors do not name the setting, because the caller adds the name.


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise Invalid(f"expected text, got {shown(value)}")
    if not value:
        raise Invalid("expected text that is not empty")
    if not value.isprintable():
        raise Invalid(f"expected one line of text, without control characters, got {shown(value)}")
    return value


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise Invalid(f"expected a whole number, 0 or more, got {shown(value)}")
    return _within(value)


def _cores(value: Any) -> int:
    if _count(value) < 1:
        raise Invalid("expected at least 1")
    return int(value)


def _log_level(value: Any) -> str:
    if value not in LOG_LEVELS:
        raise Invalid(f"expected one of {', '.join(LOG_LEVELS)}, got {shown(value)}")
    return str(value)


def _within(amount: int) -> int:
    if amount > MAX_AMOUNT:
        raise Invalid(f"{shown(amount)} is more than any machine has")
    return amount


def _flag(value: Any) -> bool:
    if type(value) is not bool:
        raise Invalid(f"expected true or false, got {shown(value)}")
    return value


def _lost_after(value: Any) -> float:
    return _seconds(value, LEAST_LOST_AFTER_SECONDS, f"from {LEAST_LOST_AFTER_SECONDS:g}")


def _above_zero(value: Any) -> float:
    return _seconds(value, 0.0, "above 0")


def _seconds(value: Any, least: float, words: str) -> float:
    if type(value) not in (int, float) or not 0 < value <= MAX_SECONDS or value < least:
        raise Invalid(f"expected a number of seconds {words}, at most {MAX_SECONDS:,.0f}, got {shown(value)}")
    return float(value)


def _bytes(value: Any) -> int:
    if isinstance(value, str):
        return parse_bytes(value)
    if type(value) is not int or value < 0:
        raise Invalid(f'expected a number of bytes, such as 1048576 or "24 GiB", got {shown(value)}')
    return _within(value)


def _port(value: Any) -> int:
    if _count(value) > 65535:
        raise Invalid(f"expected a port number up to 65535 (0: any free one), got {value}")
    return int(value)


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)):
        raise Invalid(f"expected a list of texts, got {shown(value)}")
    return tuple(dict.fromkeys(_text(item) for item in value))


def _tags(value: Any) -> tuple[str, ...]:
    tags = _texts(value)
    for tag in tags:
        if "," in tag:
            raise Invalid(f"{shown(tag)} has a comma: write each tag separately, as --tag a --tag b")
    if len(tags) > MAX_TAGS or any(len(tag) > MAX_TAG_CHARACTERS for tag in tags):
        raise Invalid(f"at most {MAX_TAGS} tags of {MAX_TAG_CHARACTERS} characters are allowed")
    return tags


def _url(value: Any) -> str:
    return normalise_url(_text(value))


def _urls(value: Any) -> tuple[str, ...]:
    return tuple(_url(item) for item in _texts(value))


def _properties(value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise Invalid(f"expected a table, got {shown(value)}")
    properties = {_text(key): str(_text(item)) for key, item in value.items()}
    too_long = any(len(key) + len(item) > MAX_PROPERTY_CHARACTERS for key, item in properties.items())
    if too_long or len(properties) > MOST_PROPERTIES:
        raise Invalid(f"at most {MOST_PROPERTIES} properties of {MAX_PROPERTY_CHARACTERS} characters are allowed")
    return properties


def _path(value: Any) -> Path:
    return user_path(_text(value)).absolute()


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
    "input_wait": ("input_wait_seconds", _above_zero),
    "report_grace": ("report_grace_seconds", _above_zero),
    "log_level": ("log_level", _log_level),
}
"""The settings by name, each with its field of `HostOptions` and the function that checks its value."""
