-- Adds hashes of the code and inputs of a group, to distinguish a later submission with the same id.

ALTER TABLE groups ADD COLUMN code TEXT;
ALTER TABLE groups ADD COLUMN inputs TEXT;
