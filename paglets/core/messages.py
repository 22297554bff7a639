"""What paglets say to one another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from paglets.core.refs import ArtifactRef, ProxyRef

MAX_KIND_CHARACTERS = 100


@dataclass(frozen=True, slots=True)
class Message:
    """A `kind` and named arguments.

    Values of `args` may be JSON values, bytes, bytearray, tuples, sets, dates, paths, enums and
    dataclasses; they arrive as they were sent. `sender` is filled in by the host where known.
    `artifacts` came with the message and belong to the paglet that it was sent to.
    """

    kind: str
    args: Mapping[str, Any] = field(default_factory=dict)
    sender: ProxyRef | None = None
    artifacts: tuple[ArtifactRef, ...] = ()

    def __getitem__(self, name: str) -> Any:
        return self.args[name]

    def get(self, name: str, default: Any = None) -> Any:
        return self.args.get(name, default)
