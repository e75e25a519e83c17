-- name: schema
-- Everything is insert-only.  `events` is the source of truth; the other tables are projections of it, written in the same transaction.
CREATE TABLE IF NOT EXISTS events (
    tenant VARCHAR NOT NULL, number BIGINT NOT NULL,      -- the tenant's chain
    stream VARCHAR NOT NULL, seq BIGINT NOT NULL,         -- the run's or approval's own order
    epoch BIGINT NOT NULL, step BIGINT NOT NULL, cause BIGINT NOT NULL,
    at_us BIGINT NOT NULL, type VARCHAR NOT NULL, body VARCHAR NOT NULL, mac BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS runs (
    run_id VARCHAR NOT NULL, tenant VARCHAR NOT NULL, principal VARCHAR NOT NULL, parent VARCHAR,
    job_id VARCHAR NOT NULL, route VARCHAR NOT NULL, submitted_us BIGINT NOT NULL);
CREATE TABLE IF NOT EXISTS outcomes (
    run_id VARCHAR NOT NULL, tenant VARCHAR NOT NULL, status VARCHAR NOT NULL, reason_code VARCHAR NOT NULL,
    ended_us BIGINT NOT NULL, steps BIGINT NOT NULL, tool_calls BIGINT NOT NULL, tokens BIGINT NOT NULL,
    cost_microusd BIGINT NOT NULL, active_us BIGINT NOT NULL, body VARCHAR NOT NULL);
CREATE TABLE IF NOT EXISTS streams (stream VARCHAR NOT NULL);

-- name: open_heads
-- Where every stream stands that has not ended; the ended ones are looked up when somebody writes to them.
SELECT stream, max(epoch), max(seq) + 1, false FROM events
WHERE stream NOT IN (SELECT run_id FROM outcomes) GROUP BY stream;

-- name: known_heads
-- Where the named streams stand.
SELECT stream, max(epoch), max(seq) + 1, bool_or(type = 'RunEnded') FROM events
WHERE stream IN (SELECT unnest(?)) GROUP BY stream;

-- name: known_streams
-- Which of the named streams exist.
SELECT stream FROM streams WHERE stream IN (SELECT unnest(?));

-- name: chain_heads
-- The last link of every tenant's chain.
SELECT tenant, max(number), arg_max(mac, number) FROM events GROUP BY tenant;

-- name: chain
-- One tenant's chain, in order.
SELECT number, stream, seq, epoch, mac, body, type, step, at_us, cause FROM events WHERE tenant = ? ORDER BY number;

-- name: place
-- What a stream has at some places, in order.
SELECT body FROM events WHERE stream = ? AND seq >= ? AND seq < ? ORDER BY seq;

-- name: unfinished_below
-- The unfinished children (and theirs) of a run: its id, a dot, and what follows.
SELECT run_id FROM runs WHERE starts_with(run_id, ? || '.') AND run_id NOT IN (SELECT run_id FROM outcomes);

-- name: stream
-- The events of some streams, in order.
SELECT stream, body FROM events WHERE stream IN (SELECT unnest(?)) ORDER BY stream, seq;

-- name: unfinished
-- Runs that were admitted and have not ended, oldest first.
SELECT r.run_id, r.tenant, coalesce(r.parent, ''), max(e.epoch), count(*)
FROM runs r JOIN events e ON e.stream = r.run_id
WHERE r.run_id NOT IN (SELECT run_id FROM outcomes)
GROUP BY ALL ORDER BY min(e.at_us);

-- name: outcomes
-- How some runs ended.
SELECT o.run_id, o.body, r.job_id, r.submitted_us, o.ended_us
FROM outcomes o JOIN runs r ON r.run_id = o.run_id WHERE o.run_id IN (SELECT unnest(?));

-- name: approvals
-- The events of approvals whose runs have not taken the answer in.
SELECT body FROM events
WHERE type IN ('ApprovalRequested', 'ApprovalVoted', 'ApprovalExpired')
  AND stream NOT IN (SELECT json_extract_string(body, '$.approval_id') FROM events WHERE type = 'ApprovalDecided')
ORDER BY stream, seq;
