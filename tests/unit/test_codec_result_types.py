"""Declared results that can never be sent are refused before any work."""

from __future__ import annotations

import io
import sqlite3
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import pytest

from paglets.codec.result_types import check_values
from paglets.core.errors import Invalid
from paglets.system.compute_slots import ComputeJobPaglet, ComputeJobState

if TYPE_CHECKING:
    from nowhere import Unknowable


@dataclass
class Row:
    a: int = 0


class DataFrame:
    pass


DataFrame.__module__, DataFrame.__qualname__ = "pandas.core.frame", "DataFrame"


def job(hint: Any, name: str = "run_compute_job") -> Any:
    def method(self: Any) -> Any: ...

    method.__annotations__ = {"return": hint}
    return type("Fit", (ComputeJobPaglet,), {"State": ComputeJobState, name: method})


@pytest.mark.parametrize(
    ("hint", "message"),
    [
        (DataFrame, 'Fit.run_compute_job returns a DataFrame, which cannot be sent hint: return frame.to_dict("list")'),
        (dict[str, list[DataFrame]], "returns a DataFrame"),
        (DataFrame | None, "returns a DataFrame"),
        (io.TextIOWrapper, "a TextIOWrapper, which cannot be sent hint: return what is in it, or report the file"),
        (IO[str], "returns an IO"),
        (Iterator[int], "returns an Iterator, which cannot be sent hint: return a list"),
        (Callable[[], int], "returns a Callable"),
        (sqlite3.Connection, "close it and report the file"),
        (deque[int], "return a list"),
    ],
    ids=str,
)
def test_a_declared_result_that_can_never_travel_is_refused(hint: Any, message: str) -> None:
    with pytest.raises(Invalid) as caught:
        check_values(job(hint))
    assert message in " ".join((caught.value.message, *caught.value.advice()))
    with pytest.raises(Invalid, match=r"Fit\.build_result_payload"):
        check_values(job(hint, "build_result_payload"))


@pytest.mark.parametrize(
    "hint",
    [None, Any, object, int, dict[str, Any], list[Row], Row, np.ndarray, np.float64, DataFrame | int, "Unknowable"],
    ids=str,
)
def test_any_other_declaration_is_accepted(hint: Any) -> None:
    check_values(job(hint))


def test_a_returned_value_that_is_not_the_result_may_be_anything() -> None:
    class Reporting(ComputeJobPaglet[ComputeJobState]):
        def run_compute_job(self) -> DataFrame:
            self.report_compute_success(1)
            return DataFrame()

    class Building(ComputeJobPaglet[ComputeJobState]):
        def run_compute_job(self) -> DataFrame:
            return DataFrame()

        def build_result_payload(self) -> dict[str, Any]:
            return {}

    class AsItsBase(Building):
        def run_compute_job(self) -> DataFrame:
            return DataFrame()

    for job_class in (Reporting, Building, AsItsBase):
        check_values(job_class)


def test_a_job_without_annotations_is_accepted() -> None:
    class Plain(ComputeJobPaglet[ComputeJobState]):
        def run_compute_job(self):  # type: ignore[no-untyped-def]
            return 1

    check_values(Plain)


def test_a_name_of_a_type_checker_is_no_hindrance() -> None:
    class Careful(ComputeJobPaglet[ComputeJobState]):
        def run_compute_job(self) -> Unknowable:
            raise NotImplementedError

    check_values(Careful)
