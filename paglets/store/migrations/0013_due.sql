-- Changes an index, because paglets with a hook are read by id, page by page.

DROP INDEX paglets_hook;
CREATE INDEX paglets_hook ON paglets (agent_id) WHERE hook IS NOT NULL;
