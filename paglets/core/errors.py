"""All errors that paglets raises on purpose, as one tree of classes.

Each class has a wire `code` (stable, part of the protocol), an HTTP `status` and a command-line `exit_code`. The
message says what happened, and to what. `to_wire` and `error_from_wire` send an error over a connection and keep its
class.
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
    """The base class of all errors. `details` contains JSON values for programs.

    The details `hint` and `next` are lists of strings: hints and next steps. Commands and tracebacks print each string
    on a line of its own.
    """

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 500
    exit_code: ClassVar[int] = EXIT_FAILED

    retryable: ClassVar[bool] = False
    """True if clients repeat the request automatically, because the cause ends without help from a person.

    It is False for a full disk, where a person has to free space. The parts of a host nevertheless retry after every
    StoreTransient.
    """

    no_reply: ClassVar[bool] = False
    """True if the intended host sent no reply.

    PeerReplaced is the only such error that is not retryable, because another host has taken over the address.
    """

    outcome_unknown: ClassVar[bool] = False
    """True if the host may have performed the request. Repeat the request only if it is idempotent."""

    needs_lookup: ClassVar[bool] = False
    """True if the paglet may be on another host or address now, and must be looked up before a retry.

    This includes ShuttingDown, but not its base class Overloaded: a host that is only busy keeps its paglets.
    """

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details
        for line in self.advice():
            self.add_note(line)

    @property
    def next_steps(self) -> list[str]:
        """The next steps, one line each. Commands in them are written as `paglets ...`."""
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
    """Wrap `function` so that tracebacks of PagletsError and KeyboardInterrupt end at the frame of its caller."""

    @functools.wraps(function)
    def called(*args: P.args, **named: P.kwargs) -> R:
        try:
            return function(*args, **named)
        except (PagletsError, KeyboardInterrupt) as error:
            raise error.with_traceback(None) from None

    return called


class BadRequest(PagletsError):
    """A request is malformed: its framing, its JSON or its route."""

    code, status, exit_code = "bad_request", 400, EXIT_USAGE


class Invalid(PagletsError, ValueError):
    """A value has a wrong type or unknown field, or is out of range. The message names the field."""

    code, status, exit_code = "invalid", 422, EXIT_USAGE


class NoSuchRoute(BadRequest):
    """A request names a path that does not exist."""

    code, status = "no_such_route", 404


class MethodNotAllowed(BadRequest):
    """A request uses a method that its path does not support."""

    code, status = "method_not_allowed", 405


class LengthRequired(BadRequest):
    """A request has a body but no Content-Length."""

    code, status = "length_required", 411


class TooLarge(BadRequest):
    """A body, header, value or nesting depth exceeds its limit."""

    code, status = "too_large", 413


class UnsupportedMedia(BadRequest):
    """A body has the wrong media type: JSON is required, or bytes on routes that take bytes."""

    code, status = "unsupported_media", 415


class Misdirected(BadRequest):
    """The Host header does not name this host."""

    code, status = "misdirected", 421


class ForeignOrigin(PagletsError):
    """A web page of another origin sent the request."""

    code, status, exit_code = "foreign_origin", 403, EXIT_NOT_ALLOWED


class NotAllowed(PagletsError):
    """The key is missing or wrong, or the signature is invalid."""

    code, status, exit_code = "not_allowed", 401, EXIT_NOT_ALLOWED


class WrongClock(NotAllowed):
    """The key is right, but the clocks differ by more than the limit. The detail `now` is the receiver's time."""

    code = "wrong_clock"


class StalePeer(PagletsError):
    """The receiver has restarted or was replaced. The details `store_id` and `boot_id` are those of the receiver."""

    code, status, exit_code = "stale_peer", 409, EXIT_UNREACHABLE
    retryable = needs_lookup = True


class PeerReplaced(PagletsError):
    """A host with another store id than the intended one answers at this address."""

    code, status, exit_code = "peer_replaced", 409, EXIT_UNREACHABLE
    no_reply = needs_lookup = True


class Unknown(PagletsError, LookupError):
    """No object with that id or name is known."""

    code, status, exit_code = "unknown", 404, EXIT_FAILED
    needs_lookup = True


class Moved(PagletsError):
    """The paglet is on another host. The details are `host`, a HostRef as JSON, and the `epoch` of the paglet there."""

    code, status = "moved", 409


class Moving(PagletsError):
    """The paglet is moving to another host; retry soon."""

    code, status = "moving", 503
    retryable = True


class Conflict(PagletsError):
    """The object exists already with different content, or its state does not allow the operation."""

    code, status = "conflict", 409


class GroupExists(Conflict):
    """A group with that id exists and has other jobs, or its home host is unreachable and cannot compare the jobs."""

    code = "group_exists"


class GroupLost(GroupExists):
    """A group with that id exists and its collector is lost. Clear that group first, or use another id."""

    code = "group_lost"


class NameTaken(Conflict):
    """Another host or paglet has that name."""

    code = "name_taken"


