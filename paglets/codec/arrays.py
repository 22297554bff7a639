"""Conversion of numpy arrays and scalars to and from the contents of the tags `$ndarray` and `$numpy`.

numpy is imported only to read such a value. A host that only forwards the value as JSON needs no numpy.
"""

from __future__ import annotations

import base64
import math
import sys
from collections.abc import Callable
from typing import Any

from paglets.codec.codec_error import CodecError
from paglets.core.errors import ImportFailed
from paglets.core.text import type_of, with_article

MAX_DTYPE_CHARACTERS = 60
MAX_DIMENSIONS = 64

DTYPE_KINDS = "biufcmMSUV"
"""The kinds of dtypes that are supported: booleans, numbers, times, text, and raw bytes."""

LARGEST_FLOAT = {"f": 8, "c": 16}
"""Maximum bytes of an item, by kind. Wider floats have the same name but another format on other processors."""

_TEXT_KINDS = ("S", "U")


def is_array(value: Any) -> bool:
    """Return True if `value` is a numpy array or an instance of a subclass."""
    return isinstance(value, getattr(sys.modules.get("numpy"), "ndarray", ()))


def is_scalar(value: Any) -> bool:
    """Return True if `value` is a numpy scalar, such as numpy.float64(1)."""
    return isinstance(value, getattr(sys.modules.get("numpy"), "generic", ()))


def array_content(array: Any) -> dict[str, Any]:
    """Return the content of a `$ndarray` tag. Raises CodecError for a subclass, and for items that are not portable."""
    numpy = sys.modules["numpy"]
    if type(array) not in (numpy.ndarray, numpy.memmap):
        raise CodecError(f"{type_of(array)} is not a plain array and cannot be sent; {_advice(array)}")
    dtype = _portable(array.dtype)
    return {"dtype": dtype, "shape": list(array.shape), "data": _text(array)}


def _advice(array: Any) -> str:
    if hasattr(array, "mask"):
        return "send .data and .mask as two arrays"
    return "convert it with numpy.asarray(...)"


def scalar_content(scalar: Any) -> list[str]:
    """Return the content of a `$numpy` tag: [dtype, base64 of the bytes]; ["U", text]; or ["S", base64] for bytes."""
    kind = scalar.dtype.kind
    if kind == "U":
        return ["U", str.__str__(scalar)]
    if kind == "S":
        return ["S", base64.b64encode(scalar).decode("ascii")]
    return [_portable(scalar.dtype), base64.b64encode(scalar.tobytes()).decode("ascii")]


def _portable(dtype: Any) -> str:
    """Return the name of a dtype. Raises CodecError if it does not mean the same on all machines."""
    numpy = sys.modules["numpy"]
    if dtype.hasobject:
        raise CodecError("an array of objects cannot be sent; convert it with .tolist()")
    if dtype.names is not None:
        raise CodecError("a structured array cannot be sent; send {name: array[name] for name in array.dtype.names}")
    if dtype.itemsize > LARGEST_FLOAT.get(dtype.kind, dtype.itemsize):
        raise CodecError(
            f"{with_article(dtype.name)} differs between processors and cannot be sent; "
            "convert it to float64 or complex128"
        )
    text: str = dtype.str
    try:
        is_same = dtype.kind in DTYPE_KINDS and numpy.dtype(text) == dtype
    except TypeError:
        is_same = False
    if not is_same:
        raise CodecError(f"the dtype {str(dtype)[:60]} is not one of numpy's own; convert it with .astype(...)")
    return text


def _text(array: Any) -> str:
    if array.nbytes == 0:
        return ""
    flat = sys.modules["numpy"].ascontiguousarray(array).reshape(-1)
    return base64.b64encode(flat.view("u1")).decode("ascii")


# The functions below read arrays and scalars.

Resolve = Callable[[str], type[Any]]


def read_array(content: Any, binary: Callable[[Any], bytes], resolve: Resolve) -> Any:
    """Return the array of a `$ndarray` tag. Raises ValueError or TypeError if it is bad, ImportFailed without numpy."""
    if type(content) is not dict or content.keys() != {"dtype", "shape", "data"}:
        raise TypeError('expected {"dtype": ..., "shape": [...], "data": ...}')
    shape = content["shape"]
    if type(shape) is not list or len(shape) > MAX_DIMENSIONS or not all(type(n) is int and n >= 0 for n in shape):
        raise TypeError("expected a shape of non-negative integers")
    numpy = _numpy(resolve)
    dtype = _dtype(numpy, content["dtype"])
    data = binary(content["data"])
    if len(data) != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{len(data)} bytes do not fill a {content['dtype']} array of shape {shape}")
    if not data:
        return numpy.zeros(shape, dtype)
    # A bytearray makes the array writable.
    return numpy.frombuffer(bytearray(data), dtype).reshape(shape)


def read_scalar(content: Any, binary: Callable[[Any], bytes], resolve: Resolve) -> Any:
    """Return the scalar of a `$numpy` tag. Raises the errors of `read_array`."""
    if type(content) is not list or [type(part) for part in content] != [str, str]:
        raise TypeError("expected [dtype, bytes]")
    name, text = content
    numpy = _numpy(resolve)
    if name in _TEXT_KINDS:
        return numpy.str_(text) if name == "U" else numpy.bytes_(binary(text))
    dtype, data = _dtype(numpy, name), binary(text)
    if not data or len(data) != dtype.itemsize:
        raise ValueError(f"{len(data)} bytes do not make one {name}")
    return numpy.frombuffer(data, dtype)[0]


def _numpy(resolve: Resolve) -> Any:
    try:
        resolve("numpy:ndarray")
    except ImportFailed as error:
        raise ImportFailed(
            f"a value needs numpy, which {error.details['interpreter']} cannot import; install numpy there",
            **error.details,
        ) from error.__cause__
    return sys.modules["numpy"]


def _dtype(numpy: Any, name: Any) -> Any:
    if type(name) is not str or len(name) > MAX_DTYPE_CHARACTERS:
        raise TypeError("expected the name of a dtype")
    dtype = numpy.dtype(name)
    if dtype.kind not in DTYPE_KINDS or dtype.hasobject or dtype.names is not None or dtype.subdtype is not None:
        raise ValueError(f"arrays of {name} are not supported")
    return dtype
