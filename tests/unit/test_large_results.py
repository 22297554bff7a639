"""Results that are too large for a record: their artifacts, and how clients read them."""

from __future__ import annotations

import datetime
import hashlib
import json
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paglets.cli.views.result_values import result_text
from paglets.client.group_records import MOST_BYTES
from paglets.client.large_results import load, load_all
from paglets.codec.tagged_json import decode, dump_bytes, encode
from paglets.core.errors import Conflict, Invalid, TooLarge, Unknown
from paglets.core.refs import StoredValue
from paglets.groups.records import ResultReport, without_artifact
from paglets.worker.child.reporting import MAX_INLINE_BYTES, MAX_PARTS, shrink

LARGE = "x" * MAX_INLINE_BYTES
HALF = "x" * (MAX_INLINE_BYTES // 2)


class Shelf:
    """Stored artifacts, and a client that fetches them."""

    def __init__(self) -> None:
        self.stored: dict[str, bytes] = {}

    def store(self, data: bytes) -> Any:
        artifact_id = f"art-{len(self.stored):08}"
        self.stored[artifact_id] = data
        digest = hashlib.sha256(data).hexdigest()
        return encode(StoredValue(artifact_id=artifact_id, sha256=digest, size_bytes=len(data)))

    def download_artifact(self, artifact: str, target: str | Path) -> Path:
        if artifact not in self.stored:
            raise Unknown(f"no artifact {artifact}")
        Path(target).write_bytes(self.stored[artifact])
        return Path(target)

    def through(self, value: Any, **options: Any) -> tuple[Any, Any]:
        """Return the tree in the record of a job whose result is `value`, and the value that a client reads."""
        tree = shrink(encode(value), self.store, **options)
        assert len(dump_bytes(tree)) <= MAX_INLINE_BYTES
        return tree, load(self, {"result": decode(tree)})["result"]


@pytest.mark.parametrize("value", [None, 1, {"a": HALF}, [HALF], {"$a": 1}])
def test_a_small_result_stays_in_its_record(value: Any) -> None:
    shelf = Shelf()

    assert shelf.through(value) == (encode(value), value)
    assert shelf.stored == {}


@pytest.mark.parametrize(
    "value", [LARGE, [LARGE], (LARGE,), {1: LARGE}, {"$a": LARGE}, {str(n): HALF[:80_000] for n in range(40)}]
)
def test_a_large_result_is_one_artifact(value: Any) -> None:
    shelf = Shelf()

    tree, back = shelf.through(value)

    assert list(tree) == ["$stored"]
    assert len(shelf.stored) == 1
    assert back == value


def test_of_a_dict_only_the_largest_values_are_stored() -> None:
    shelf = Shelf()
    value = {"score": 0.5, "grid": LARGE, "names": HALF, "more": HALF, "history": [1, 2]}

    tree, back = shelf.through(value)

    assert [name for name, part in tree.items() if type(part) is dict] == ["grid", "names"]
    assert list(tree) == list(value)
    assert back == value


def test_the_file_of_a_report_stays_named_in_its_record() -> None:
    shelf = Shelf()
    value = {"artifact": {"artifact_id": "art-12345678"}, "grid": np.zeros(200_000)}

    tree, back = shelf.through(value, has_file=True)

    assert tree["artifact"] == value["artifact"]
    assert np.array_equal(back["grid"], np.zeros(200_000))
    parts = {str(n): HALF[:80_000] for n in range(MAX_PARTS * 3)}
    with pytest.raises(Invalid, match="put it into the file"):
        shrink({"artifact": {}, **parts}, shelf.store, has_file=True)


def test_a_deleted_large_value_fails_only_when_it_is_used() -> None:
    shelf = Shelf()
    tree, _ = shelf.through({"a": LARGE, "b": 1})
    shelf.stored.clear()

    result = load(shelf, {"result": decode(tree)})["result"]

    assert result["b"] == 1
    with pytest.raises(Unknown, match="the result was deleted: no artifact art-00000000"):
        len(result["a"])
    assert encode(result) == tree


def test_bytes_that_are_not_those_of_the_name_are_refused() -> None:
    shelf = Shelf()
    tree, _ = shelf.through(LARGE)
    shelf.stored["art-00000000"] = b"1"

    with pytest.raises(Conflict, match="artifact art-00000000, which holds a result, has 1 bytes instead of"):
        load(shelf, {"result": decode(tree)})


def test_results_that_are_too_large_together_are_refused_before_one_is_fetched() -> None:
    def record(size_bytes: int) -> dict[str, Any]:
        return {"result": StoredValue(artifact_id="art-12345678", sha256="0" * 64, size_bytes=size_bytes)}

    with pytest.raises(TooLarge, match=r"the results of g take 1\.5 GiB in all, .*\nnext: .*as_completed"):
        load_all(Shelf(), {"a": record(MOST_BYTES), "b": record(MOST_BYTES // 2)}, "g")
    failure = {"cause": "exception"}
    assert load_all(Shelf(), {"a": failure}, "g") == {"a": failure}


def test_a_duplicate_keeps_no_large_value() -> None:
    stored = StoredValue(artifact_id="art-12345678", sha256="0" * 64, size_bytes=9)

    for value in (stored, encode(stored)):
        assert without_artifact(ResultReport(job_key="a", result=value)).result is None
        assert without_artifact(ResultReport(job_key="a", result={"x": value, "y": 1})).result == {"y": 1}


def test_a_result_is_shown_by_what_it_is_and_how_large() -> None:
    stored = StoredValue(artifact_id="art-12345678", sha256="0" * 64, size_bytes=20 << 20)
    value = {"mean": 0.5, "grid": stored, "a": [np.zeros((2, 3)), np.array(1)], "raw": bytes(3000), "few": b"x"}

    assert result_text(encode(value)) == (
        '{"mean": 0.5, "grid": <20 MiB, stored as art-12345678>, "a": [<array of f8, 2 x 3>, <array of i8, one value>],'
        ' "raw": <2.9 KiB of bytes>, "few": {"$bytes": "eA=="}}'
    )
    assert result_text(None) == "null"
    numbers = [np.float64(1.5), np.float32(0.5), np.int8(-1), np.bool_(True), float("nan"), np.datetime64("NaT")]
    assert result_text(encode(numbers)) == '[1.5, 0.5, -1, True, nan, {"$numpy": ["<M8", "AAAAAAAAAIA="]}]'


@dataclass
class Point:
    x: int
    at: Path


def test_values_with_tags_are_shown_as_python_shows_them() -> None:
    value = {
        "pair": (1, "a"),
        "one": (2,),
        "empty": (),
        "set": {3},
        "by number": {1: (2, 3)},
        "point": Point(x=1, at=Path("a/b")),
        "when": datetime.date(2026, 12, 2),
        "how": Decimal("1.5"),
    }
    assert result_text(encode(value)) == (
        '{"pair": (1, "a"), "one": (2,), "empty": (), "set": {3}, "by number": {1: (2, 3)}, '
        '"point": Point(x=1, at=a/b), "when": 2026-12-02, "how": 1.5}'
    )
    for odd in ({"$tuple": 1}, {"$dict": [1]}, {"$object": []}, {"$enum": "x"}, {"$path": 3}, {"$defaultdict": [1]}):
        assert result_text(odd) == json.dumps(odd)
