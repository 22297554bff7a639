-- From the schema of step `losses`: columns that nobody read. A member's name is in its row, a group's wish in its spec.

ALTER TABLE members DROP COLUMN name;
ALTER TABLE groups DROP COLUMN collector_host;
