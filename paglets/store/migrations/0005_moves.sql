-- Adds the rollback of hand-offs, and fences for a removed host that comes back.

ALTER TABLE handoffs ADD COLUMN recall TEXT NOT NULL DEFAULT '' CHECK (recall IN ('', 'unwanted', 'dispose'));
CREATE INDEX handoffs_recall ON handoffs (agent_id) WHERE recall != '';

CREATE TABLE fences (
  agent_id TEXT NOT NULL,
  target_store TEXT NOT NULL,
  epoch INTEGER NOT NULL,
  target TEXT NOT NULL,
  PRIMARY KEY (agent_id, target_store)
) STRICT, WITHOUT ROWID;
