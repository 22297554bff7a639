"""Files that paglets publish: named blobs with an owner."""

from __future__ import annotations

from paglets.core.refs import ArtifactRef

__all__ = ["ArtifactRef"]
