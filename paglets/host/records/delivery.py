"""Messages for the process of a paglet: calls that wait for a reply, and deliveries of calls and posts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from paglets.api.calls import CallReply
from paglets.codec.envelope import WireMessage
from paglets.core.errors import PagletsError


@dataclass(eq=False)
class PendingCall:
    """A call that waits for the reply of its handler, or whose reply waits until the caller repeats the call.

    It exists in memory only. `parked_version` is the state version at which it was parked. Times are monotonic.
    """

    call_id: str
    agent_id: str
    message: WireMessage
    answer: Callable[[CallReply | PagletsError], None] | None
    deadline: float
    result: CallReply | PagletsError | None = None
    parked_version: int | None = None
    parked_at: float | None = None
    wake_at: float | None = None

    def finish(self, result: CallReply | PagletsError) -> None:
        """Send the reply if the caller waits for it. Keep it in any case, because the caller may repeat the call."""
        if self.answer is None:
            self.result = result
        else:
            self.answer(result)
            self.answer, self.result = None, result


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Delivery:
    """A message to pass to a process: the call `call`, or the post with the number `seq`."""

    message: WireMessage
    call: PendingCall | None = None
    seq: int | None = None
    waited_seconds: float = 0.0
