"""Typed services: named operations with a request and a reply dataclass each, checked at both ends."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import lru_cache
from typing import Any, ClassVar, Generic, Union

from paglets.client.proxy import PagletProxy
from paglets.core.agent import Paglet, S
from paglets.core.errors import Invalid, NotHandled
from paglets.core.messages import MAX_KIND_CHARACTERS, Message
from paglets.core.text import type_of, with_article
from paglets.slots.service import (
    SERVICE_NAME,
    CandidatesReply,
    CandidatesRequest,
    SlotsStatusReply,
    SlotsStatusRequest,
)

MAX_CLASSES = 1024
"""The maximum number of classes in the cache of field types. A program may create classes at run time."""


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation of a service: its name (also the kind of the message), and dataclasses of request and reply."""

    name: str
    request: type[Any]
    reply: type[Any]

    def __post_init__(self) -> None:
        if not self.name or len(self.name) > MAX_KIND_CHARACTERS or not self.method.isidentifier():
            raise ValueError(
                f"{self.name!r} cannot name an operation: expected a Python identifier in which '-' may replace '_', "
                f"at most {MAX_KIND_CHARACTERS} characters long"
            )
        for cls in (self.request, self.reply):
            if not (isinstance(cls, type) and is_dataclass(cls)):
                raise TypeError(f"operation {self.name}: {cls!r} is not a dataclass")

    @property
    def method(self) -> str:
        """The name of the method of a ServicePaglet that handles the operation."""
        return self.name.replace("-", "_")


class ServiceContract:
    """A named set of operations that a client and a ServicePaglet share."""

    def __init__(self, name: str, *operations: Operation) -> None:
        self.name = name
        self.operations: Mapping[str, Operation] = {operation.name: operation for operation in operations}
        if len(self.operations) < len(operations):
            raise ValueError(f"service {name}: two operations have the same name")

    def operation(self, name: str) -> Operation:
        """Return the operation of that name. Raises NotHandled if there is none."""
        if name not in self.operations:
            raise NotHandled(f"service {self.name} has no operation {name!r}; it has {', '.join(self.operations)}")
        return self.operations[name]

    def bind(self, proxy: PagletProxy) -> ServiceClient:
        """Return a client that calls the operations of the paglet behind `proxy`."""
        return ServiceClient(self, proxy)


class ServiceClient:
    """A client that calls the operations of one service."""

    def __init__(self, contract: ServiceContract, proxy: PagletProxy) -> None:
        self.contract = contract
        self.proxy = proxy

    def call(self, operation: str, request: Any, timeout_seconds: float | None = None) -> Any:
        """Call an operation and return its reply.

        Raises NotHandled for an unknown operation, TypeError for a request of another class, Invalid for a wrong field
        of the request or the reply, and the errors of `PagletProxy.call`.
        """
        wanted = self.contract.operation(operation)
        if type(request) is not wanted.request:
            raise TypeError(
                f"{operation} takes {with_article(wanted.request.__qualname__)}, got {type(request).__qualname__}"
            )
        check_fields(request)
        reply = self.proxy.call(Message(operation, {"request": request}), timeout_seconds=timeout_seconds)
        return _checked(reply, wanted.reply, f"{self.contract.name} {operation}: the reply")


class ServicePaglet(Paglet[S], Generic[S]):
    """A paglet that offers a service: set `contract` and write a method for each operation.

    While it exists, `Context.lookup` and `HostClient.lookup` find it by the name of the contract, from any host. The
    method of operation `find-free` is `find_free(self, request) -> reply`.
    """

    contract: ClassVar[ServiceContract]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        contract = getattr(cls, "contract", None)
        if contract is not None:
            cls.service_name = contract.name
        for operation in contract.operations.values() if contract else ():
            if not callable(getattr(cls, operation.method, None)):
                raise TypeError(f"{cls.__qualname__} lacks {operation.method}(), the handler of {operation.name!r}")

    def handle_message(self, message: Message) -> Any:
        if message.kind not in self.contract.operations:
            return self.not_handled(message)
        operation = self.contract.operation(message.kind)
        where = f"{self.contract.name} {operation.name}"
        request = _checked(message.get("request"), operation.request, f"{where}: the request")
        reply = getattr(self, operation.method)(request)
        return _checked(reply, operation.reply, f"{where}: the reply")


COMPUTE_SLOTS = ServiceContract(
    SERVICE_NAME,
    Operation("status", SlotsStatusRequest, SlotsStatusReply),
    Operation("candidates", CandidatesRequest, CandidatesReply),
)
"""The contract of a host's scheduler, a service named `compute-slots`."""


def check_fields(value: Any, where: str = "") -> None:
    """Check that each field of a dataclass has a value of its declared type. Raises Invalid, which names the field."""
    hints = _hints(type(value))
    for field in fields(value):
        _check(getattr(value, field.name), hints[field.name], f"{where or type(value).__qualname__}.{field.name}")


def _checked(value: Any, cls: type[Any], where: str) -> Any:
    if type(value) is not cls:
        raise Invalid(f"{where} must be {with_article(cls.__qualname__)}, got {type_of(value)}")
    check_fields(value, where)
    return value


_hints: Callable[[Any], dict[str, Any]] = lru_cache(MAX_CLASSES)(typing.get_type_hints)


def _check(value: Any, hint: Any, where: str) -> None:
    if not _fits(value, hint):
        name = hint.__qualname__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)
        raise Invalid(f"{where} must be {name}, got {repr(value)[:60]} ({type(value).__qualname__})")


def _fits(value: Any, hint: Any) -> bool:
    """Return True if `value` is of the type `hint`, or that type cannot be checked (a TypeVar, a Protocol)."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any or hint is None:
        return hint is Any or value is None
    if origin in (Union, types.UnionType):
        return any(_fits(value, arm) for arm in args)
    if origin is tuple:
        return isinstance(value, tuple) and _fits_tuple(value, args)
    if origin in (list, set, frozenset):
        return isinstance(value, origin) and all(_fits(item, args[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(_fits(k, args[0]) and _fits(v, args[1]) for k, v in value.items())
    if hint is float:
        return type(value) in (int, float)
    if hint is int:
        return type(value) is int
    return not isinstance(hint, type) or origin is not None or _is_one(value, hint)


def _is_one(value: Any, cls: type[Any]) -> bool:
    return bool(getattr(cls, "_is_protocol", False)) or isinstance(value, cls)


def _fits_tuple(value: tuple[Any, ...], args: tuple[Any, ...]) -> bool:
    if len(args) == 2 and args[1] is Ellipsis:
        return all(_fits(item, args[0]) for item in value)
    return len(value) == len(args) and all(_fits(item, hint) for item, hint in zip(value, args, strict=True))
