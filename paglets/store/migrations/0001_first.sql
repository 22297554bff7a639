-- The first schema. The later migrations change it to schema.sql, whose comments describe the tables.

CREATE TABLE migrations (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL,
  applied_at REAL NOT NULL
) STRICT;

CREATE TABLE meta (
  key TEXT PRIMARY KEY,
  value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE residence (
  agent_id TEXT PRIMARY KEY,
  epoch INTEGER NOT NULL CHECK (epoch >= 1),
  status TEXT NOT NULL CHECK (status IN ('here', 'leaving', 'gone', 'refused', 'disposed')),
  peer TEXT,
  reason TEXT NOT NULL DEFAULT '',
  settled INTEGER NOT NULL CHECK (settled IN (0, 1)),
  told INTEGER NOT NULL DEFAULT 1 CHECK (told IN (0, 1)),
  since_at REAL NOT NULL,
  CHECK (status NOT IN ('leaving', 'gone') OR peer IS NOT NULL)
) STRICT, WITHOUT ROWID;
CREATE INDEX residence_untold ON residence (agent_id) WHERE told = 0;

CREATE TABLE paglets (
  agent_id TEXT PRIMARY KEY REFERENCES residence (agent_id),
  class_name TEXT NOT NULL,
  kind TEXT NOT NULL CHECK (kind IN ('paglet', 'job', 'collector')),
  name TEXT UNIQUE,
  state TEXT NOT NULL,
  home TEXT NOT NULL,
  hook TEXT CHECK (hook IN ('creation', 'arrival', 'run', 'dispatching', 'disposing')),
  hook_error TEXT,
  intent TEXT,
  version INTEGER NOT NULL DEFAULT 1,
  created_at REAL NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX paglets_hook ON paglets (hook) WHERE hook IS NOT NULL;
CREATE INDEX paglets_intent ON paglets (agent_id) WHERE intent IS NOT NULL;

CREATE TABLE storage (
  agent_id TEXT NOT NULL REFERENCES paglets (agent_id) ON DELETE CASCADE,
  key TEXT NOT NULL CHECK (length(key) BETWEEN 1 AND 512),
  value TEXT NOT NULL,
  PRIMARY KEY (agent_id, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE handoffs (
  agent_id TEXT PRIMARY KEY REFERENCES residence (agent_id),
  epoch INTEGER NOT NULL,
  target_store TEXT NOT NULL,
  target TEXT NOT NULL,
  envelope TEXT NOT NULL,
  kind TEXT NOT NULL,
  group_id TEXT,
  job_key TEXT NOT NULL DEFAULT '',
  began_at REAL NOT NULL,
  problem TEXT NOT NULL DEFAULT ''
) STRICT, WITHOUT ROWID;
CREATE INDEX handoffs_target ON handoffs (target_store, began_at, agent_id);
CREATE INDEX handoffs_group ON handoffs (group_id) WHERE group_id IS NOT NULL;

CREATE TABLE inbox (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  agent_id TEXT NOT NULL REFERENCES paglets (agent_id) ON DELETE CASCADE,
  sender_store TEXT NOT NULL,
  n INTEGER NOT NULL,
  message TEXT NOT NULL,
  status TEXT NOT NULL DEFAULT 'waiting' CHECK (status IN ('waiting', 'dead')),
  tries INTEGER NOT NULL DEFAULT 0,
  error TEXT NOT NULL DEFAULT '',
  UNIQUE (agent_id, sender_store, n)
) STRICT;
CREATE INDEX inbox_waiting ON inbox (agent_id, seq) WHERE status = 'waiting';

CREATE TABLE taken (
  agent_id TEXT NOT NULL,
  sender_store TEXT NOT NULL,
  n INTEGER NOT NULL,
  PRIMARY KEY (agent_id, sender_store, n)
) STRICT, WITHOUT ROWID;
CREATE TABLE taken_marks (
  agent_id TEXT NOT NULL,
  sender_store TEXT NOT NULL,
  settled_below INTEGER NOT NULL,
  PRIMARY KEY (agent_id, sender_store)
) STRICT, WITHOUT ROWID;

CREATE TABLE outbox (
  n INTEGER PRIMARY KEY AUTOINCREMENT,
  agent_id TEXT NOT NULL,
  host TEXT NOT NULL,
  host_store TEXT NOT NULL,
  message TEXT NOT NULL,
  group_id TEXT,
  report_of TEXT,
  problem TEXT NOT NULL DEFAULT '',
  created_at REAL NOT NULL
) STRICT;
CREATE INDEX outbox_host ON outbox (host_store, n);
CREATE INDEX outbox_agent ON outbox (agent_id, n);
CREATE INDEX outbox_report ON outbox (report_of) WHERE report_of IS NOT NULL;
CREATE INDEX outbox_group ON outbox (group_id) WHERE group_id IS NOT NULL;

CREATE TABLE requests (
  agent_id TEXT PRIMARY KEY REFERENCES paglets (agent_id) ON DELETE CASCADE,
  group_id TEXT,
  job_key TEXT NOT NULL,
  collector TEXT,
  generation INTEGER NOT NULL CHECK (generation >= 1),
  attempt INTEGER NOT NULL DEFAULT 0 CHECK (attempt >= 0),
  status TEXT NOT NULL CHECK (status IN
    ('PLACING', 'WAITING_FOR_SLOT', 'RUNNING', 'COMPLETED', 'FAILED_FINAL', 'CANCELLED')),
  request TEXT NOT NULL,
  cpu_cores INTEGER NOT NULL,
  submitted_state TEXT NOT NULL,
  checkpoint TEXT,
  outcome TEXT,
  failed_attempts INTEGER NOT NULL DEFAULT 0,
  losses INTEGER NOT NULL DEFAULT 0,
  queued_at REAL NOT NULL,
  here_at REAL NOT NULL,
  stolen INTEGER NOT NULL DEFAULT 0 CHECK (stolen IN (0, 1)),
  unwanted TEXT,
  reason TEXT NOT NULL DEFAULT '',
  reason_text TEXT NOT NULL DEFAULT '',
  never INTEGER NOT NULL DEFAULT 0,
  reason_at REAL NOT NULL,
  UNIQUE (group_id, job_key, generation)
) STRICT, WITHOUT ROWID;
CREATE INDEX requests_queue ON requests (status, queued_at, agent_id);
CREATE INDEX requests_untold ON requests (agent_id) WHERE status = 'WAITING_FOR_SLOT' AND reason = '';
CREATE INDEX requests_group ON requests (group_id);

CREATE TABLE leases (
  agent_id TEXT PRIMARY KEY REFERENCES requests (agent_id),
  generation INTEGER NOT NULL,
  attempt INTEGER NOT NULL,
  memory_bytes INTEGER NOT NULL,
  temp_storage_bytes INTEGER NOT NULL,
  granted_at REAL NOT NULL,
  UNIQUE (agent_id, generation, attempt)
) STRICT, WITHOUT ROWID;
CREATE TABLE lease_units (
  kind TEXT NOT NULL CHECK (kind IN ('core', 'gpu')),
  unit INTEGER NOT NULL,
  agent_id TEXT NOT NULL REFERENCES leases (agent_id) ON DELETE CASCADE,
  PRIMARY KEY (kind, unit)
) STRICT, WITHOUT ROWID;
CREATE INDEX lease_units_agent ON lease_units (agent_id);

CREATE TABLE runs (
  agent_id TEXT PRIMARY KEY,
  token TEXT NOT NULL UNIQUE,
  entry TEXT NOT NULL,
  epoch INTEGER NOT NULL,
  generation INTEGER NOT NULL,
  attempt INTEGER NOT NULL,
  pid INTEGER,
  start_time REAL,
  usage TEXT,
  started_at REAL NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE history (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  agent_id TEXT NOT NULL,
  group_id TEXT,
  job_key TEXT NOT NULL,
  record TEXT NOT NULL,
  ended_at REAL NOT NULL
) STRICT;
CREATE INDEX history_group ON history (group_id, job_key);

CREATE TABLE groups (
  group_id TEXT PRIMARY KEY,
  digest TEXT NOT NULL,
  class_name TEXT NOT NULL,
  collector_id TEXT NOT NULL,
  collector TEXT NOT NULL,
  collector_host TEXT,
  return_home INTEGER NOT NULL,
  job_keys TEXT NOT NULL,
  creation_errors TEXT NOT NULL,
  warnings TEXT NOT NULL DEFAULT '[]',
  spec TEXT,
  detached INTEGER NOT NULL DEFAULT 0,
  detached_reason TEXT NOT NULL DEFAULT '',
  seen TEXT,
  created_at REAL NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE members (
  store_id TEXT PRIMARY KEY,
  name TEXT NOT NULL,
  row TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE peers (
  url TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;

CREATE TABLE client_posts (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  token TEXT NOT NULL UNIQUE
) STRICT;

CREATE TABLE events (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  at REAL NOT NULL,
  kind TEXT NOT NULL,
  subject TEXT NOT NULL,
  text TEXT NOT NULL
) STRICT;
