-- The database of one host. The comment of each status column lists its transitions; CHECKs and unique indexes make
-- illegal states impossible. Times named *_at are epoch seconds for display; no decision depends on them.
-- The comment of a table names its columns that contain JSON.
-- A value that may be large (a state, an envelope, a message, the jobs of a group) is in its own table with a rowid:
-- SQLite compares a key of a WITHOUT ROWID table by reading the whole row, and rewrites a whole row to change one
-- column.

CREATE TABLE migrations (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL,
  applied_at REAL NOT NULL
) STRICT;

CREATE TABLE meta (
  key TEXT PRIMARY KEY,
  value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- A row for each paglet that this host ever had or refused.
--   here      -> leaving (a hand-off starts), disposed
--   leaving   -> gone (the target accepted it), here (the target refused it: epoch + 1; rolled back from a removed
--                host: a much higher epoch), disposed (a cancelled job, epoch + 1)
--   gone, refused, disposed -> here (an envelope of a higher epoch arrives)
-- peer: JSON of HostRef. leaving, gone, disposed while leaving: the target; here, refused: the source.
-- settled: the source of the paglet has acknowledged that it will not send this epoch again.
-- told: the target has this host's acknowledgement of the same, or needs none.
-- A row that is neither 'here' nor 'leaving' is deleted after 30 days if both are 1.
-- stale_scratch: 1 if the scratch directory is from an earlier stay of the paglet. It becomes 0 when code runs in it.
CREATE TABLE residence (
  agent_id TEXT PRIMARY KEY,
  epoch INTEGER NOT NULL CHECK (epoch >= 1),
  status TEXT NOT NULL CHECK (status IN ('here', 'leaving', 'gone', 'refused', 'disposed')),
  peer TEXT,
  reason TEXT NOT NULL DEFAULT '',
  settled INTEGER NOT NULL CHECK (settled IN (0, 1)),
  told INTEGER NOT NULL DEFAULT 1 CHECK (told IN (0, 1)),
  since_at REAL NOT NULL,
  stale_scratch INTEGER NOT NULL DEFAULT 0 CHECK (stale_scratch IN (0, 1)),
  CHECK (status NOT IN ('leaving', 'gone') OR peer IS NOT NULL)
) STRICT, WITHOUT ROWID;
CREATE INDEX residence_untold ON residence (agent_id) WHERE told = 0;

-- The paglets that are here (status 'here' in residence). The state is in paglet_states.
-- home: JSON of HostRef. hook: the next hook to run; NULL: none.
--   creation, clone, arrival -> run -> NULL;  dispatching -> NULL with intent 'move';  disposing -> row deleted
-- inactive: 1 if the paglet is inactive. A message or the time wakes_at (NULL: no time) starts on_activation. When that
--   has returned, the paglet is active, and `run` follows. wakes_at is a wall-clock time, which survives a restart.
-- service: the service that the paglet offers to the mesh; '': none.
-- bundle: the blob of its code, bundle_bytes long.
-- problem: why a requested move does not start, or was dropped, as text.
-- launcher_deaths: how many times in a row a zygote died while code of the paglet ran.
-- intent: JSON of the requested action: {"move": HostRef}, {"dispose": true}, {"rest": SECONDS or null}. Further keys:
--   "begun": on_dispatching or on_disposing runs for it; "ready": that hook has run; "then": the hook that was due
--   before.
CREATE TABLE paglets (
  agent_id TEXT PRIMARY KEY REFERENCES residence (agent_id),
  class_name TEXT NOT NULL,
  kind TEXT NOT NULL CHECK (kind IN ('paglet', 'job', 'collector')),
  name TEXT UNIQUE,
  home TEXT NOT NULL,
  hook_error TEXT,
  intent TEXT,
  version INTEGER NOT NULL DEFAULT 1,
  created_at REAL NOT NULL,
  bundle TEXT REFERENCES blobs (sha256),
  bundle_bytes INTEGER NOT NULL DEFAULT 0,
  problem TEXT NOT NULL DEFAULT '',
  hook TEXT CHECK (hook IN ('creation', 'clone', 'arrival', 'run', 'dispatching', 'disposing')),
  service TEXT NOT NULL DEFAULT '',
  inactive INTEGER NOT NULL DEFAULT 0 CHECK (inactive IN (0, 1)),
  wakes_at REAL,
  launcher_deaths INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE INDEX paglets_service ON paglets (service) WHERE service != '';
CREATE INDEX paglets_wakes ON paglets (wakes_at) WHERE wakes_at IS NOT NULL;
CREATE INDEX paglets_bundle ON paglets (bundle) WHERE bundle IS NOT NULL;
CREATE INDEX paglets_hook ON paglets (agent_id) WHERE hook IS NOT NULL;
CREATE INDEX paglets_intent ON paglets (agent_id) WHERE intent IS NOT NULL;
CREATE INDEX paglets_collectors ON paglets (agent_id) WHERE kind = 'collector';

-- The states of the paglets that are here. state: JSON.
CREATE TABLE paglet_states (
  agent_id TEXT PRIMARY KEY REFERENCES paglets (agent_id) ON DELETE CASCADE,
  state TEXT NOT NULL
) STRICT;

-- The durable storage of each paglet. value: tagged JSON.
CREATE TABLE storage (
  agent_id TEXT NOT NULL REFERENCES paglets (agent_id) ON DELETE CASCADE,
  key TEXT NOT NULL CHECK (length(key) BETWEEN 1 AND 512),
  value TEXT NOT NULL,
  PRIMARY KEY (agent_id, key)
) STRICT;

-- Hand-offs without an answer: a row exists exactly while the residence row is 'leaving'. The envelope is in
-- handoff_envelopes. It contains the paglet, which has no row in paglets.
-- target: JSON of HostRef. name: the name of the paglet, if it has one. size_bytes: the size of the envelope's JSON.
-- asked_for: 1 for a requested move, 0 for the move of a job to a slot.
-- collector: the collector of a job, JSON of ProxyRef; it replaces the collector in the envelope.
-- ended: the job has its outcome. summary: JSON for display (`store.handoffs`).
-- recall: a requested rollback; '': none. 'unwanted': cancel the job, which ends here; 'dispose': get the paglet back
--   and dispose of it.
CREATE TABLE handoffs (
  agent_id TEXT PRIMARY KEY REFERENCES residence (agent_id),
  epoch INTEGER NOT NULL,
  target_store TEXT NOT NULL,
  target TEXT NOT NULL,
  kind TEXT NOT NULL,
  group_id TEXT,
  job_key TEXT NOT NULL DEFAULT '',
  began_at REAL NOT NULL,
  problem TEXT NOT NULL DEFAULT '',
  bundle TEXT REFERENCES blobs (sha256),
  recall TEXT NOT NULL DEFAULT '' CHECK (recall IN ('', 'unwanted', 'dispose')),
  name TEXT,
  size_bytes INTEGER NOT NULL DEFAULT 0,
  asked_for INTEGER NOT NULL DEFAULT 0 CHECK (asked_for IN (0, 1)),
  collector TEXT,
  ended INTEGER NOT NULL DEFAULT 0 CHECK (ended IN (0, 1)),
  summary TEXT NOT NULL DEFAULT '{}'
) STRICT, WITHOUT ROWID;
CREATE INDEX handoffs_bundle ON handoffs (bundle) WHERE bundle IS NOT NULL;
CREATE INDEX handoffs_target ON handoffs (target_store, began_at, agent_id);
CREATE INDEX handoffs_group ON handoffs (group_id) WHERE group_id IS NOT NULL;
CREATE INDEX handoffs_recall ON handoffs (agent_id) WHERE recall != '';
CREATE INDEX handoffs_problem ON handoffs (target_store, kind = 'job', problem);
CREATE INDEX handoffs_collectors ON handoffs (agent_id) WHERE kind = 'collector';
CREATE INDEX handoffs_name ON handoffs (name) WHERE name IS NOT NULL;

-- The envelopes of hand-offs. envelope: JSON.
CREATE TABLE handoff_envelopes (
  agent_id TEXT PRIMARY KEY REFERENCES handoffs (agent_id) ON DELETE CASCADE,
  envelope TEXT NOT NULL
) STRICT;

-- Paglets whose hand-off to a removed host was rolled back. The target, that host or a further one, may still have the
-- paglet. When it is online, it is informed of the newer `epoch`. target: JSON of HostRef.
CREATE TABLE fences (
  agent_id TEXT NOT NULL,
  target_store TEXT NOT NULL,
  epoch INTEGER NOT NULL,
  target TEXT NOT NULL,
  PRIMARY KEY (agent_id, target_store)
) STRICT, WITHOUT ROWID;

-- Posts that were accepted and not handled yet. message: JSON of WireMessage.
--   waiting -> deleted with the commit of its handler; waiting -> dead after 5 errors of the handler
CREATE TABLE inbox (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  agent_id TEXT NOT NULL REFERENCES paglets (agent_id) ON DELETE CASCADE,
  sender_store TEXT NOT NULL,
  n INTEGER NOT NULL,
  message TEXT NOT NULL,
  status TEXT NOT NULL DEFAULT 'waiting' CHECK (status IN ('waiting', 'dead')),
  tries INTEGER NOT NULL DEFAULT 0,
  error TEXT NOT NULL DEFAULT '',
  priority INTEGER NOT NULL DEFAULT 0 CHECK (priority BETWEEN -10 AND 10),
  UNIQUE (agent_id, sender_store, n)
) STRICT;
CREATE INDEX inbox_waiting ON inbox (agent_id, priority DESC, seq) WHERE status = 'waiting';

-- Numbers of accepted posts from the sender's mark on, and the marks: all posts below a mark are acknowledged.
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

-- Posts of this host that are not acknowledged yet. The message is in outbox_messages. n: the post's number, which only
-- grows. host: JSON of HostRef, a hint. report_of: the local job copy whose outcome this post carries.
CREATE TABLE outbox (
  n INTEGER PRIMARY KEY AUTOINCREMENT,
  agent_id TEXT NOT NULL,
  host TEXT NOT NULL,
  host_store TEXT NOT NULL,
  group_id TEXT,
  report_of TEXT,
  problem TEXT NOT NULL DEFAULT '',
  created_at REAL NOT NULL
) STRICT;
CREATE INDEX outbox_host ON outbox (host_store, n);
CREATE INDEX outbox_agent ON outbox (agent_id, n);
CREATE INDEX outbox_report ON outbox (report_of) WHERE report_of IS NOT NULL;
CREATE INDEX outbox_group ON outbox (group_id) WHERE group_id IS NOT NULL;
CREATE INDEX outbox_problem ON outbox (host_store, problem);
CREATE INDEX outbox_waiting ON outbox (report_of) WHERE report_of IS NOT NULL AND problem != '';

-- The messages of the posts in the outbox. message: JSON of WireMessage.
CREATE TABLE outbox_messages (
  n INTEGER PRIMARY KEY REFERENCES outbox (n) ON DELETE CASCADE,
  message TEXT NOT NULL
) STRICT;

-- Complete blobs, hashed and synced before their row is inserted. A row without a reference (view blob_refs) and
-- without a pin is deleted, and then its file.
CREATE TABLE blobs (
  sha256 TEXT PRIMARY KEY,
  size_bytes INTEGER NOT NULL CHECK (size_bytes >= 0),
  taken_at REAL NOT NULL
) STRICT, WITHOUT ROWID;

-- Files that move with a paglet that is here or leaving. attempt: the attempt that registered the file; 0: an input,
-- or a file that belongs to a checkpoint.
-- source_*: the original of a file registered on this host. These columns do not move with the paglet.
-- registered: 1 if the paglet's own code registered the file, 0 for an input.
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
  registered INTEGER NOT NULL DEFAULT 0 CHECK (registered IN (0, 1)),
  PRIMARY KEY (agent_id, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX files_blob ON files (sha256);

-- Sources of files that have moved. Each is removed if it is unchanged since its registration.
CREATE TABLE removals (
  id INTEGER PRIMARY KEY,
  path TEXT NOT NULL,
  size_bytes INTEGER NOT NULL,
  mtime_ns INTEGER NOT NULL,
  inode INTEGER NOT NULL
) STRICT;

-- Artifacts: named blobs. owner: the paglet, here or leaving, with which it moves and ends; '': this host.
-- group_id, job_key: set for a file of a finished job that no hook took (store/jobfiles.py).
CREATE TABLE artifacts (
  artifact_id TEXT PRIMARY KEY,
  owner TEXT NOT NULL,
  name TEXT NOT NULL,
  sha256 TEXT NOT NULL REFERENCES blobs (sha256),
  size_bytes INTEGER NOT NULL,
  created_at REAL NOT NULL,
  expires_at REAL,
  group_id TEXT,
  job_key TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX artifacts_owner ON artifacts (owner, artifact_id);
CREATE INDEX artifacts_blob ON artifacts (sha256);
CREATE INDEX artifacts_end ON artifacts (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX artifacts_group ON artifacts (group_id, job_key) WHERE group_id IS NOT NULL;

-- Blobs of artifacts that a post carries; its message names them, too.
CREATE TABLE outbox_blobs (
  n INTEGER NOT NULL REFERENCES outbox (n) ON DELETE CASCADE,
  sha256 TEXT NOT NULL REFERENCES blobs (sha256),
  PRIMARY KEY (n, sha256)
) STRICT, WITHOUT ROWID;
CREATE INDEX outbox_blobs_blob ON outbox_blobs (sha256);

-- The artifacts that posts in the outbox carry, by id. An artifact is found here until its report is accepted.
CREATE TABLE outbox_artifacts (
  artifact_id TEXT NOT NULL,
  n INTEGER NOT NULL REFERENCES outbox (n) ON DELETE CASCADE,
  PRIMARY KEY (artifact_id, n)
) STRICT, WITHOUT ROWID;
CREATE INDEX outbox_artifacts_post ON outbox_artifacts (n);

-- Group ids that a user cleared after the loss of their collector, so that they can be reused.
-- submissions: how many groups had this id; the next one starts with `groups.keys.first_generation` of it.
-- epoch: the highest known epoch of their collectors. host: the host of the last lost collector, JSON of HostRef.
CREATE TABLE cleared_groups (
  group_id TEXT PRIMARY KEY,
  submissions INTEGER NOT NULL CHECK (submissions >= 1),
  epoch INTEGER NOT NULL,
  host TEXT NOT NULL,
  cleared_at REAL NOT NULL
) STRICT, WITHOUT ROWID;

-- Bundle and inputs of each group that has a row in group_specs.
CREATE TABLE group_blobs (
  group_id TEXT NOT NULL REFERENCES groups (group_id) ON DELETE CASCADE,
  sha256 TEXT NOT NULL REFERENCES blobs (sha256),
  PRIMARY KEY (group_id, sha256)
) STRICT, WITHOUT ROWID;
CREATE INDEX group_blobs_blob ON group_blobs (sha256);

-- All references that keep a blob.
CREATE VIEW blob_refs (sha256) AS
  SELECT sha256 FROM artifacts UNION ALL
  SELECT sha256 FROM files UNION ALL
  SELECT bundle FROM paglets WHERE bundle IS NOT NULL UNION ALL
  SELECT bundle FROM handoffs WHERE bundle IS NOT NULL UNION ALL
  SELECT sha256 FROM outbox_blobs UNION ALL
  SELECT sha256 FROM group_blobs;

-- The queue: a row for each compute job that is here. States and outcome are in job_states.
-- status: PLACING -> WAITING_FOR_SLOT -> RUNNING -> COMPLETED; each earlier one -> FAILED_FINAL, CANCELLED;
--         RUNNING -> WAITING_FOR_SLOT (lost or retried), PLACING (disk full);
--         WAITING_FOR_SLOT -> ASSIGNED (sent ahead to a warm worker) -> RUNNING, WAITING_FOR_SLOT (lost), CANCELLED.
--         Table: paglets.slots.states.
-- request: JSON of SlotRequest. collector: JSON of ProxyRef.
-- queued_at: the arrival time minus the time waited elsewhere; a refused hand-off does not change it.
-- here_at: the arrival time. disk_fulls: how many attempts failed on a full disk.
-- stolen: this host stole the job. unwanted: why the collector cancelled the job.
CREATE TABLE requests (
  agent_id TEXT PRIMARY KEY REFERENCES paglets (agent_id) ON DELETE CASCADE,
  group_id TEXT,
  job_key TEXT NOT NULL,
  collector TEXT,
  generation INTEGER NOT NULL CHECK (generation >= 1),
  attempt INTEGER NOT NULL DEFAULT 0 CHECK (attempt >= 0),
  request TEXT NOT NULL,
  cpu_cores INTEGER NOT NULL,
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
  disk_fulls INTEGER NOT NULL DEFAULT 0,
  status TEXT NOT NULL DEFAULT 'PLACING' CHECK (status IN
    ('PLACING', 'WAITING_FOR_SLOT', 'ASSIGNED', 'RUNNING', 'COMPLETED', 'FAILED_FINAL', 'CANCELLED')),
  UNIQUE (group_id, job_key, generation)
) STRICT, WITHOUT ROWID;
CREATE INDEX requests_queue ON requests (status, queued_at, agent_id, group_id);
CREATE INDEX requests_untold ON requests (agent_id) WHERE status = 'WAITING_FOR_SLOT' AND reason = '';
CREATE INDEX requests_group ON requests (group_id, status);

-- States and outcome of each job that is here. submitted_state, checkpoint, outcome: JSON.
-- outcome: of the newest attempt; never changed once it is set.
CREATE TABLE job_states (
  agent_id TEXT PRIMARY KEY REFERENCES requests (agent_id) ON DELETE CASCADE,
  outcome TEXT,
  checkpoint TEXT,
  submitted_state TEXT NOT NULL
) STRICT;

-- Finished jobs that are kept because a hook failed, for 30 days or until a rerun of the hook returns.
-- hook: the failed hook. intent: as in paglets, for the move or end that needed the hook; NULL: none.
CREATE TABLE failed_hooks (
  agent_id TEXT PRIMARY KEY REFERENCES paglets (agent_id) ON DELETE CASCADE,
  hook TEXT NOT NULL,
  error TEXT NOT NULL,
  traceback TEXT NOT NULL,
  failed_at REAL NOT NULL,
  intent TEXT
) STRICT;

-- A lease: held from the grant until the process tree of the attempt has ended.
CREATE TABLE leases (
  agent_id TEXT PRIMARY KEY REFERENCES requests (agent_id),
  generation INTEGER NOT NULL,
  attempt INTEGER NOT NULL,
  memory_bytes INTEGER NOT NULL,
  temp_storage_bytes INTEGER NOT NULL,
  granted_at REAL NOT NULL,
  UNIQUE (agent_id, generation, attempt)
) STRICT, WITHOUT ROWID;
-- One row for each leased core or GPU, so that none is leased twice.
CREATE TABLE lease_units (
  kind TEXT NOT NULL CHECK (kind IN ('core', 'gpu')),
  unit INTEGER NOT NULL,
  agent_id TEXT NOT NULL REFERENCES leases (agent_id) ON DELETE CASCADE,
  PRIMARY KEY (kind, unit)
) STRICT, WITHOUT ROWID;
CREATE INDEX lease_units_agent ON lease_units (agent_id);

-- Processes of paglets. The row is written before the launch, pid and start time before any user code runs.
-- entry: what the process runs, a hook, `run`, `attempt` or `message`.
-- line: the token of the first of the runs that a warm worker executes one after the other; '': the run is in no line.
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
  started_at REAL NOT NULL,
  line TEXT NOT NULL DEFAULT ''
) STRICT, WITHOUT ROWID;

-- Templates: processes that have imported the module of jobs, and fork their attempts. The row is written before the
-- import. token: as in the environment of the processes.
CREATE TABLE templates (
  token TEXT PRIMARY KEY,
  pid INTEGER NOT NULL,
  start_time REAL NOT NULL
) STRICT, WITHOUT ROWID;

-- Ended attempts, the newest 10,000, for display. record: JSON.
CREATE TABLE history (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  agent_id TEXT NOT NULL,
  group_id TEXT,
  job_key TEXT NOT NULL,
  record TEXT NOT NULL,
  ended_at REAL NOT NULL
) STRICT;
CREATE INDEX history_group ON history (group_id, job_key);

-- Groups submitted from this host. Their jobs are in group_jobs and group_specs.
-- digest: hash of class, keys and states. code: hash of the bundle; '': none. inputs: `groups.keys.inputs_digest`.
-- collector: JSON of ProxyRef, a hint. seen: JSON of the last known counts.
-- Jobs leave only when the collector is not 'leaving' here, except those of a small collector (store/handoffs.py).
CREATE TABLE groups (
  group_id TEXT PRIMARY KEY,
  digest TEXT NOT NULL,
  class_name TEXT NOT NULL,
  collector_id TEXT NOT NULL,
  collector TEXT NOT NULL,
  return_home INTEGER NOT NULL,
  detached INTEGER NOT NULL DEFAULT 0,
  detached_reason TEXT NOT NULL DEFAULT '',
  seen TEXT,
  created_at REAL NOT NULL,
  code TEXT,
  inputs TEXT,
  job_count INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE INDEX groups_collector ON groups (collector_id);
CREATE INDEX groups_open ON groups (group_id) WHERE detached = 0;

-- The keys of each group's jobs, and the problems found at the submission.
-- job_keys, creation_errors, obstacles: JSON.
CREATE TABLE group_jobs (
  group_id TEXT PRIMARY KEY REFERENCES groups (group_id) ON DELETE CASCADE,
  job_keys TEXT NOT NULL,
  creation_errors TEXT NOT NULL,
  obstacles TEXT NOT NULL
) STRICT;

-- The submission of each group, until it is COMPLETE. spec: JSON of SubmitGroup: class, keys and states.
CREATE TABLE group_specs (
  group_id TEXT PRIMARY KEY REFERENCES groups (group_id) ON DELETE CASCADE,
  spec TEXT NOT NULL
) STRICT;

-- The other hosts of the mesh, as last known. row: JSON of MeshHost.
-- offline_since: epoch seconds when this host marked that host as offline; NULL: it was online. For display only, as
--   the clock may be changed.
CREATE TABLE hosts (
  store_id TEXT PRIMARY KEY,
  row TEXT NOT NULL,
  offline_since REAL
) STRICT, WITHOUT ROWID;
-- URLs from --peer, tried until a host replies there.
CREATE TABLE peers (
  url TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;

-- Tokens of clients' posts, the newest 10,000. A repeated token stores nothing.
CREATE TABLE client_posts (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  token TEXT NOT NULL UNIQUE
) STRICT;

-- Notes of paglets whose home is this host, for its users. Only the newest are kept. note: JSON of api.Note.
CREATE TABLE notes (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  group_id TEXT,
  note TEXT NOT NULL,
  size_bytes INTEGER NOT NULL
) STRICT;
CREATE INDEX notes_group ON notes (group_id, id) WHERE group_id IS NOT NULL;

-- Events, for display. Only the newest are kept.
CREATE TABLE events (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  at REAL NOT NULL,
  kind TEXT NOT NULL,
  subject TEXT NOT NULL,
  text TEXT NOT NULL
) STRICT;

-- Scratch directories of attempts whose result could not be sent (cause bad_result), kept for users. path: for display.
-- removed_at: epoch seconds; from then on the cleanup removes the directory, and commands report its removal.
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
