-- Turns the texts of placement problems at submission into records. Texts of earlier groups are dropped.
ALTER TABLE group_jobs RENAME COLUMN warnings TO obstacles;
UPDATE group_jobs SET obstacles = '[]';
