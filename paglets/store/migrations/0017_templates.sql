-- Adds the table of templates, so that a host that restarts ends their processes.

CREATE TABLE templates (
  token TEXT PRIMARY KEY,
  pid INTEGER NOT NULL,
  start_time REAL NOT NULL
) STRICT, WITHOUT ROWID;
