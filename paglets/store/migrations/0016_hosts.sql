-- Renames the table of hosts and its column, because a host of the mesh is called a host everywhere.

CREATE TABLE hosts (
  store_id TEXT PRIMARY KEY,
  row TEXT NOT NULL,
  offline_since REAL
) STRICT, WITHOUT ROWID;
INSERT INTO hosts SELECT store_id, row, away_since FROM members;
DROP TABLE members;
