-- Moves each value that may be large to its own table with a rowid.

CREATE TABLE paglet_states (
  agent_id TEXT PRIMARY KEY REFERENCES paglets (agent_id) ON DELETE CASCADE,
  state TEXT NOT NULL
) STRICT;
INSERT INTO paglet_states SELECT agent_id, state FROM paglets;
ALTER TABLE paglets DROP COLUMN state;

ALTER TABLE storage RENAME TO storage_before;
CREATE TABLE storage (
  agent_id TEXT NOT NULL REFERENCES paglets (agent_id) ON DELETE CASCADE,
  key TEXT NOT NULL CHECK (length(key) BETWEEN 1 AND 512),
  value TEXT NOT NULL,
  PRIMARY KEY (agent_id, key)
) STRICT;
INSERT INTO storage SELECT agent_id, key, value FROM storage_before;
DROP TABLE storage_before;

CREATE TABLE handoff_envelopes (
  agent_id TEXT PRIMARY KEY REFERENCES handoffs (agent_id) ON DELETE CASCADE,
  envelope TEXT NOT NULL
) STRICT;
INSERT INTO handoff_envelopes SELECT agent_id, envelope FROM handoffs;
ALTER TABLE handoffs ADD COLUMN name TEXT;
ALTER TABLE handoffs ADD COLUMN size_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE handoffs ADD COLUMN asked_for INTEGER NOT NULL DEFAULT 0 CHECK (asked_for IN (0, 1));
ALTER TABLE handoffs ADD COLUMN collector TEXT;
ALTER TABLE handoffs ADD COLUMN ended INTEGER NOT NULL DEFAULT 0 CHECK (ended IN (0, 1));
ALTER TABLE handoffs ADD COLUMN summary TEXT NOT NULL DEFAULT '{}';
UPDATE handoffs SET
  name = json_extract(envelope, '$.name'),
  size_bytes = length(CAST(envelope AS BLOB)),
  asked_for = json_extract(envelope, '$.hook') IS 'arrival',
  collector = envelope -> '$.job.collector',
  ended = json_extract(envelope, '$.job.outcome') IS NOT NULL,
  summary = CASE kind
    WHEN 'job' THEN json_object(
      'generation', envelope -> '$.job.generation', 'attempt', envelope -> '$.job.attempt',
      'status', envelope -> '$.job.status', 'request', envelope -> '$.job.request',
      'waited_seconds', envelope -> '$.job.waited_seconds')
    WHEN 'collector' THEN json_object(
      'class_name', envelope -> '$.class_name', 'home', envelope -> '$.home',
      'state', envelope -> '$.state', 'created_at', envelope -> '$.created_at')
    ELSE '{}' END;
UPDATE handoffs SET collector = NULL WHERE collector = 'null';
ALTER TABLE handoffs DROP COLUMN envelope;
CREATE INDEX handoffs_problem ON handoffs (target_store, kind = 'job', problem);
CREATE INDEX handoffs_collectors ON handoffs (agent_id) WHERE kind = 'collector';
CREATE INDEX handoffs_name ON handoffs (name) WHERE name IS NOT NULL;

CREATE TABLE outbox_messages (
  n INTEGER PRIMARY KEY REFERENCES outbox (n) ON DELETE CASCADE,
  message TEXT NOT NULL
) STRICT;
INSERT INTO outbox_messages SELECT n, message FROM outbox;
ALTER TABLE outbox DROP COLUMN message;
CREATE INDEX outbox_problem ON outbox (host_store, problem);
CREATE INDEX outbox_waiting ON outbox (report_of) WHERE report_of IS NOT NULL AND problem != '';

CREATE TABLE job_states (
  agent_id TEXT PRIMARY KEY REFERENCES requests (agent_id) ON DELETE CASCADE,
  outcome TEXT,
  checkpoint TEXT,
  submitted_state TEXT NOT NULL
) STRICT;
INSERT INTO job_states SELECT agent_id, outcome, checkpoint, submitted_state FROM requests;
ALTER TABLE requests DROP COLUMN submitted_state;
ALTER TABLE requests DROP COLUMN checkpoint;
ALTER TABLE requests DROP COLUMN outcome;
DROP INDEX requests_queue;
CREATE INDEX requests_queue ON requests (status, queued_at, agent_id, group_id);
DROP INDEX requests_group;
CREATE INDEX requests_group ON requests (group_id, status);

CREATE TABLE group_jobs (
  group_id TEXT PRIMARY KEY REFERENCES groups (group_id) ON DELETE CASCADE,
  job_keys TEXT NOT NULL,
  creation_errors TEXT NOT NULL,
  warnings TEXT NOT NULL
) STRICT;
INSERT INTO group_jobs SELECT group_id, job_keys, creation_errors, warnings FROM groups;
CREATE TABLE group_specs (
  group_id TEXT PRIMARY KEY REFERENCES groups (group_id) ON DELETE CASCADE,
  spec TEXT NOT NULL
) STRICT;
INSERT INTO group_specs SELECT group_id, spec FROM groups WHERE spec IS NOT NULL;
ALTER TABLE groups ADD COLUMN job_count INTEGER NOT NULL DEFAULT 0;
UPDATE groups SET job_count = json_array_length(job_keys);
ALTER TABLE groups DROP COLUMN job_keys;
ALTER TABLE groups DROP COLUMN creation_errors;
ALTER TABLE groups DROP COLUMN warnings;
ALTER TABLE groups DROP COLUMN spec;
CREATE INDEX groups_collector ON groups (collector_id);
CREATE INDEX groups_open ON groups (group_id) WHERE detached = 0;
