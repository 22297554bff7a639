"""Code of the simulated counters, which take posts and calls, and store how often they handled each."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from paglets.codec.envelope import WireMessage
from paglets.core.clock import Entropy
from paglets.core.record import from_json, to_json
from paglets.core.refs import ArtifactRef, HostRef, ProxyRef
from paglets.worker.protocol import Changes, Deliver, Fault, Go, Handled, Intent, OutgoingPost, StorageGet
from tests.invariants import BUMPED, HANDLED
from tests.simulator.filescripts import FileScripts
from tests.simulator.seen import Seen
from tests.simulator.wishes import Answer, Ask, Die, LoseZygote, Pause, Routine
from tests.simulator.witness import Witness

COUNTER_CLASS = "simulated:Counter"
MAX_TROUBLES = 2
"""The most failures of the handler of one post. The count stays below the limit that makes a post dead."""


def post_message(post_id: str, then: list[ProxyRef], artifacts: tuple[ArtifactRef, ...] = ()) -> WireMessage:
    """Return a post to a counter, which sends a new post to the first counter of `then`."""
    return WireMessage(kind="add", args={"id": post_id, "then": to_json(then)}, artifacts=artifacts)


class CounterScripts:
    """The handlers of messages to all counters of a run. A share `trouble` of the posts meets trouble."""

    def __init__(self, entropy: Entropy, witness: Witness, files: FileScripts, trouble: float) -> None:
        self._entropy = entropy
        self._witness = witness
        self._files = files
        self._share = trouble

    def handler(self, go: Go, state: dict[str, Any], deliver: Deliver) -> Routine:
        if "count" in state:
            self._witness.found_count(go, state["count"])
        handlers = {"add": self._add, "bump": self._bump, "get": _get, "wait": _wait, "move": _move}
        return handlers[deliver.message.kind](go, state, deliver)

    def _add(self, go: Go, state: dict[str, Any], deliver: Deliver) -> Routine:
        args = deliver.message.args
        key = HANDLED + args["id"]
        found = yield Ask(op="storage_get", args=StorageGet(key=key))
        if found.code:
            raise Die(code=9)
        yield from self._files.look_at(go, deliver)
        raised = yield from self._trouble(deliver)
        if raised:
            return
        times = (found.value["value"] if found.value["found"] else 0) + 1
        then = [from_json(ProxyRef, tree) for tree in args["then"]]
        posts = tuple(
            OutgoingPost(target=target, message=post_message(args["id"] + "+", then[1:])) for target in then[:1]
        )
        count = state["count"] + 1
        changes = Changes(has_state=True, state={**state, "count": count}, storage_set={key: times}, posts=posts)
        handled = yield Ask(op="handled", args=Handled(message_id=deliver.message_id, changes=changes))
        if handled.code:
            raise Die(code=9)
        state["count"] = count
        self._witness.counted(go, count)
        yield from self._files.throw_away(deliver)

    def _bump(self, go: Go, state: dict[str, Any], deliver: Deliver) -> Routine:
        """Handle a call that changes the state and replies with the new count."""
        found = yield Ask(op="storage_get", args=StorageGet(key=BUMPED))
        if found.code:
            raise Die(code=9)
        times = (found.value["value"] if found.value["found"] else 0) + 1
        count = state["count"] + 1
        changes = Changes(has_state=True, state={**state, "count": count}, storage_set={BUMPED: times})
        handled = yield Ask(op="handled", args=Handled(message_id=deliver.message_id, changes=changes, value=count))
        if handled.code:
            raise Die(code=9)
        state["count"] = count
        self._witness.counted(go, count)
        self._witness.saw(Seen.BUMPED)

    def _trouble(self, deliver: Deliver) -> Generator[Pause | Ask | LoseZygote, Answer, bool]:
        """Raise, die or delay at random, at most MAX_TROUBLES times for one post. Return True if the handler raised."""
        post_id = deliver.message.args["id"]
        if self._entropy.uniform(0, 1) >= self._share or not self._witness.may_trouble(post_id, MAX_TROUBLES):
            return False
        if self._entropy.pick(2):
            raise Die(code=7)
        yield Pause(seconds=self._entropy.uniform(0.01, 3.0))
        fault = Fault(cause="exception", message="planned")
        yield Ask(op="handled", args=Handled(message_id=deliver.message_id, fault=fault))
        return True


def _get(go: Go, state: dict[str, Any], deliver: Deliver) -> Routine:
    yield Ask(op="handled", args=Handled(message_id=deliver.message_id, value=state["count"]))


def _wait(go: Go, state: dict[str, Any], deliver: Deliver) -> Routine:
    enough = state["count"] >= deliver.message.args["count"]
    value = state["count"] if enough else None
    yield Ask(op="handled", args=Handled(message_id=deliver.message_id, value=value, parked=not enough))


def _move(go: Go, state: dict[str, Any], deliver: Deliver) -> Routine:
    target = from_json(HostRef, deliver.message.args["target"])
    yield Ask(op="handled", args=Handled(message_id=deliver.message_id, intent=Intent(move=target)))
