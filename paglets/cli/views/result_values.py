"""Results of jobs as text. Large values are printed as their type and size."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from paglets.slots.amounts import bytes_text

MOST_BASE64 = 40
"""The maximum length of a base64 text that is printed in full."""


def result_text(tree: Any) -> str:
    """Return tagged JSON as readable text, such as `{"mean": 0.5, "grid": <array of f8, 512 x 512>}`."""
    if type(tree) is dict:
        if len(tree) == 1:
            ((tag, content),) = tree.items()
            if tag in _TEXTS and (text := _TEXTS[tag](content)):
                return text
        return "{" + ", ".join(f"{_json(key)}: {result_text(value)}" for key, value in tree.items()) + "}"
    if type(tree) is list:
        return "[" + ", ".join(map(result_text, tree)) + "]"
    return _json(tree)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _stored(content: Any) -> str:
    size = content.get("size_bytes") if type(content) is dict else None
    return f"<{bytes_text(size)}, stored as {content.get('artifact_id')}>" if type(size) is int else ""


def _array(content: Any) -> str:
    if type(content) is not dict or type(content.get("shape")) is not list:
        return ""
    dtype = str(content.get("dtype")).lstrip("<>|=")
    return f"<array of {dtype}, {' x '.join(map(str, content['shape'])) or 'one value'}>"


def _scalar(content: Any) -> str:
    with suppress(ValueError, TypeError, KeyError, struct.error):
        dtype, text = content
        return str(struct.unpack(_NUMBERS[dtype], base64.b64decode(text))[0])
    return ""


_NUMBERS = {
    **{f"<{kind}{size}": f"<{code}" for kind, size, code in (("f", 2, "e"), ("f", 4, "f"), ("f", 8, "d"))},
    **{f"<i{size}": f"<{code}" for size, code in ((2, "h"), (4, "i"), (8, "q"))},
    **{f"<u{size}": f"<{code}" for size, code in ((2, "H"), (4, "I"), (8, "Q"))},
    "|b1": "?",
    "|i1": "b",
    "|u1": "B",
}


def _float(content: Any) -> str:
    return content if content in ("nan", "inf", "-inf") else ""


def _bytes(content: Any) -> str:
    if type(content) is not str or len(content) <= MOST_BASE64:
        return ""
    return f"<{bytes_text(len(content) * 3 // 4)} of bytes>"


def _items(before: str, after: str) -> Callable[[Any], str]:
    def text(content: Any) -> str:
        return f"{before}{', '.join(map(result_text, content))}{after}" if type(content) is list else ""

    return text


def _tuple(content: Any) -> str:
    one = type(content) is list and len(content) == 1
    return _items("(", ",)" if one else ")")(content)


def _pairs(content: Any) -> str:
    if type(content) is not list or not all(type(pair) is list and len(pair) == 2 for pair in content):
        return ""
    return "{" + ", ".join(f"{result_text(key)}: {result_text(value)}" for key, value in content) + "}"


def _second(content: Any) -> str:
    """Return the items of a tagged defaultdict, `[FACTORY, PAIRS]`, as text."""
    return _pairs(content[1]) if type(content) is list and len(content) == 2 else ""


def _plain(content: Any) -> str:
    return content if type(content) is str else ""


def _object(content: Any) -> str:
    if type(content) is not dict or type(content.get("fields")) is not dict:
        return ""
    fields = ", ".join(f"{name}={result_text(value)}" for name, value in content["fields"].items())
    return f"{_last_name(content.get('class'))}({fields})"


def _enum(content: Any) -> str:
    return f"{_last_name(content[0])}.{content[1]}" if type(content) is list and len(content) == 2 else ""


def _last_name(name: Any) -> str:
    return str(name).rpartition(":")[2]


_TEXTS = {
    "$tuple": _tuple,
    "$set": _items("{", "}"),
    "$frozenset": _items("frozenset({", "})"),
    "$dict": _pairs,
    "$counter": _pairs,
    "$ordered_dict": _pairs,
    "$defaultdict": _second,
    "$object": _object,
    "$enum": _enum,
    **dict.fromkeys(("$date", "$datetime", "$time", "$path", "$uuid", "$decimal"), _plain),
    "$float": _float,
    "$numpy": _scalar,
    "$stored": _stored,
    "$ndarray": _array,
    "$bytes": _bytes,
    "$bytearray": _bytes,
}
