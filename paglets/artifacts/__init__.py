"""Artifacts: files that hosts store. An artifact is a blob with a name, an id and an owner."""

from __future__ import annotations

from paglets.core.refs import ArtifactRef

__all__ = ["ArtifactRef"]
