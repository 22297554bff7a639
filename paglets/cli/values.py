"""Results of jobs in words: what is plain as it is, large and tagged values by what they are and how large."""

from __future__ import annotations

import json
from typing import Any

from paglets.slots.amounts import bytes_text

MOST_BASE64 = 40
"""Characters of bytes that are shown as they are."""


def result_text(tree: Any) -> str:
    """Return tagged JSON for people to read: `{"mean": 0.5, "grid": <float64 array, 512 x 512>}`."""
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
    return f"<{content.get('dtype')} array, {' x '.join(map(str, content['shape'])) or 'one value'}>"


def _bytes(content: Any) -> str:
    if type(content) is not str or len(content) <= MOST_BASE64:
        return ""
    return f"<{bytes_text(len(content) * 3 // 4)} of bytes>"


_TEXTS = {"$stored": _stored, "$ndarray": _array, "$bytes": _bytes, "$bytearray": _bytes}
