"""Every error that paglets raises on purpose, as one tree.

Each class has a wire `code` (stable, part of the protocol), an HTTP `status` and a command-line
`exit_code`. The message says what happened, to what, and what to do next. `to_wire` and
`error_from_wire` carry an error over a connection without losing its class.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ClassVar, ParamSpec, TypeVar

from paglets.core.text import as_advice

P = ParamSpec("P")
R = TypeVar("R")

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_NEVER = 3
EXIT_UNREACHABLE = 4
EXIT_NOT_ALLOWED = 5
EXIT_TIMED_OUT = 6
EXIT_CANCELLED = 7
EXIT_VERSIONS_DIFFER = 8
EXIT_UNDECIDED = 9
EXIT_INTERRUPTED = 130


class PagletsError(Exception):
    """The root. `details` holds JSON values that a program may want beside the message.

    `hint` and `next` are lists of strings: what may help, and the next steps. Commands print each on a line of its own,
    and so do tracebacks.
    """

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 500
    exit_code: ClassVar[int] = EXIT_FAILED

    retryable: ClassVar[bool] = False
    """True if a client repeats the request by itself, as the cause ends without anybody's help.

    False for a full disk: a person has to free space. Parts of a host retry after StoreTransient anyway.
    """
    no_reply: ClassVar[bool] = False
    """True if the host that was asked sent no reply.

    PeerReplaced has no reply either, but is not retryable: another host answers at that address from now on.
    """
    outcome_unknown: ClassVar[bool] = False
    """True if the host may have performed the request. Repeat only a request that has the same effect twice."""
    needs_lookup: ClassVar[bool] = False
    """True if the paglet may be on another host by now: look it up before the next try.

    ShuttingDown needs it and the other Overloaded do not, as a host moves nothing while it is only busy.
    """

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details
        for line in self.advice():
            self.add_note(line)

    @property
    def next_steps(self) -> list[str]:
        """What to do next, each as a line, with commands as `paglets ...`."""
        return self._lines("next")

    def advice(self) -> list[str]:
        """Return the lines below the message: `hint: ...` and `next: ...`, with commands as the user types them."""
        return [f"{name}: {as_advice(text)}" for name in ("hint", "next") for text in self._lines(name)]

    def _lines(self, name: str) -> list[str]:
        found = self.details.get(name)
        return [str(each) for each in found] if isinstance(found, list) else []

    def to_wire(self) -> dict[str, Any]:
        """Return the error as a JSON object; `error_from_wire` reads it."""
        return {"code": self.code, "message": self.message, "details": self.details}


def trim_traceback(function: Callable[P, R]) -> Callable[P, R]:
    """Errors of ours, and Ctrl-C, come from it without the frames below: the message says all, and where the caller
    stood."""

    @functools.wraps(function)
    def called(*args: P.args, **named: P.kwargs) -> R:
        try:
            return function(*args, **named)
        except (PagletsError, KeyboardInterrupt) as error:
            raise error.with_traceback(None) from None

    return called


class BadRequest(PagletsError):
    """The request cannot be understood: framing, JSON, a missing route."""

    code, status, exit_code = "bad_request", 400, EXIT_USAGE


class Invalid(PagletsError, ValueError):
    """A value has a wrong type, an unknown field or is out of range; the message names the field."""

    code, status, exit_code = "invalid", 422, EXIT_USAGE


class NoSuchRoute(BadRequest):
    """There is nothing at that path."""

    code, status = "no_such_route", 404


class MethodNotAllowed(BadRequest):
    """The path does not take that method."""

    code, status = "method_not_allowed", 405


class LengthRequired(BadRequest):
    """A body must come with its Content-Length."""

    code, status = "length_required", 411


class TooLarge(BadRequest):
    """A body, header, value or depth is over its bound."""

    code, status = "too_large", 413


class UnsupportedMedia(BadRequest):
    """A body is JSON, or bytes where the route takes bytes."""

    code, status = "unsupported_media", 415


class Misdirected(BadRequest):
    """The Host header names nobody here."""

    code, status = "misdirected", 421


class ForeignOrigin(PagletsError):
    """A web page of another origin asked."""

    code, status, exit_code = "foreign_origin", 403, EXIT_NOT_ALLOWED


class NotAllowed(PagletsError):
    """No key, a wrong key, or a signature that does not fit."""

    code, status, exit_code = "not_allowed", 401, EXIT_NOT_ALLOWED


class WrongClock(NotAllowed):
    """The key is right, the clocks differ by more than the window; details: `now` of the receiver."""

    code = "wrong_clock"


class StalePeer(PagletsError):
    """The receiver has restarted or was replaced; details: `store_id`, `boot_id`."""

    code, status, exit_code = "stale_peer", 409, EXIT_UNREACHABLE
    retryable = needs_lookup = True


class PeerReplaced(PagletsError):
    """At this address another store answers than the one that was meant."""

    code, status, exit_code = "peer_replaced", 409, EXIT_UNREACHABLE
    no_reply = needs_lookup = True


class Unknown(PagletsError, LookupError):
    """Nothing of that id or name is known here."""

    code, status, exit_code = "unknown", 404, EXIT_FAILED
    needs_lookup = True


class Moved(PagletsError):
    """The paglet is elsewhere; details: `host` (HostRef as JSON) and `epoch`."""

    code, status = "moved", 409


class Moving(PagletsError):
    """The paglet is on its way; ask again soon."""

    code, status = "moving", 503
    retryable = True


class Conflict(PagletsError):
    """The thing exists already and differs, or is in a state that does not allow this."""

    code, status = "conflict", 409


class GroupExists(Conflict):
    """A group of that id holds other jobs; or its home, which alone can tell whether it does, is away."""

    code = "group_exists"


class GroupLost(GroupExists):
    """A group of that id is there, and its collector is lost: clear that group first, or use another id."""

    code = "group_lost"


class NameTaken(Conflict):
    """Another host or paglet has that name."""

    code = "name_taken"


class IllegalTransition(Conflict):
    """A state change that the table of transitions does not know."""

    code = "illegal_transition"


class Fenced(Conflict):
    """The speaker is a stale run: a newer epoch or attempt exists, or its run has ended."""

    code = "fenced"


class NoRoom(PagletsError):
    """A quota, a size limit, a full or closed disk: nothing was kept. Free some, or mend that, and it goes on.

    The detail `never`: such a file never fits, however much is freed.
    """

    code, status = "no_room", 507

    @property
    def passes(self) -> bool:
        """Whether the same may fit later."""
        return not self.details.get("never")


class FileChanged(Conflict):
    """A file is not what it was when it was named: it changed while it was read or sent."""

    code = "file_changed"


class Unreachable(PagletsError):
    """No byte of the request was taken: it may be repeated without harm."""

    code, status, exit_code = "unreachable", 502, EXIT_UNREACHABLE
    retryable = no_reply = needs_lookup = True


class CallOutcomeUnknown(PagletsError):
    """The request was sent and no reply came: it may or may not have been done."""

    code, status, exit_code = "outcome_unknown", 502, EXIT_UNREACHABLE
    retryable = no_reply = outcome_unknown = True


class TimedOut(PagletsError, TimeoutError):
    """The time given for waiting is over; what was waited for goes on."""

    code, status, exit_code = "timed_out", 504, EXIT_TIMED_OUT
    retryable = no_reply = outcome_unknown = True


class Overloaded(PagletsError):
    """A bound on connections or waiting requests is reached; try again."""

    code, status, exit_code = "overloaded", 503, EXIT_UNREACHABLE
    retryable = True


class ShuttingDown(Overloaded):
    """The host is ending."""

    code = "shutting_down"
    needs_lookup = True


class NotHandled(PagletsError):
    """The paglet has no handler for that kind of message."""

    code, status = "not_handled", 404


class HandlerFailed(PagletsError):
    """The paglet's handler raised or its process ended; details: `cause`, `traceback`, `stderr_tail`."""

    code, status = "handler_failed", 500


