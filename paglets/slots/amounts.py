"""Texts for amounts of resources, which are used in messages to users."""

from __future__ import annotations

from collections.abc import Iterable

from paglets.slots.model import FIELDS, Resources

SHORT_REASONS = {
    "cpu_cores": "slots_busy",
    "memory_bytes": "memory_short",
    "temp_storage_bytes": "disk_short",
    "gpus": "gpu_short",
}
"""A map from each resource to the reason code for a shortage of that resource."""

_UNITS = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))
_WORDS = {"cpu_cores": ("core", "cores"), "gpus": ("GPU", "GPUs")}
_BYTES = {"memory_bytes": "memory", "temp_storage_bytes": "temporary disk"}


def bytes_text(count: int) -> str:
    """Return a text such as `12.5 GiB`, with at most one decimal place. Below 1 KiB the unit is bytes."""
    for size, unit in _UNITS:
        if count >= size:
            return f"{count / size:.1f}".removesuffix(".0") + f" {unit}"
    return "1 byte" if count == 1 else f"{count} bytes"


def amount_text(name: str, amount: int) -> str:
    """Return a text such as `4 cores`, `2 GiB memory` or `1 GPU`."""
    if name in _WORDS:
        one, many = _WORDS[name]
        return f"{amount} {one if amount == 1 else many}"
    return f"{bytes_text(amount)} {_BYTES[name]}"


def resources_text(resources: Resources, names: Iterable[str] = FIELDS) -> str:
    """Return a text of the named resources that are not 0, such as `4 cores, 1 GPU`, or `nothing` if all are 0."""
    parts = [amount_text(name, getattr(resources, name)) for name in names if getattr(resources, name)]
    return ", ".join(parts) or "nothing"


def short_text(wanted: Resources, there: Resources, names: Iterable[str], word: str) -> str:
    """Return a text such as `16 cores asked, 8 free` for the named resources. `word`: `free` or `offered`."""
    return "; ".join(
        f"{amount_text(name, getattr(wanted, name))} asked, {_bare(name, getattr(there, name))} {word}"
        for name in names
    )


def bare_text(there: Resources, names: Iterable[str]) -> str:
    """Return the amounts of the named resources without their names, such as `2, 23.5 GiB`."""
    return ", ".join(_bare(name, getattr(there, name)) for name in names)


def _bare(name: str, amount: int) -> str:
    return str(amount) if name in _WORDS else bytes_text(amount)
