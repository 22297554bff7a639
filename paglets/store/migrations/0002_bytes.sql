-- Adds blobs, files, artifacts and bundles, and the references to blobs.

ALTER TABLE residence ADD COLUMN stale_scratch INTEGER NOT NULL DEFAULT 0 CHECK (stale_scratch IN (0, 1));
ALTER TABLE paglets ADD COLUMN bundle TEXT REFERENCES blobs (sha256);
ALTER TABLE paglets ADD COLUMN bundle_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE paglets ADD COLUMN problem TEXT NOT NULL DEFAULT '';
CREATE INDEX paglets_bundle ON paglets (bundle) WHERE bundle IS NOT NULL;
ALTER TABLE handoffs ADD COLUMN bundle TEXT REFERENCES blobs (sha256);
CREATE INDEX handoffs_bundle ON handoffs (bundle) WHERE bundle IS NOT NULL;

CREATE TABLE blobs (
  sha256 TEXT PRIMARY KEY,
  size_bytes INTEGER NOT NULL CHECK (size_bytes >= 0),
  taken_at REAL NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE files (
  agent_id TEXT NOT NULL,
  name TEXT NOT NULL,
  sha256 TEXT NOT NULL REFERENCES blobs (sha256),
  size_bytes INTEGER NOT NULL,
  mode TEXT NOT NULL CHECK (mode IN ('copy', 'move')),
  attempt INTEGER NOT NULL DEFAULT 0,
  source_path TEXT,
  source_mtime_ns INTEGER,
  source_inode INTEGER,
  PRIMARY KEY (agent_id, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX files_blob ON files (sha256);

CREATE TABLE removals (
  id INTEGER PRIMARY KEY,
  path TEXT NOT NULL,
  size_bytes INTEGER NOT NULL,
  mtime_ns INTEGER NOT NULL,
  inode INTEGER NOT NULL
) STRICT;

CREATE TABLE artifacts (
  artifact_id TEXT PRIMARY KEY,
  owner TEXT NOT NULL,
  name TEXT NOT NULL,
  sha256 TEXT NOT NULL REFERENCES blobs (sha256),
  size_bytes INTEGER NOT NULL,
  created_at REAL NOT NULL,
  expires_at REAL
) STRICT, WITHOUT ROWID;
CREATE INDEX artifacts_owner ON artifacts (owner, artifact_id);
CREATE INDEX artifacts_blob ON artifacts (sha256);
CREATE INDEX artifacts_end ON artifacts (expires_at) WHERE expires_at IS NOT NULL;

CREATE TABLE outbox_blobs (
  n INTEGER NOT NULL REFERENCES outbox (n) ON DELETE CASCADE,
  sha256 TEXT NOT NULL REFERENCES blobs (sha256),
  PRIMARY KEY (n, sha256)
) STRICT, WITHOUT ROWID;
CREATE INDEX outbox_blobs_blob ON outbox_blobs (sha256);

CREATE TABLE group_blobs (
  group_id TEXT NOT NULL REFERENCES groups (group_id) ON DELETE CASCADE,
  sha256 TEXT NOT NULL REFERENCES blobs (sha256),
  PRIMARY KEY (group_id, sha256)
) STRICT, WITHOUT ROWID;
CREATE INDEX group_blobs_blob ON group_blobs (sha256);

CREATE VIEW blob_refs (sha256) AS
  SELECT sha256 FROM artifacts UNION ALL
  SELECT sha256 FROM files UNION ALL
  SELECT bundle FROM paglets WHERE bundle IS NOT NULL UNION ALL
  SELECT bundle FROM handoffs WHERE bundle IS NOT NULL UNION ALL
  SELECT sha256 FROM outbox_blobs UNION ALL
  SELECT sha256 FROM group_blobs;
