-- Adds an index of artifacts in waiting reports, and cleared group ids, which can be reused.

CREATE TABLE outbox_artifacts (
  artifact_id TEXT NOT NULL,
  n INTEGER NOT NULL REFERENCES outbox (n) ON DELETE CASCADE,
  PRIMARY KEY (artifact_id, n)
) STRICT, WITHOUT ROWID;
CREATE INDEX outbox_artifacts_post ON outbox_artifacts (n);
INSERT OR IGNORE INTO outbox_artifacts (artifact_id, n)
  SELECT json_extract(carried.value, '$.artifact_id'), m.n FROM outbox_blobs JOIN outbox_messages m USING (n),
  json_each(m.message, '$.artifacts') AS carried;

CREATE TABLE cleared_groups (
  group_id TEXT PRIMARY KEY,
  submissions INTEGER NOT NULL CHECK (submissions >= 1),
  epoch INTEGER NOT NULL,
  host TEXT NOT NULL,
  cleared_at REAL NOT NULL
) STRICT, WITHOUT ROWID;
