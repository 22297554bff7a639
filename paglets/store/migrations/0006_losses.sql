-- Adds an index of collectors, because a query reads them every two seconds.

CREATE INDEX paglets_collectors ON paglets (agent_id) WHERE kind = 'collector';
