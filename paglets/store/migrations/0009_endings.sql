-- From the schema of step `large`: what jobs meet that is not their own doing, counted.
ALTER TABLE paglets ADD COLUMN launcher_deaths INTEGER NOT NULL DEFAULT 0;
ALTER TABLE requests ADD COLUMN disk_fulls INTEGER NOT NULL DEFAULT 0;
