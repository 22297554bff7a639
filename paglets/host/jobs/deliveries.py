"""The end of a delivery: a call is answered or parked, and a post whose handler failed is scheduled again."""

from __future__ import annotations

from functools import partial

from paglets.api.calls import CallReply
from paglets.core.errors import HandlerFailed, NotHandled, PagletsError, StoreTransient
from paglets.host.jobs.operations import HandlerEnd
from paglets.host.messaging.mailbox import Mailbox
from paglets.host.records import exits
from paglets.host.records.delivery import Delivery
from paglets.host.runtime.services import HostServices
from paglets.store import posts
from paglets.worker.launch import ProcessExit
from paglets.worker.protocol import Fault, Handled


class Deliveries:
    """A class that finishes deliveries. Its methods run on the runner's thread."""

    def __init__(self, services: HostServices, mailbox: Mailbox) -> None:
        self._services = services
        self._mailbox = mailbox

    def handled(self, delivery: Delivery, args: Handled, end: HandlerEnd) -> None:
        """Finish a delivery: answer or park a call, or schedule a retry of a post whose handler raised."""
        if delivery.call is None:
            if args.fault is not None and delivery.seq is not None:
                self._mailbox.post_raised(delivery.seq, end.tries)
        elif args.parked:
            # Use the version of the state that the handler has committed, so that any later commit resumes the call.
            self._mailbox.park(delivery.call, end.version, args.wait_seconds)
        elif args.fault is not None:
            delivery.call.finish(_handler_error(args.fault))
        else:
            delivery.call.finish(CallReply(value=args.value))

    def lost(self, delivery: Delivery, how: ProcessExit) -> None:
        """Finish a delivery whose process ended before the handler did: fail the call, or retry the post.

        The try does not count if the process ended only because its host or zygote did.
        """
        text = exits.describe(how)
        if delivery.call is not None:
            delivery.call.finish(
                HandlerFailed(
                    f"the handler of {delivery.message.kind!r} did not finish: {text}",
                    cause=exits.cause_of(how),
                    traceback="",
                    stderr_tail=how.stderr_tail,
                )
            )
        elif delivery.seq is not None and (how.is_culprit or not how.launcher_lost):
            seq = delivery.seq
            # Pause the post at once, so that no other process takes it before the try is counted.
            self._mailbox.post_raised(seq, 1)
            self._services.runner.change(lambda tx: posts.record_error(tx, seq, text), partial(self._counted, seq))

    def _counted(self, seq: int, tries: int | BaseException) -> None:
        """Pause the post for a time that grows with `tries`. If the try could not be stored, keep the first pause."""
        if isinstance(tries, int):
            self._mailbox.post_raised(seq, tries)
        elif not isinstance(tries, StoreTransient):
            raise tries


def _handler_error(fault: Fault) -> PagletsError:
    if fault.code == NotHandled.code:
        return NotHandled(fault.message)
    return HandlerFailed(fault.message, cause=fault.cause, traceback=fault.traceback, stderr_tail="", code=fault.code)
