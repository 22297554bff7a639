"""Artifacts: files that paglets publish. An artifact is a blob with a name and an owner."""

from __future__ import annotations

from paglets.core.refs import ArtifactRef

__all__ = ["ArtifactRef"]
