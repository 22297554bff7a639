"""The public import path of `PagletProxy`."""

from __future__ import annotations

from paglets.remote.proxy import PagletProxy

__all__ = ["PagletProxy"]
