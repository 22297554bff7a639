"""The tables of `protocol.md` for routes, their records, frames of workers and tagged JSON."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import pkgutil
import types
import typing
from collections.abc import Iterable
from typing import Any, Literal

from docs.generator.markdown import anchor, code, doc_of, one_line, table
from paglets import api, worker
from paglets.api import hosts, limits, paglets
from paglets.codec import envelope, tagged_json
from paglets.core import refs
from paglets.core.record import to_json
from paglets.host.http.routes import ROUTES
from paglets.slots import model
from paglets.worker import protocol

FIRST = ("hosts", "paglets", "groups", "slots", "blobs")
"""Modules of `paglets.api` in the order of the document. Others follow."""

SHARED_MODULES = (refs, envelope, model)
"""Modules of records that occur in several others."""

NOT_SENT = (model.Candidate, hosts.HostStatus, paglets.NewPaglet)

SCALARS: dict[Any, str] = {
    str: "text",
    int: "integer",
    float: "number",
    bool: "boolean",
    Any: "any JSON",
    bytes: "bytes",
}


def parts() -> dict[str, str]:
    made = {
        "routes": routes(),
        "limits": bounds(),
        "tagged JSON": _tail(tagged_json, "str, int"),
        "frames": _tail(protocol),
    }
    made["records of routes"] = "\n".join(
        f"### Records about {name}\n\n{records(found)}" for name in api_modules() if (found := _of_api(name))
    )
    made["shared records"] = records(each for module in SHARED_MODULES for each in records_in(module))
    made["worker operations"] = operations()
    made["worker records"] = records(frames(), prefix="frame ")
    return made


def api_modules() -> list[str]:
    there = [each.name for each in pkgutil.iter_modules(api.__path__)]
    return [*FIRST, *(name for name in there if name not in FIRST)]


def _of_api(name: str) -> list[type]:
    return records_in(importlib.import_module(f"{api.__name__}.{name}"))


def records_in(module: types.ModuleType) -> list[type]:
    """Return the dataclasses that a module defines, in the order of their definition."""
    found = [each for each in vars(module).values() if isinstance(each, type) and dataclasses.is_dataclass(each)]
    return [each for each in found if _home(each) is module and each not in NOT_SENT]


def _home(cls: type) -> types.ModuleType | None:
    """Return the module that defines a class. `__module__` may name the one that publishes it instead."""
    return refs if cls is refs.ArtifactRef else inspect.getmodule(cls)


def routes() -> str:
    rows = [
        (code(route.method), code(route.path), _taken(route.takes), json_type(route.gives), one_line(route.about))
        for route in ROUTES
    ]
    return table(("method", "path", "takes", "gives", "what for"), rows)


def _taken(kind: type | None) -> str:
    return "" if kind is None else json_type(kind)


def bounds() -> str:
    rows = [(code(name), f"{value:,}") for name, value in vars(limits).items() if name.isupper()]
    return table(("limit", "value"), rows)


def records(classes: Iterable[type], prefix: str = "") -> str:
    return "\n".join(record(cls, prefix) for cls in classes)


def record(cls: type, prefix: str) -> str:
    """Return the heading, docstring and fields of a record."""
    hints = typing.get_type_hints(cls)
    rows = [(code(each.name), json_type(hints[each.name], prefix), _default(each)) for each in dataclasses.fields(cls)]
    about = doc_of(cls)
    fields = table(("field", "type", "default"), rows) if rows else "No fields.\n"
    return f"#### {prefix}{cls.__name__}\n\n" + (f"{about}\n\n" if about else "") + fields


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is not dataclasses.MISSING:
        return code(json.dumps(to_json(field.default)))
    if field.default_factory is not dataclasses.MISSING:
        made = field.default_factory()
        return "of its fields" if dataclasses.is_dataclass(made) else code(json.dumps(to_json(made)))
    return "required"


def json_type(hint: Any, prefix: str = "") -> str:
    """Return the name of a type in JSON."""
    if hint in SCALARS:
        return SCALARS[hint]
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(json_type(arg, prefix) for arg in args if arg is not type(None)) + " or null"
    if origin is tuple:
        return f"list of {json_type(args[0], prefix)}"
    if origin is dict:
        return f"object of {json_type(args[1], prefix)}"
    if origin is Literal:
        return ", ".join(code(json.dumps(arg)) for arg in args)
    title = f"{prefix}{hint.__name__}" if _is_frame(hint) else hint.__name__
    return f"[{hint.__name__}](#{anchor(title)})"


def frames() -> list[type]:
    """Return the records of workers: Go, Deliver, the arguments of the operations, and the records inside them."""
    found: dict[type, None] = {}
    waiting = [*reversed(list(protocol.OPERATIONS.values())), protocol.Deliver, protocol.Go]
    while waiting:
        cls = waiting.pop()
        if cls not in found:
            found[cls] = None
            hints = typing.get_type_hints(cls)
            inside = [kind for each in dataclasses.fields(cls) for kind in _classes(hints[each.name])]
            waiting += [kind for kind in reversed(inside) if _is_frame(kind)]
    return list(found)


def _classes(hint: Any) -> list[type]:
    """Return the dataclasses in a type."""
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return [hint]
    return [kind for arg in typing.get_args(hint) for kind in _classes(arg)]


def _is_frame(cls: type) -> bool:
    return cls.__module__.startswith(f"{worker.__name__}.")


def operations() -> str:
    rows = [
        (code(name), json_type(args, "frame "), one_line(_first(args))) for name, args in protocol.OPERATIONS.items()
    ]
    return table(("op", "args", "what the args say"), rows)


def _first(cls: type) -> str:
    return doc_of(cls).split("\n\n")[0]


def _tail(module: types.ModuleType, begin: str = "") -> str:
    """Return the docstring of a module without its first paragraph, from the text `begin` on."""
    text = inspect.cleandoc(module.__doc__ or "").split("\n\n", 1)[1]
    return text[text.index(begin) :] + "\n"
