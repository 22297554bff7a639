"""The public import path of `HostClient`."""

from __future__ import annotations

from paglets.client.host_client import HostClient

__all__ = ["HostClient"]
