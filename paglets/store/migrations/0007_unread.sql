-- Drops columns that no statement reads. The name of a host is in its row, the requested host of a group in its spec.

ALTER TABLE members DROP COLUMN name;
ALTER TABLE groups DROP COLUMN collector_host;
