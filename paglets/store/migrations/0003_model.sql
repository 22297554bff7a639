-- Adds clones, rest, services, priorities of messages, and notes for users.

DROP INDEX paglets_hook;
ALTER TABLE paglets ADD COLUMN next_hook TEXT
  CHECK (next_hook IN ('creation', 'clone', 'arrival', 'run', 'dispatching', 'disposing'));
UPDATE paglets SET next_hook = hook;
ALTER TABLE paglets DROP COLUMN hook;
ALTER TABLE paglets RENAME COLUMN next_hook TO hook;
CREATE INDEX paglets_hook ON paglets (hook) WHERE hook IS NOT NULL;

ALTER TABLE paglets ADD COLUMN service TEXT NOT NULL DEFAULT '';
ALTER TABLE paglets ADD COLUMN inactive INTEGER NOT NULL DEFAULT 0 CHECK (inactive IN (0, 1));
ALTER TABLE paglets ADD COLUMN wakes_at REAL;
CREATE INDEX paglets_service ON paglets (service) WHERE service != '';
CREATE INDEX paglets_wakes ON paglets (wakes_at) WHERE wakes_at IS NOT NULL;

ALTER TABLE inbox ADD COLUMN priority INTEGER NOT NULL DEFAULT 0 CHECK (priority BETWEEN -10 AND 10);
DROP INDEX inbox_waiting;
CREATE INDEX inbox_waiting ON inbox (agent_id, priority DESC, seq) WHERE status = 'waiting';

CREATE TABLE notes (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  group_id TEXT,
  note TEXT NOT NULL,
  size_bytes INTEGER NOT NULL
) STRICT;
CREATE INDEX notes_group ON notes (group_id, id) WHERE group_id IS NOT NULL;
