"""Sizes and content types that clients and servers use in addition to the rules of HTTP/1.1."""

from __future__ import annotations

MOST_HEAD_BYTES = 16 << 10
"""Maximum size of a request line or status line together with the header fields."""

CHUNK_BYTES = 64 << 10
"""Number of bytes of a body that are read or copied at once."""

JSON_TYPE = "application/json"
BYTES_TYPE = "application/octet-stream"
