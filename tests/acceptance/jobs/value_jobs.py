"""Jobs that return one value of each kind, and one that cannot be sent."""

from collections import Counter, OrderedDict, defaultdict
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple
from uuid import UUID

import numpy as np

from paglets.system.compute_slots import CollectingComputeJobPaglet, CollectingComputeJobState


class Fit(NamedTuple):
    slope: float
    residuals: Any


@dataclass
class Window:
    """A value that halves its width when it is created. It must arrive unchanged."""

    width: int
    times: Any = field(default_factory=lambda: np.arange("2026-01-01", "2026-01-04", dtype="datetime64[D]"))

    def __post_init__(self) -> None:
        self.width //= 2


def values() -> dict[str, Any]:
    return {
        "plain": {
            "nan": float("nan"),
            "infinity": [float("inf"), float("-inf")],
            "complex": 1 - 2j,
            "decimal": Decimal("1.50"),
            "fraction": Fraction(1, 3),
            "uuid": UUID(int=7),
            "counter": Counter("aab"),
            "ordered": OrderedDict(b=1, a=2),
            "default": defaultdict(list, a=[1]),
        },
        "arrays": {
            "scalar": np.float32(1.5),
            "truth": np.bool_(True),
            "array": np.asfortranarray(np.arange(6, dtype=">i2").reshape(2, 3)),
        },
        "classes": [Fit(0.5, np.array([1.0, np.nan])), Window(64)],
        "large": {"score": 0.5, "grid": np.arange(500_000.0)},
    }


@dataclass(kw_only=True)
class ValueState(CollectingComputeJobState):
    value: Any = None


class GiveBack(CollectingComputeJobPaglet[ValueState]):
    """A job that returns the value of its state."""

    State = ValueState

    def run_compute_job(self) -> None:
        self.report_compute_success(self.state.value)


class Bad(CollectingComputeJobPaglet[ValueState]):
    """A job that works, and then returns a result that cannot be sent."""

    State = ValueState

    def run_compute_job(self) -> None:
        (self.work_dir() / "hours.txt").write_text("of work")
        self.report_compute_success({"model": object()})
