"""Small stand-ins for the host of a collector."""

from __future__ import annotations

import bisect
import copy
import json
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any, NoReturn

from paglets.core.agent import Paglet
from paglets.core.errors import Unknown
from paglets.core.messages import Message
from paglets.core.refs import ArtifactRef, HostRef, ProxyRef


class Parked(Exception):
    """The error that `wait_state` raises in the fake. A host would park the call and repeat it later."""


class FakeStorage(MutableMapping[str, Any]):
    """An in-memory `core.context.Storage` that counts operations.

    Values are stored as JSON text, as in a host's transaction: values that are not JSON are rejected, and no object is
    shared. With `decoded` they are deep copies, as in a child process.
    """

    def __init__(self, *, decoded: bool = False) -> None:
        self._rows: dict[str, Any] = {}
        self._order: list[str] = []
        self._sorted = True
        self._decoded = decoded
        self.reads = 0
        self.writes = 0

    def __getitem__(self, key: str) -> Any:
        self.reads += 1
        return self._out(self._rows[key])

    def __setitem__(self, key: str, value: Any) -> None:
        if not 1 <= len(key) <= 512:
            raise AssertionError(f"a key of {len(key)} characters does not fit a row")
        self.writes += 1
        if key not in self._rows:
            self._sorted = self._sorted and (not self._order or self._order[-1] < key)
            self._order.append(key)
        self._rows[key] = copy.deepcopy(value) if self._decoded else json.dumps(value, allow_nan=False)

    def __delitem__(self, key: str) -> None:
        self.writes += 1
        del self._rows[key]
        self._order.remove(key)

    def discard(self, key: str) -> None:
        if key in self._rows:
            del self[key]

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._keys()))

    def __len__(self) -> int:
        return len(self._rows)

    def scan(self, prefix: str, after: str = "", limit: int = 1000) -> list[tuple[str, Any]]:
        keys = self._keys()
        start = max(bisect.bisect_right(keys, after), bisect.bisect_left(keys, prefix))
        page = [key for key in keys[start : start + limit] if key.startswith(prefix)]
        self.reads += len(page)
        return [(key, self._out(self._rows[key])) for key in page]

    def _out(self, kept: Any) -> Any:
        return copy.deepcopy(kept) if self._decoded else json.loads(kept)

    def _keys(self) -> list[str]:
        if not self._sorted:
            self._order.sort()
            self._sorted = True
        return self._order


class FakeCollectorContext:
    """The host as seen by a collector. A test sets `host`, `now` and `paglet`, and reads `intent` and `deleted`.

    `intent` is the HostRef of a requested move, or None. As in a host it outlives the handler. `deleted` are the ids of
    deleted artifacts. A second deletion raises Unknown, as in a process.
    """

    def __init__(self, host: HostRef, *, agent_id: str = "collector-1", decoded: bool = False) -> None:
        self.host = host
        self.agent_id = agent_id
        self.now = 1_000_000.0
        self._decoded = decoded
        self.storage = FakeStorage(decoded=decoded)
        self.intent: HostRef | None = None
        self.deleted: list[str] = []
        self.paglet: Paglet[Any] | None = None

    @property
    def name(self) -> str:
        return self.host.name

    @property
    def address(self) -> str:
        return self.host.url

    @property
    def ref(self) -> ProxyRef:
        return ProxyRef(agent_id=self.agent_id, host=self.host)

    def wall_time(self) -> float:
        return self.now

    def intend_move(self, target: HostRef) -> None:
        self.intent = target

    def intend_stay(self) -> None:
        self.intent = None

    def delete_artifact(self, artifact: ArtifactRef | str) -> None:
        artifact_id = artifact if isinstance(artifact, str) else artifact.artifact_id
        if artifact_id in self.deleted:
            raise Unknown(f"there is no artifact {artifact_id}")
        self.deleted.append(artifact_id)

    def wait_state(self, predicate: Callable[[Any], bool], timeout_seconds: float | None) -> bool:
        assert self.paglet is not None, "set `paglet` first"
        if predicate(self.paglet.state):
            return True
        if timeout_seconds == 0:
            return False
        raise Parked

    def send(
        self,
        kind: str,
        args: dict[str, Any] | None = None,
        sender: ProxyRef | None = None,
        artifacts: tuple[ArtifactRef, ...] = (),
    ) -> Any:
        """Let the paglet handle a message, and return its reply."""
        assert self.paglet is not None, "set `paglet` first"
        if self._decoded:
            return self.paglet.handle_message(Message(kind, args or {}, sender, artifacts))
        sent = json.loads(json.dumps(args or {}))
        reply = self.paglet.handle_message(Message(kind, sent, sender, artifacts))
        return json.loads(json.dumps(reply, allow_nan=False))

    def __getattr__(self, name: str) -> NoReturn:
        raise AssertionError(f"a collector's handler must not use context.{name}")
