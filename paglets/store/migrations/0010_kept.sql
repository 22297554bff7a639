-- Adds kept scratch directories of attempts whose result could not be sent.
CREATE TABLE kept_scratch (
  agent_id TEXT PRIMARY KEY,
  generation INTEGER NOT NULL,
  attempt INTEGER NOT NULL,
  path TEXT NOT NULL,
  kept_at REAL NOT NULL,
  removed_at REAL
) STRICT, WITHOUT ROWID;
CREATE INDEX kept_scratch_there ON kept_scratch (kept_at) WHERE removed_at IS NULL;
CREATE INDEX kept_scratch_gone ON kept_scratch (removed_at) WHERE removed_at IS NOT NULL;
