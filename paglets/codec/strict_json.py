"""Strict JSON with limits: the only reader and writer for HTTP bodies, frames and stores.

Both refuse JSON that other hosts, languages or versions may read differently: NaN and infinity (also a number that
overflows, such as 1e400), lone surrogates, nesting over `MAX_DEPTH`, and integers of more than `MAX_INT_DIGITS` digits.
The reader also refuses duplicate keys, a byte order mark, and bytes that are not UTF-8. The reader raises only
`BadRequest`, or `TooLarge` if a limit is exceeded. The writer raises only `Invalid`.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Mapping
from typing import Any, NoReturn

from paglets.core.errors import BadRequest, Invalid, TooLarge

MAX_DEPTH = 100
"""Maximum levels of nesting: far more than real bodies have (about ten), and far below any recursion limit."""

MAX_INT_DIGITS = 4300
"""Maximum digits of an integer: the default limit of CPython. Reading takes time quadratic in the number of digits."""


def dumps(tree: Any) -> str:
    """Return the compact JSON text of a tree of dicts with string keys, lists, strings, numbers, bools and None."""
    return _write(tree)[0]


def dump_bytes(tree: Any) -> bytes:
    """Return the JSON text of a tree, as from `dumps`, in UTF-8."""
    return _write(tree)[1]


def dumps_with(tree: Mapping[str, Any], name: str, text: str) -> str:
    """Return the JSON of an object whose field `name` has the JSON `text` as its value. The text is not parsed."""
    rest = dumps({key: value for key, value in tree.items() if key != name})
    return f"{rest[:-1]}{',' if len(rest) > 2 else ''}{dumps(name)}:{text}}}"


def loads(data: bytes | str) -> Any:
    """Return the tree of the JSON text `data`."""
    if isinstance(data, str):
        text, body = data, _utf8(data, BadRequest)
    else:
        text, body = _decoded(data), data
    if text.startswith("\ufeff"):
        raise BadRequest("the JSON begins with a byte order mark: send UTF-8 without it")
    if _too_deep(body):
        raise TooLarge(f"the JSON is nested more than {MAX_DEPTH} levels deep")
    if "\\" in text and _SURROGATE.search(text):
        _check_surrogates(text)
    return _parse(text)


def _write(tree: Any) -> tuple[str, bytes]:
    try:
        text = _ENCODER.encode(tree)
    except (TypeError, ValueError) as error:
        raise Invalid(f"a value cannot be written as JSON: {str(error)[:200]}") from None
    except RecursionError:
        raise Invalid(f"a value is nested more than {MAX_DEPTH} levels deep") from None
    except MemoryError:
        raise Invalid("a value is too large to be written as JSON") from None
    body = _utf8(text, Invalid)
    if _too_deep(body):
        raise Invalid(f"a value is nested more than {MAX_DEPTH} levels deep")
    return text, body


def _utf8(text: str, refusal: type[BadRequest] | type[Invalid]) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise refusal(f"{_shown(text, error.start)} has a lone surrogate, which is not text") from None


def _shown(text: str, at: int) -> str:
    return ascii(text[max(0, at - 20) : at + 20])


def _decoded(body: bytes) -> str:
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadRequest(f"the JSON is not UTF-8: the byte at offset {error.start} cannot be decoded") from None


def _parse(text: str) -> Any:
    # Count digits if this process has raised the limit of the interpreter, so that MAX_INT_DIGITS always holds.
    decode = _DECODER if 0 < sys.get_int_max_str_digits() <= MAX_INT_DIGITS else _COUNTING_DECODER
    try:
        return decode.decode(text)
    except json.JSONDecodeError as error:
        raise BadRequest(f"not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    except ValueError:
        raise TooLarge(f"the JSON has an integer of more than {MAX_INT_DIGITS} digits") from None
    except RecursionError:
        raise TooLarge("the JSON is nested too deep for the recursion limit of this process") from None
    except MemoryError:
        raise TooLarge("the JSON is too large for the memory of this process") from None


# The code below finds escaped lone surrogates. Unescaped ones are invalid UTF-8, and refused as such.

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_PAIR = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}")


def _check_surrogates(text: str) -> None:
    alone = _SURROGATE.search(_PAIR.sub(" ", text.replace("\\\\", "  ")))
    if alone:
        raise BadRequest(f"the JSON has a lone surrogate ({alone.group()}..), which is not text")


# The depth is measured at C speed and without parsing: delete all characters except brackets and quotes, then strings,
# then repeatedly the innermost brackets.

_AS_SQUARE = bytes.maketrans(b"{}", b"[]")
_OTHERS = bytes(set(range(256)) - set(b'[]{}"\\'))


def _too_deep(body: bytes) -> bool:
    """Return True if valid JSON is nested too deep. For invalid JSON the result is arbitrary; the parser refuses it."""
    if body.count(b"[") + body.count(b"{") <= MAX_DEPTH:
        return False
    brackets = _outside_strings(body.translate(_AS_SQUARE, _OTHERS))
    opening = b"[" * (MAX_DEPTH + 1)
    for _ in range(MAX_DEPTH):
        if opening in brackets:
            return True
        rest = brackets.replace(b"[]", b"")
        if len(rest) == len(brackets):
            return False
        brackets = rest
    return bool(brackets)


def _outside_strings(marks: bytes) -> bytes:
    if b"\\" in marks:
        marks = marks.replace(b"\\\\", b"").replace(b'\\"', b"").replace(b"\\", b"")
    # Two adjacent quotes open and close a string without brackets, or close one string and open the next. Removing them
    # keeps the inside of strings apart from the outside.
    marks = marks.replace(b'""', b"")
    return b"".join(marks.split(b'"')[::2]) if b'"' in marks else marks


# The parser of `json` calls the functions below.


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    tree = dict(pairs)
    if len(tree) != len(pairs):
        ((twice, _),) = Counter(key for key, _ in pairs).most_common(1)
        raise BadRequest(f"the JSON has an object with the key {twice[:60]!a} twice")
    return tree


def _finite(text: str) -> float:
    number = float(text)
    if number - number != 0:
        raise BadRequest(f"the JSON has the number {text[:30]}, which is out of range")
    return number


def _counted(text: str) -> int:
    if len(text) > MAX_INT_DIGITS and len(text.lstrip("-")) > MAX_INT_DIGITS:
        raise TooLarge(f"the JSON has an integer of more than {MAX_INT_DIGITS} digits")
    return int(text)


def _no_constant(name: str) -> NoReturn:
    raise BadRequest(f"the JSON has {name}, which JSON does not allow: use null")


_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_float=_finite, parse_constant=_no_constant)
_COUNTING_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=_finite, parse_constant=_no_constant, parse_int=_counted
)
