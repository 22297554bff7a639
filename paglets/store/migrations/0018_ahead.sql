-- Adds the status ASSIGNED, and the lines of runs in warm workers.

ALTER TABLE requests ADD COLUMN new_status TEXT NOT NULL DEFAULT 'PLACING' CHECK (new_status IN
  ('PLACING', 'WAITING_FOR_SLOT', 'ASSIGNED', 'RUNNING', 'COMPLETED', 'FAILED_FINAL', 'CANCELLED'));
UPDATE requests SET new_status = status;
DROP INDEX requests_queue;
DROP INDEX requests_untold;
DROP INDEX requests_group;
ALTER TABLE requests DROP COLUMN status;
ALTER TABLE requests RENAME COLUMN new_status TO status;
CREATE INDEX requests_queue ON requests (status, queued_at, agent_id, group_id);
CREATE INDEX requests_untold ON requests (agent_id) WHERE status = 'WAITING_FOR_SLOT' AND reason = '';
CREATE INDEX requests_group ON requests (group_id, status);

ALTER TABLE runs ADD COLUMN line TEXT NOT NULL DEFAULT '';
