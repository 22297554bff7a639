-- From the schema of step `moves`: the collectors that are here are looked for every two seconds.

CREATE INDEX paglets_collectors ON paglets (agent_id) WHERE kind = 'collector';
