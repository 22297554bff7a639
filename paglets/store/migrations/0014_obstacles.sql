-- What kept jobs from every host at submission is a list of records now. The texts of earlier groups are not used again.
ALTER TABLE group_jobs RENAME COLUMN warnings TO obstacles;
UPDATE group_jobs SET obstacles = '[]';
