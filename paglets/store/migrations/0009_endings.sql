-- Adds counters of failures that a job did not cause.
ALTER TABLE paglets ADD COLUMN launcher_deaths INTEGER NOT NULL DEFAULT 0;
ALTER TABLE requests ADD COLUMN disk_fulls INTEGER NOT NULL DEFAULT 0;
