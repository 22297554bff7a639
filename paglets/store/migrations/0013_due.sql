-- From the schema of step `large`: paglets with a hook are read by id, a page at a time.

DROP INDEX paglets_hook;
CREATE INDEX paglets_hook ON paglets (agent_id) WHERE hook IS NOT NULL;
