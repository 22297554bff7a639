-- From the schema of step `model`: what a group was submitted with beside its jobs, to tell a later submission apart.

ALTER TABLE groups ADD COLUMN code TEXT;
ALTER TABLE groups ADD COLUMN inputs TEXT;