class ImportFailed(PagletsError):
    """A class cannot be imported; details: `class_name`."""

    code, status, exit_code = "import_failed", 422, EXIT_USAGE


class StoreDamaged(PagletsError):
    """The database cannot be used; it was left as it is or moved aside, as the message says."""

    code, exit_code = "store_damaged", EXIT_FAILED


class StoreUndecided(StoreDamaged):
    """What a host had was moved aside, is of an earlier moment, or is not its own: a person decides how it goes on."""

    code, exit_code = "store_undecided", EXIT_UNDECIDED


class StoreMalformed(StoreDamaged):
    """The content of the database is damaged: it is moved aside, and the host begins anew when it is started again."""

    code = "store_malformed"


class StoreNewer(StoreDamaged):
    """A newer program wrote the database: it was left as it is."""

    code, exit_code = "store_newer", EXIT_VERSIONS_DIFFER


class StoreTransient(PagletsError):
    """Nothing of this change was stored, nothing else is harmed, and it passes: the same may be tried again."""

    code, status = "store_transient", 503


class StoreFull(StoreTransient):
    """The disk is full: nothing of this change was stored, and nothing else is harmed."""

    code, status = "disk_full", 507


class StoreLocked(StoreTransient):
    """Another program holds the database: nothing of this change was stored. It goes on when that lets go."""

    code, status = "store_locked", 503


class StartFailed(PagletsError):
    """The host cannot start: port in use, directory locked, key missing, configuration wrong."""

    code, exit_code = "start_failed", EXIT_USAGE


class InternalError(PagletsError):
    """A fault of paglets itself; details: `log`. The host's log has the traceback."""

    code = "internal"


def _tree(cls: type[PagletsError]) -> list[type[PagletsError]]:
    return [cls] + [leaf for child in cls.__subclasses__() for leaf in _tree(child)]


def error_classes() -> dict[str, type[PagletsError]]:
    """Every wire code with its class."""
    return {cls.code: cls for cls in _tree(PagletsError)}


def tellable(error: BaseException) -> PagletsError:
    """The same for others: one that is not of the tree is a failure of the host."""
    return error if isinstance(error, PagletsError) else PagletsError(f"the host failed: {error!r}")


def error_from_wire(tree: object) -> PagletsError:
    """The error that `to_wire` wrote; an unknown code or shape gives a plain PagletsError."""
    if not isinstance(tree, dict):
        return PagletsError("the other side answered an error without a text")
    details = tree.get("details")
    message = str(tree.get("message", ""))
    cls = error_classes().get(str(tree.get("code")), PagletsError)
    error = cls(message)
    error.details = details if isinstance(details, dict) else {}
    return error
