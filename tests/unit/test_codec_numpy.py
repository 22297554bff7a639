"""numpy values as tagged JSON, also on a machine that lacks numpy or a class."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paglets.codec.tagged_json import decode, dumps, encode, loads
from paglets.codec.unreadable import Unreadable
from paglets.core.errors import ImportFailed, Invalid

ROOT = Path(__file__).parents[2]


def through_text(value: Any) -> Any:
    return decode(loads(dumps(encode(value))))


ARRAYS = {
    "floats": np.array([[1.5, np.nan], [np.inf, -0.0]]),
    "small floats": np.arange(3, dtype=np.float16),
    "integers": np.arange(-3, 3, dtype=np.int8),
    "big integers": np.array([2**64 - 1], dtype=np.uint64),
    "truth": np.array([True, False]),
    "complex": np.array([1 + 2j, complex("nan+infj")], dtype=np.complex64),
    "other byte order": np.array([1, 2], dtype=">i4"),
    "Fortran order": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "not contiguous": np.arange(20).reshape(4, 5)[::2, ::-2],
    "broadcast": np.broadcast_to(np.arange(3), (2, 3)),
    "no dimension": np.array(3.5),
    "empty": np.zeros((0, 3), dtype=np.float32),
    "empty inside": np.zeros((2, 0, 4)),
    "times": np.array(["2026-01-01", "NaT"], dtype="datetime64[s]"),
    "durations": np.array([1, 2], dtype="timedelta64[ms]"),
    "text": np.array(["a", "Grüße", ""]),
    "bytes": np.array([b"a", b"bcd"]),
    "raw": np.frombuffer(b"abcdefgh", dtype="V4"),
    "text of no length": np.zeros(2, dtype="U0"),
}


@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS.keys())
def test_an_array_arrives_with_its_dtype_shape_and_bytes_in_c_order(array: Any) -> None:
    back = through_text({"a": array})["a"]

    assert type(back) is np.ndarray
    assert back.dtype == array.dtype
    assert back.dtype.str == array.dtype.str
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()
    assert back.flags.c_contiguous
    assert back.flags.writeable


@pytest.mark.parametrize(
    "scalar",
    [
        np.float64("nan"),
        np.float64(1.5),
        np.float32(1.1),
        np.float16(2),
        np.int64(-(2**63)),
        np.uint8(255),
        np.bool_(True),
        np.complex128(1 - 2j),
        np.complex64(1j),
        np.datetime64("2026-01-01T12:00:00.123456789"),
        np.datetime64("NaT"),
        np.timedelta64(3, "D"),
        np.str_("Grüße\0"),
        np.str_(""),
        np.bytes_(b"a\0"),
        np.array([b"abcd"], dtype="V4")[0],
        np.array([7], dtype=">i2")[0],
    ],
    ids=lambda scalar: scalar.dtype.str,
)
def test_a_scalar_arrives_as_a_scalar_of_its_type(scalar: Any) -> None:
    back = through_text([scalar])[0]

    assert type(back) is type(scalar)
    assert back.dtype == scalar.dtype
    assert back.tobytes() == scalar.tobytes()


def test_the_tags_of_numpy_on_the_wire_are_these() -> None:
    array = np.array([[1, 2]], dtype="<i2")

    assert encode(array) == {"$ndarray": {"dtype": "<i2", "shape": [1, 2], "data": "AQACAA=="}}
    assert encode(np.float32(1)) == {"$numpy": ["<f4", "AACAPw=="]}
    assert encode(np.str_("ä")) == {"$numpy": ["U", "ä"]}
    assert encode(np.bytes_(b"\xff")) == {"$numpy": ["S", "/w=="]}
    assert encode({np.int8(3): 1}) == {"$dict": [[{"$numpy": ["|i1", "Aw=="]}, 1]]}
    assert encode({np.str_("key"): 1}) == {"key": 1}


def test_a_mapped_file_arrives_as_an_array(tmp_path: Path) -> None:
    mapped = np.memmap(tmp_path / "a", dtype="f4", mode="w+", shape=(2, 2))
    mapped[:] = 3

    back = through_text(mapped)

    assert type(back) is np.ndarray
    assert back.tolist() == [[3, 3], [3, 3]]


def test_a_big_array_arrives_whole() -> None:
    array = np.arange(1 << 20, dtype=np.float64)

    assert np.array_equal(through_text(array), array)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.array([{}, "a"], dtype=object), "result: an array of objects cannot be sent; convert it with .tolist()"),
        (
            np.zeros(2, dtype=[("a", "i4"), ("b", "f8")]),
            "a structured array cannot be sent; send {name: array[name] for name in array.dtype.names}",
        ),
        (np.zeros(1, dtype=[("a", "i4")])[0], "a structured array cannot be sent"),
        (np.longdouble(1), "longdouble differs between processors and cannot be sent; convert it to float64"),
        (
            np.ma.masked_array([1, 2], mask=[True, False]),
            "is not a plain array and cannot be sent; send .data and .mask",
        ),
        (np.ma.masked, "cannot be sent"),
        (np.asmatrix([[1]]), "a matrix is not a plain array and cannot be sent; convert it with numpy.asarray(...)"),
        (np.array(["a"], dtype=np.dtypes.StringDType()), "cannot be sent"),
        (np.random.default_rng(1), "a numpy.random._generator.Generator cannot be sent"),
    ],
    ids=str,
)
def test_what_has_no_fixed_bytes_is_refused_with_what_to_do(value: Any, message: str) -> None:
    if isinstance(value, np.longdouble):
        message = message.replace("longdouble", np.dtype(np.longdouble).name)
    with pytest.raises(Invalid) as failure:
        encode(value, "result")
    assert message in failure.value.message


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"$ndarray": {"dtype": "<f8", "shape": [2], "data": "AAAA"}}, "3 bytes do not fill a <f8 array of shape"),
        ({"$ndarray": {"dtype": "O", "shape": [0], "data": ""}}, "arrays of O are not supported"),
        ({"$ndarray": {"dtype": "i4,f8", "shape": [0], "data": ""}}, "arrays of i4,f8 are not supported"),
        ({"$ndarray": {"dtype": "(2,)i4", "shape": [0], "data": ""}}, "are not supported"),
        ({"$ndarray": {"dtype": "what", "shape": [0], "data": ""}}, "has a wrong value"),
        ({"$ndarray": {"dtype": 3, "shape": [0], "data": ""}}, "expected the name of a dtype"),
        ({"$ndarray": {"dtype": "<f8", "shape": [-1], "data": ""}}, "expected a shape"),
        ({"$ndarray": {"dtype": "<f8", "shape": [True], "data": ""}}, "expected a shape"),
        ({"$ndarray": {"dtype": "<f8", "shape": [1 << 62, 1 << 62], "data": ""}}, "0 bytes do not fill"),
        ({"$ndarray": [1]}, "expected"),
        ({"$numpy": ["<f8", "AAAA"]}, "3 bytes do not make one <f8"),
        ({"$numpy": ["<f8", ""]}, "0 bytes do not make one <f8"),
        ({"$numpy": "x"}, "expected"),
    ],
    ids=str,
)
def test_wrong_content_of_a_tag_is_invalid(tree: Any, message: str) -> None:
    with pytest.raises(Invalid) as failure:
        decode(tree)
    assert message in failure.value.message


# Without numpy or a class.

MISSING = {"$object": {"class": "no_such_module:Row", "fields": {"a": 1}}}


def test_what_cannot_be_imported_fails_when_it_is_used_and_not_before() -> None:
    value = decode({"bad": {"rows": [MISSING, 2]}, "good": 1}, keep_missing=True)
    bad = value["bad"]["rows"][0]

    assert value["good"] == 1
    assert value["bad"]["rows"][1] == 2
    assert "no_such_module" in repr(bad)
    assert "no_such_module" in f"{bad}"
    for use in (
        lambda: bad.a,
        lambda: bad["a"],
        lambda: bad + 1,
        lambda: 1 + bad,
        lambda: bad == 1,
        lambda: float(bad),
        lambda: bool(bad),
        lambda: len(bad),
        lambda: list(bad),
        lambda: f"{bad:.3f}",
        lambda: pickle.dumps(bad),
        lambda: np.asarray(bad),
    ):
        with pytest.raises(ImportFailed, match="no_such_module:Row cannot be imported"):
            use()


def test_what_holds_such_a_value_can_be_copied() -> None:
    value = decode({"bad": MISSING, "good": [1]}, keep_missing=True)

    copied = copy.deepcopy(value)

    assert copied["good"] == [1]
    assert encode(copied) == encode(copy.copy(value)) == {"bad": MISSING, "good": [1]}


@dataclass
class Point:
    x: int


def test_a_value_of_a_class_that_has_other_fields_by_now_spoils_no_other() -> None:
    older = {"$object": {"class": f"{__name__}:Point", "fields": {"x": 1, "y": 2}}}

    value = decode({"older": older, "now": encode(Point(3))}, keep_missing=True)

    assert value["now"] == Point(3)
    with pytest.raises(Invalid, match="a Point has no field 'y'"):
        repr(value["older"].x)
    assert encode(value["older"]) == older
    with pytest.raises(Invalid, match="a Point has no field 'y'"):
        decode(older)


def test_what_cannot_be_imported_here_is_sent_on_as_it_came() -> None:
    tree = {"a": [MISSING, {"$set": [MISSING]}, {"$enum": ["no_such_module:Color", "RED"]}], "b": 1}

    value = decode(tree, keep_missing=True)

    assert isinstance(value["a"][2], Unreadable)
    assert encode(value) == tree


def test_what_cannot_be_imported_is_an_error_at_once_unless_the_reader_keeps_it() -> None:
    with pytest.raises(ImportFailed):
        decode({"a": MISSING})
    with pytest.raises(Invalid, match="cannot be read in this process: only plain values can"):
        decode(encode(np.float64(1)), import_classes=False, keep_missing=True)


WITHOUT_NUMPY = """
import json, sys
sys.modules["numpy"] = None
from paglets.codec.tagged_json import decode, encode
from paglets.core.errors import ImportFailed
tree = json.load(sys.stdin)
try:
    decode(tree)
except ImportFailed as error:
    print(error.message)
value = decode(tree, keep_missing=True)
try:
    value["array"].sum()
except ImportFailed as error:
    print(error.message)
print(value["other"], encode(value) == tree)
"""


def test_without_numpy_only_the_use_of_its_values_fails() -> None:
    tree = {"array": encode(np.arange(3)), "scalar": encode(np.int8(1)), "other": 5}

    answer = subprocess.run(
        [sys.executable, "-c", WITHOUT_NUMPY],
        input=json.dumps(tree),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )

    said = f"a value needs numpy, which {sys.executable} cannot import; install numpy there"
    assert answer.stdout.splitlines() == [said, said, "5 True"]
