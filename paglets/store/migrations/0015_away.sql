-- From the schema of step `obstacles`: since when another host is offline outlives a restart of this one.

ALTER TABLE members ADD COLUMN away_since REAL;
