-- Adds files of finished jobs that no hook took, and jobs that are kept because a hook failed.

ALTER TABLE files ADD COLUMN registered INTEGER NOT NULL DEFAULT 0 CHECK (registered IN (0, 1));
UPDATE files SET registered = 1 WHERE source_path IS NOT NULL OR attempt > 0;
ALTER TABLE artifacts ADD COLUMN group_id TEXT;
ALTER TABLE artifacts ADD COLUMN job_key TEXT;
CREATE INDEX artifacts_group ON artifacts (group_id, job_key) WHERE group_id IS NOT NULL;
CREATE TABLE failed_hooks (
  agent_id TEXT PRIMARY KEY REFERENCES paglets (agent_id) ON DELETE CASCADE,
  hook TEXT NOT NULL,
  error TEXT NOT NULL,
  traceback TEXT NOT NULL,
  failed_at REAL NOT NULL,
  intent TEXT
) STRICT;
