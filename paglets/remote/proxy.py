"""The public import path of `PagletProxy`."""

from __future__ import annotations

from paglets.client.proxy import PagletProxy

__all__ = ["PagletProxy"]
