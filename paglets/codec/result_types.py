"""A check of the annotated result types of a job.

Before the job is submitted, it finds types whose values cannot be sent.
"""

from __future__ import annotations

import typing
from collections.abc import Iterator
from types import UnionType
from typing import Any, Union

from paglets.codec.dataclass_fields import schema_of
from paglets.core.errors import Invalid
from paglets.core.text import with_article

RESULT_METHODS = ("run_compute_job", "build_result_payload")

_ADVICE: dict[str, str] = {
    "pandas.core.frame.DataFrame": 'return frame.to_dict("list"), or report a file',
    "pandas.core.series.Series": "return series.to_numpy()",
    "pandas.core.indexes.base.Index": "return index.to_numpy()",
    "polars.dataframe.frame.DataFrame": "return frame.to_dict(as_series=False), or report a file",
    "torch.Tensor": "return tensor.numpy(force=True)",
    "matplotlib.figure.Figure": "save it and report the file",
    "io.IOBase": "return what is in it, or report the file",
    "_io._IOBase": "return what is in it, or report the file",
    "typing.IO": "return what is in it, or report the file",
    "builtins.function": "return what it returns",
    "builtins.generator": "return a list",
    "collections.abc.Callable": "return what it returns",
    "collections.abc.Generator": "return a list",
    "collections.abc.Iterator": "return a list",
    "collections.deque": "return a list",
    "builtins.range": "return a list",
    "builtins.memoryview": "return bytes",
    "sqlite3.Connection": "close it and report the file",
    "subprocess.Popen": "return its exit code",
    "_thread.lock": "return what it guards",
}
"""Advice for types whose instances cannot be sent, by name of the type. The types need not be installed."""


def check_values(job_class: Any) -> None:
    """Check that states of a job class and results of the annotated types can be sent. Raises Invalid if not."""
    schema_of(job_class.State)
    for name in RESULT_METHODS:
        for kind, advice in _impossible(_declared(job_class, name)):
            raise Invalid(
                f"{job_class.__qualname__}.{name} returns {with_article(kind)}, which cannot be sent", hint=[advice]
            )


def _declared(job_class: Any, name: str) -> Any:
    """Return the annotated return type of a method; None if its return value may not be the result of the job."""
    method = getattr(job_class, name)
    names = getattr(getattr(method, "__code__", None), "co_names", ())
    if name == "run_compute_job" and any(each in names or _is_overridden(job_class, each) for each in _OTHER_RESULTS):
        return None
    try:
        return typing.get_type_hints(method).get("return")
    except (NameError, TypeError, AttributeError, SyntaxError):
        # The annotation has a name that exists only for a type checker.
        return None


def _is_overridden(job_class: Any, name: str) -> bool:
    return sum(name in vars(base) for base in job_class.__mro__) > 1


_OTHER_RESULTS = ("report_compute_success", "report_compute_artifact", "build_result_payload")
"""Methods that set the result of a job. If a job calls or overrides one, the return value of `run_compute_job` may not
be the result."""


def _impossible(hint: Any) -> Iterator[tuple[str, str]]:
    """Yield the name of each type in the annotation `hint` whose values can never be sent, and advice about it."""
    origin, arms = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, UnionType):
        found = [list(_impossible(arm)) for arm in arms if arm is not type(None)]
        if all(found):
            yield from found[0]
        return
    for base in getattr(origin or hint, "__mro__", ()):
        name = f"{base.__module__}.{base.__qualname__}"
        if name in _ADVICE:
            yield (origin or hint).__qualname__, _ADVICE[name]
            return
    if origin in (list, dict, tuple, set, frozenset):
        for arm in arms:
            yield from _impossible(arm)
