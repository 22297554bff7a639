-- Adds the time when another host went offline, so that it survives a restart of this host.

ALTER TABLE members ADD COLUMN away_since REAL;
