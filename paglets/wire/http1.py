"""Conventions of both ends of a connection beyond HTTP/1.1: sizes and content types."""

from __future__ import annotations

MOST_HEAD_BYTES = 16 << 10
"""Bound of a request line or status line with its header fields."""

CHUNK_BYTES = 64 << 10
"""Bytes of a body that are copied at once."""

JSON_TYPE = "application/json"
BYTES_TYPE = "application/octet-stream"
