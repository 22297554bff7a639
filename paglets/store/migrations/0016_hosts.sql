-- Renames the table of hosts and its column, because a host of the mesh is called a host everywhere.
-- The key `unreached` of a row became `unreachable_hosts`. It is removed: a host gets the current value by gossip.

CREATE TABLE hosts (
  store_id TEXT PRIMARY KEY,
  row TEXT NOT NULL,
  offline_since REAL
) STRICT, WITHOUT ROWID;
INSERT INTO hosts
  SELECT store_id, CASE WHEN json_valid(row) THEN json_remove(row, '$.unreached') ELSE row END, away_since FROM members;
DROP TABLE members;
