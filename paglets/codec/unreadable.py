"""A placeholder for a value that cannot be read, because its class is missing or different, or it was deleted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from paglets.codec.strict_json import dump_bytes
from paglets.core.errors import PagletsError


class Unreadable:
    """A value that cannot be restored in this process.

    Its class or numpy cannot be imported, the class has other fields in this process, or the value was deleted. Only
    the use of the value fails: each operation raises ImportFailed, Invalid or Unknown with the reason. `repr` works,
    and so do copies of objects that contain the value. The value can be sent again, unchanged.
    """

    __slots__ = ("_error", "_tree")

    def __init__(self, tree: Any, error: PagletsError) -> None:
        self._tree = tree
        self._error = error

    @property
    def nbytes(self) -> int:
        """Return the size of the value as JSON."""
        return len(dump_bytes(self._tree))

    def __repr__(self) -> str:
        return f"<unreadable on this host: {self._error.message}>"

    def __getattr__(self, name: str) -> NoReturn:
        if name in Unreadable.__slots__ or (name.startswith("__") and name.endswith("__")):
            # Libraries such as numpy look for special names, and work without them if AttributeError is raised.
            raise AttributeError(name)
        raise failure_of(self)

    def __format__(self, spec: str) -> str:
        if spec:
            raise failure_of(self)
        return repr(self)

    def __copy__(self) -> Unreadable:
        return self  # The object is immutable.

    def __deepcopy__(self, memo: object) -> Unreadable:
        return self

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise failure_of(self)

    __hash__ = object.__hash__


def tree_in(value: Unreadable) -> Any:
    """Return the JSON tree from which `value` was read."""
    return value._tree


def failure_of(value: Unreadable) -> PagletsError:
    """Return a new error with the reason why `value` cannot be read."""
    error = value._error
    return type(error)(error.message, **error.details)


_OPERATIONS = (
    *("eq", "ne", "lt", "le", "gt", "ge", "bool", "int", "float", "complex", "index", "bytes", "round", "abs"),
    *("neg", "pos", "invert", "len", "iter", "reversed", "contains", "getitem", "setitem", "delitem", "call"),
    *("enter", "exit", "array", "fspath"),
    *(
        f"{side}{name}"
        for side in ("", "r", "i")
        for name in (
            *("add", "sub", "mul", "truediv", "floordiv", "mod", "divmod", "pow", "matmul"),
            *("and", "or", "xor", "lshift", "rshift"),
        )
    ),
)


def _failing(name: str) -> Callable[..., NoReturn]:
    def fail(self: Unreadable, *args: Any, **named: Any) -> NoReturn:
        raise failure_of(self)

    fail.__name__ = name
    return fail


for _name in _OPERATIONS:
    setattr(Unreadable, f"__{_name}__", _failing(f"__{_name}__"))