class IllegalTransition(Conflict):
    """The requested change of a status is not in the transition table."""

    code = "illegal_transition"


class Fenced(Conflict):
    """The sender is a stale run: a newer epoch or attempt exists, or its run has ended."""

    code = "fenced"


class NoRoom(PagletsError):
    """A quota or size limit is exceeded, or the disk is full or unwritable. Nothing was stored.

    The operation works again once space is free or the disk is fixed. The detail `never` marks a file that can never
    fit, however much space is free.
    """

    code, status = "no_room", 507

    @property
    def passes(self) -> bool:
        """True if the same data may fit later, once space is free."""
        return not self.details.get("never")


class FileChanged(Conflict):
    """A file changed while it was read or sent."""

    code = "file_changed"


class Unreachable(PagletsError):
    """The host received no byte of the request, so the request is safe to repeat."""

    code, status, exit_code = "unreachable", 502, EXIT_UNREACHABLE
    retryable = no_reply = needs_lookup = True


class CallOutcomeUnknown(PagletsError):
    """The request was sent and no reply came: the host may have performed it."""

    code, status, exit_code = "outcome_unknown", 502, EXIT_UNREACHABLE
    retryable = no_reply = outcome_unknown = True


class TimedOut(PagletsError, TimeoutError):
    """A wait has reached its time-out. The operation continues."""

    code, status, exit_code = "timed_out", 504, EXIT_TIMED_OUT
    retryable = no_reply = outcome_unknown = True


class Overloaded(PagletsError):
    """A limit of connections or waiting requests is reached; retry later."""

    code, status, exit_code = "overloaded", 503, EXIT_UNREACHABLE
    retryable = True


class ShuttingDown(Overloaded):
    """The host is shutting down."""

    code = "shutting_down"
    needs_lookup = True


class NotHandled(PagletsError):
    """The paglet has no handler for this kind of message."""

    code, status = "not_handled", 404


class HandlerFailed(PagletsError):
    """The handler of the paglet raised an exception, or its process ended.

    The details are `cause`, `traceback` and `stderr_tail`.
    """

    code, status = "handler_failed", 500


class ImportFailed(PagletsError):
    """A class cannot be imported. The detail `class_name` names it."""

    code, status, exit_code = "import_failed", 422, EXIT_USAGE


class StoreDamaged(PagletsError):
    """The database cannot be used. The message says whether it was left in place or moved aside."""

    code, exit_code = "store_damaged", EXIT_FAILED


class StoreUndecided(StoreDamaged):
    """A person must decide how the host continues: its data was moved aside, is old, or belongs to another host."""

    code, exit_code = "store_undecided", EXIT_UNDECIDED


class StoreMalformed(StoreDamaged):
    """The database is damaged, empty or missing.

    A host that gets this error moves the database aside and exits. Its next start creates an empty one.
    """

    code = "store_malformed"


class StoreNewer(StoreDamaged):
    """A newer version of paglets wrote the database, which was left unchanged."""

    code, exit_code = "store_newer", EXIT_VERSIONS_DIFFER


class StoreTransient(PagletsError):
    """A transient error of the store: nothing of this change was stored, and a later retry may succeed."""

    code, status = "store_transient", 503


class StoreFull(StoreTransient):
    """The disk is full. Nothing of this change was stored, and earlier data is intact."""

    code, status = "disk_full", 507


class StoreLocked(StoreTransient):
    """Another program has locked the database. Nothing of this change was stored; retries fail until it is unlocked."""

    code, status = "store_locked", 503


class StartFailed(PagletsError):
    """The host cannot start: the port is in use, the directory locked, the key missing, or the configuration wrong."""

    code, exit_code = "start_failed", EXIT_USAGE


class InternalError(PagletsError):
    """A bug in paglets. The detail `log`, if present, names the log file of the host that has the traceback."""

    code = "internal"


def _tree(cls: type[PagletsError]) -> list[type[PagletsError]]:
    return [cls] + [leaf for child in cls.__subclasses__() for leaf in _tree(child)]


def error_classes() -> dict[str, type[PagletsError]]:
    """Return the error classes by their wire codes."""
    return {cls.code: cls for cls in _tree(PagletsError)}


def to_wire_error(error: BaseException) -> PagletsError:
    """Return `error` as a PagletsError that can be sent to a client. Any other exception is a failure of the host."""
    return error if isinstance(error, PagletsError) else PagletsError(f"the host failed: {error!r}")


def error_from_wire(tree: object) -> PagletsError:
    """Return the error that `to_wire` wrote as JSON. An unknown code or shape gives a plain PagletsError."""
    if not isinstance(tree, dict):
        return PagletsError("the host sent an error without a message")
    details = tree.get("details")
    message = str(tree.get("message", ""))
    cls = error_classes().get(str(tree.get("code")), PagletsError)
    error = cls(message)
    error.details = details if isinstance(details, dict) else {}
    return error
