-- name: schema
-- The projection of the log, insert-only but `projected`, which says up to which entry of which log it is.
CREATE TABLE IF NOT EXISTS events (
    tenant VARCHAR NOT NULL, number BIGINT NOT NULL,      -- the tenant's chain
    stream VARCHAR NOT NULL, seq BIGINT NOT NULL,         -- the run's or approval's own order
    epoch BIGINT NOT NULL, step BIGINT NOT NULL, cause BIGINT NOT NULL,
    at_us BIGINT NOT NULL, type VARCHAR NOT NULL, body VARCHAR NOT NULL, mac BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS runs (
    run_id VARCHAR NOT NULL, tenant VARCHAR NOT NULL, principal VARCHAR NOT NULL, parent VARCHAR,
    job_id VARCHAR NOT NULL, route VARCHAR NOT NULL, batch VARCHAR NOT NULL, attempt BIGINT NOT NULL,
    submitted_us BIGINT NOT NULL);
CREATE TABLE IF NOT EXISTS outcomes (
    run_id VARCHAR NOT NULL, tenant VARCHAR NOT NULL, status VARCHAR NOT NULL, reason_code VARCHAR NOT NULL,
    ended_us BIGINT NOT NULL, steps BIGINT NOT NULL, tool_calls BIGINT NOT NULL, tokens BIGINT NOT NULL,
    cost_microusd BIGINT NOT NULL, active_us BIGINT NOT NULL, body VARCHAR NOT NULL);
CREATE TABLE IF NOT EXISTS streams (stream VARCHAR NOT NULL);
CREATE TABLE IF NOT EXISTS projected (
    log VARCHAR NOT NULL, format VARCHAR NOT NULL, position BIGINT NOT NULL, mac BLOB NOT NULL);

-- name: false_runs
-- Rows of the projection `runs` that are not what the events say.
SELECT coalesce(e.stream, r.run_id) FROM (SELECT * FROM events WHERE type = 'RunSubmitted') e
FULL OUTER JOIN runs r ON r.run_id = e.stream
WHERE (r.run_id, r.tenant, r.submitted_us) IS DISTINCT FROM (e.stream, e.tenant, e.at_us)
   OR r.principal IS DISTINCT FROM json_extract_string(e.body, '$.identity.principal')
   OR r.parent IS DISTINCT FROM coalesce(json_extract_string(e.body, '$.parent'), '')
   OR r.job_id IS DISTINCT FROM json_extract_string(e.body, '$.request.job_id')
   OR r.route IS DISTINCT FROM json_extract_string(e.body, '$.request.route')
   OR r.batch IS DISTINCT FROM coalesce(json_extract_string(e.body, '$.request.batch.id'), '')
   OR r.attempt IS DISTINCT FROM coalesce(CAST(json_extract(e.body, '$.request.batch.attempt') AS BIGINT), 1);

-- name: false_outcomes
-- Rows of the projection `outcomes` that are not what the events say.
SELECT coalesce(e.stream, o.run_id) FROM (SELECT * FROM events WHERE type = 'RunEnded') e
FULL OUTER JOIN outcomes o ON o.run_id = e.stream
WHERE (o.run_id, o.tenant, o.ended_us, o.body) IS DISTINCT FROM (e.stream, e.tenant, e.at_us, e.body)
   OR o.status IS DISTINCT FROM json_extract_string(e.body, '$.outcome.status')
   OR o.reason_code IS DISTINCT FROM json_extract_string(e.body, '$.outcome.reason_code')
   OR o.steps IS DISTINCT FROM CAST(json_extract(e.body, '$.usage.steps') AS BIGINT)
   OR o.tool_calls IS DISTINCT FROM CAST(json_extract(e.body, '$.usage.tool_calls') AS BIGINT)
   OR o.tokens IS DISTINCT FROM CAST(json_extract(e.body, '$.usage.tokens') AS BIGINT)
   OR o.cost_microusd IS DISTINCT FROM CAST(json_extract(e.body, '$.usage.cost_microusd') AS BIGINT)
   OR o.active_us IS DISTINCT FROM CAST(json_extract(e.body, '$.usage.active_us') AS BIGINT);

-- name: tenants
-- Whose events there are.
SELECT DISTINCT tenant FROM events ORDER BY tenant;

-- name: chain
-- One tenant's chain, in order.
SELECT * FROM events WHERE tenant = ? ORDER BY number;

-- name: feed
-- A tenant's entries from one number up to another, as many as the bound on their characters lets through; as the log
-- has them, but for their positions.
SELECT 0, tenant, number, stream, seq, epoch, step, cause, at_us, type, body FROM (
    SELECT *, sum(strlen(body)) OVER (ORDER BY number) - strlen(body) AS before
    FROM events WHERE tenant = ? AND number >= ? AND number < ?)
WHERE before < ? ORDER BY number;

-- name: branches
-- The branches (and theirs) of a run, ended or not.
SELECT run_id FROM runs WHERE starts_with(run_id, ? || '.') ORDER BY run_id;

-- name: unfinished_below
-- The unfinished children (and theirs) of a run: its id, a dot, and what follows.
SELECT run_id FROM runs WHERE starts_with(run_id, ? || '.') AND run_id NOT IN (SELECT run_id FROM outcomes);

-- name: unfinished
-- Runs that were admitted and have not ended, oldest first; `submitted_us` is their admission.
SELECT r.run_id, r.tenant, coalesce(r.parent, ''), max(e.epoch), r.submitted_us, r.route
FROM runs r JOIN events e ON e.stream = r.run_id
WHERE r.run_id NOT IN (SELECT run_id FROM outcomes)
GROUP BY ALL ORDER BY min(e.at_us);

-- name: orphans
-- Branches that have not ended though their root has: what a process wrote last may arrive after that was looked at.
SELECT r.run_id, r.tenant, r.parent, max(e.epoch), r.submitted_us
FROM runs r JOIN events e ON e.stream = r.run_id
WHERE r.parent <> '' AND r.run_id NOT IN (SELECT run_id FROM outcomes)
  AND split_part(r.run_id, '.', 1) IN (SELECT run_id FROM outcomes)
GROUP BY ALL;

-- name: spent
-- What was reserved and used: of unfinished runs each call (once a key however often it was sent), each decision and
-- each timed attempt, with its key and whether its use is not known yet; of ended ones summed up per tenant, tool and
-- the span of time (since the given month, day and minute began) they fall into, and no sum above the most a cap can be
-- (2^53): more is no amount, and no gate could begin.  `stack.spent.spent_of` says the
-- same of one run's events, and a test holds the two together.
-- What was reserved for no time uses none: a decision that waits for a provider's batch.
-- A call was about to be sent when its decision says so (`intent`) or, before format 2 of the journal, an event of its own.
-- What is stamped later than $4 (now) was stamped by a clock that was ahead: it happened before the next entry of its
-- tenant that was stamped by a right one, and counts then, or now.
-- What cannot be read (TRY) counts nothing, no amount is over the most a cap can be, and what is journaled of a run under
-- another tenant is summed up there: a runtime writes what it likes, and must not be able to keep the gate from beginning.
WITH ahead AS (SELECT tenant, min(number) AS number FROM events WHERE at_us > $4 GROUP BY tenant),
after AS (
    SELECT e.tenant, e.number, min(e.at_us) OVER (
        PARTITION BY e.tenant ORDER BY e.number ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING) AS latest_us
    FROM events e JOIN ahead a ON e.tenant = a.tenant AND e.number >= a.number),
dated AS (
    SELECT e.* REPLACE (CASE WHEN e.at_us > $4 THEN least(a.latest_us, $4) ELSE e.at_us END AS at_us)
    FROM events e LEFT JOIN after a ON e.tenant = a.tenant AND e.number = a.number),
sent AS (
    SELECT * FROM dated WHERE type = 'EffectIntended' OR
        (type = 'ActionGated' AND contains(body, '"intent":true') AND TRY(CAST(json_extract(body, '$.intent') AS BOOLEAN)))),
calls AS (
    SELECT tenant, stream, stream || ':' || step AS key, min(at_us) AS at_us, false AS is_open,
           any_value(TRY(json_extract_string(body, '$.tool'))) AS tool, 1 AS calls, 0 AS steps, 0 AS tokens,
           any_value(TRY(CAST(json_extract(body, '$.cost_microusd') AS BIGINT))) AS cost, 0 AS wall_ms
    FROM sent GROUP BY tenant, stream, step),
paid AS (
    SELECT DISTINCT stream FROM events WHERE type = 'SpendAsked' OR
        (type = 'StepDecided' AND NOT contains(body, '"spend":{"tokens":0,"cost_microusd":0}'))),
deciding AS (
    SELECT tenant, stream, step, epoch, at_us, type, body, lag(type) OVER w AS last_type, lead(type) OVER w AS next_type,
           lead(body) OVER w AS next_body, lead(at_us) OVER w AS next_us
    FROM dated SEMI JOIN paid USING (stream) WHERE type IN ('SpendAsked', 'SpendRefused', 'StepDecided', 'DecideFailed')
    WINDOW w AS (PARTITION BY stream, step ORDER BY seq)),
priced AS (
    SELECT *, next_type IS NOT DISTINCT FROM 'StepDecided' AS made FROM deciding
    WHERE type = 'SpendAsked' AND next_type IS DISTINCT FROM 'SpendRefused'),
decisions AS (
    SELECT tenant, stream, stream || ':' || step || '/decide@' || epoch AS key, at_us, next_type IS NULL AS is_open,
           '' AS tool, 0 AS calls, 1 AS steps,
           TRY(CAST(CASE WHEN made THEN json_extract(next_body, '$.proposal.spend.tokens')
                ELSE json_extract(body, '$.price.tokens') END AS BIGINT)) AS tokens,
           TRY(CAST(CASE WHEN made THEN json_extract(next_body, '$.proposal.spend.cost_microusd')
                ELSE json_extract(body, '$.price.cost_microusd') END AS BIGINT)) AS cost,
           TRY(CASE WHEN contains(body, '"wall_ms":0,') OR contains(body, '"wall_ms":0}') THEN 0
                WHEN made THEN (next_us - at_us + 999) // 1000
                ELSE CAST(json_extract(body, '$.wall_ms') AS BIGINT) END) AS wall_ms
    FROM priced
    UNION ALL
    SELECT tenant, stream, stream || ':' || step || '/decide@' || epoch, at_us, false, '', 0, 1,
           TRY(CAST(json_extract(body, '$.proposal.spend.tokens') AS BIGINT)),
           TRY(CAST(json_extract(body, '$.proposal.spend.cost_microusd') AS BIGINT)), 0
    FROM deciding WHERE type = 'StepDecided' AND last_type IS DISTINCT FROM 'SpendAsked'
        AND NOT contains(body, '"spend":{"tokens":0,"cost_microusd":0}')),
timed AS (
    SELECT DISTINCT stream FROM sent WHERE TRY(CAST(json_extract(body, '$.wall_ms') AS BIGINT)) > 0),
executing AS (
    SELECT tenant, stream, step, at_us, type, body, lead(type) OVER w AS next_type, lead(body) OVER w AS next_body
    FROM (FROM sent UNION ALL FROM dated WHERE type IN ('ToolExecuted', 'ExecutionLost')) SEMI JOIN timed USING (stream)
    WINDOW w AS (PARTITION BY stream, step ORDER BY seq)),
times AS (
    SELECT tenant, stream, at_us,
           stream || ':' || step || '/wall@' || coalesce(TRY(json_extract_string(body, '$.attempt')), '') AS key,
           next_type IS NULL AS is_open, '' AS tool, 0 AS calls, 0 AS steps, 0 AS tokens, 0 AS cost,
           TRY(CASE WHEN next_type IS NOT DISTINCT FROM 'ToolExecuted'
                THEN (CAST(json_extract(next_body, '$.result.duration_us') AS BIGINT) + 999) // 1000
                ELSE CAST(json_extract(body, '$.wall_ms') AS BIGINT) END) AS wall_ms
    FROM executing WHERE type IN ('EffectIntended', 'ActionGated') AND TRY(CAST(json_extract(body, '$.wall_ms') AS BIGINT)) > 0),
found AS (FROM calls UNION ALL FROM decisions UNION ALL BY NAME FROM times),
used AS (
    SELECT * REPLACE (coalesce(tool, '') AS tool, greatest(0, least(coalesce(tokens, 0), 9007199254740992)) AS tokens,
                      greatest(0, least(coalesce(cost, 0), 9007199254740992)) AS cost,
                      greatest(0, least(coalesce(wall_ms, 0), 9007199254740992)) AS wall_ms) FROM found),
live AS (SELECT tenant, run_id FROM runs WHERE run_id NOT IN (SELECT run_id FROM outcomes))
SELECT tenant, stream, key, at_us, is_open, tool, calls, steps, tokens, cost, wall_ms FROM used
WHERE (tenant, split_part(stream, '.', 1)) IN (SELECT (tenant, run_id) FROM live)
UNION ALL
SELECT tenant, '', '', max(at_us), false, tool, CAST(sum(calls) AS BIGINT), CAST(sum(steps) AS BIGINT),
       CAST(least(sum(tokens), 9007199254740992) AS BIGINT), CAST(least(sum(cost), 9007199254740992) AS BIGINT),
       CAST(least(sum(wall_ms), 9007199254740992) AS BIGINT) FROM used
WHERE (tenant, split_part(stream, '.', 1)) NOT IN (SELECT (tenant, run_id) FROM live)
GROUP BY tenant, tool, CASE WHEN at_us >= $3 THEN 3 WHEN at_us >= $2 THEN 2 WHEN at_us >= $1 THEN 1 ELSE 0 END;

-- name: outcomes
-- How some runs ended.
SELECT run_id, body FROM outcomes WHERE run_id IN (SELECT unnest(?));

-- name: approvals
-- The events of approvals that a live run has not taken the answer of in.
SELECT body FROM events
WHERE type IN ('ApprovalRequested', 'ApprovalVoted', 'ApprovalExpired')
  AND stream NOT IN (SELECT TRY(json_extract_string(body, '$.approval_id')) AS id FROM events
                     WHERE type = 'ApprovalDecided' AND id IS NOT NULL)
  AND stream NOT IN (SELECT stream FROM events WHERE type = 'ApprovalRequested'
                     AND TRY(json_extract_string(body, '$.run_id')) IN (SELECT run_id FROM outcomes))
ORDER BY stream, seq;

-- name: doubtful
-- Runs of a tenant (of all where it is '') that may be in doubt: those whose outcome names a key that nobody settled,
-- and unfinished ones whose latest entry can leave a run in doubt; that a call waits for people leaves none in doubt.  What
-- is so their events tell.  Bodies are read of the latest entries alone, between the first and the last of them, and of
-- outcomes that are not `completed` (a run completes with nothing unsettled: an invariant of its machine): to read those of
-- a million entries takes ten times as long as all the rest.  Nothing is of an unfinished run before the first of them began.
WITH ended AS (
    SELECT run_id, unnest(TRY(CAST(json_extract(body, '$.outcome.in_doubt') AS VARCHAR[]))) AS key FROM outcomes
    WHERE status <> 'completed' AND contains(body, '"in_doubt":["') AND ($1 = '' OR tenant = $1)),
unended AS MATERIALIZED (
    SELECT run_id FROM runs ANTI JOIN outcomes USING (run_id) WHERE ($1 = '' OR tenant = $1)),
began AS MATERIALIZED (
    SELECT min(e.rowid) AS place FROM events e SEMI JOIN unended u ON u.run_id = e.stream WHERE e.type = 'RunSubmitted'),
latest AS MATERIALIZED (
    SELECT e.stream, arg_max(e.type, e.seq) AS type, arg_max(e.rowid, e.seq) AS place
    FROM events e SEMI JOIN unended u ON u.run_id = e.stream
    WHERE e.rowid >= (SELECT place FROM began)
    GROUP BY e.stream
    HAVING bool_or(e.type IN ('EffectIntended', 'ActionGated'))
       AND arg_max(e.type, e.seq) IN ('ToolExecuted', 'ExecutionLost', 'ActionGated', 'RunActivated', 'RunSuspended')),
waiting AS (
    SELECT rowid AS place FROM events
    WHERE rowid >= (SELECT min(place) FROM latest WHERE type = 'ActionGated')
      AND rowid <= (SELECT max(place) FROM latest WHERE type = 'ActionGated')
      AND type = 'ActionGated' AND TRY(json_extract_string(body, '$.decision.outcome')) = 'require_approval')
SELECT DISTINCT run_id FROM ended
WHERE 'doubt/' || key NOT IN (SELECT stream FROM streams WHERE starts_with(stream, 'doubt/'))
UNION ALL
SELECT stream FROM latest ANTI JOIN waiting USING (place);

-- name: decided_since
-- All events of the approvals that somebody voted on, or that expired, since a time.
SELECT body FROM events
WHERE type IN ('ApprovalRequested', 'ApprovalVoted', 'ApprovalExpired')
  AND stream IN (SELECT stream FROM events WHERE type IN ('ApprovalVoted', 'ApprovalExpired') AND at_us >= ?)
ORDER BY stream, seq;

-- name: doubtful_rollbacks
-- Runs of a tenant (of all where it is '') with an undo that ended in doubt at some time.
SELECT DISTINCT tenant, substr(stream, length('rollback/') + 1) FROM events
WHERE type = 'UndoEnded' AND contains(body, '"outcome":"in_doubt"') AND ($1 = '' OR tenant = $1);

-- name: spend_doubtful
-- Streams of questions to models, of a tenant (of all where it is ''), with an attempt that has no end on record, that
-- failed and counts, or whose tokens are not those it says it used.  What is in doubt their events tell.
SELECT stream, any_value(tenant) FROM events
WHERE starts_with(stream, 'model/') AND ($1 = '' OR tenant = $1)
GROUP BY stream
HAVING count(*) FILTER (type = 'ModelAsked') > count(*) FILTER (type IN ('ModelAnswered', 'ModelFailed'))
    OR bool_or(type = 'ModelFailed' AND NOT contains(body, '"spent":{"tokens":0,"cost_microusd":0}'))
    OR bool_or(type = 'ModelAnswered' AND TRY(CAST(json_extract(body, '$.spent.tokens') AS HUGEINT)) IS DISTINCT FROM
        TRY(CAST(json_extract(body, '$.input_tokens') AS BIGINT)::HUGEINT + CAST(json_extract(body, '$.output_tokens') AS BIGINT)));

-- name: attempts_since
-- The latest $2 of attempts at questions to models, and of what came of them, latest first: from the first entry on that
-- was stamped at a time or after it, for a clock may have been put back since.  `tokens` are those that an attempt
-- reserved, or was settled at.  What went into a provider's batch is left out, and what cannot be read, which no caller
-- wrote: it must not be able to keep the next one from beginning.
WITH asked AS (
    SELECT rowid AS place, stream, at_us, type, body FROM events
    WHERE starts_with(stream, 'model/') AND type IN ('ModelAsked', 'ModelAnswered', 'ModelFailed')
      AND rowid >= (SELECT min(rowid) FROM events WHERE starts_with(stream, 'model/') AND at_us >= $1)
    ORDER BY place DESC LIMIT $2),
told AS (
    SELECT place, stream, at_us, type = 'ModelAsked' AS is_asked,
           TRY(CAST(json_extract(body, '$.attempt') AS BIGINT)) AS attempt,
           coalesce(TRY(json_extract_string(body, '$.model')), '') AS model,
           TRY(CAST(json_extract(body, CASE type WHEN 'ModelAsked' THEN '$.reserved.tokens' ELSE '$.spent.tokens' END)
               AS BIGINT)) AS tokens,
           coalesce(TRY(json_extract_string(body, '$.batch')), '') AS batch
    FROM asked)
SELECT stream, at_us, is_asked, attempt, model, greatest(0, least(tokens, 9007199254740992)) FROM told
WHERE attempt IS NOT NULL AND tokens IS NOT NULL AND batch = ''
ORDER BY place DESC;

-- name: spend_resolved
-- What people found out about spend in doubt, with whose it is.
SELECT tenant, body FROM events WHERE type = 'SpendResolved' AND starts_with(stream, 'spend/') ORDER BY number;

-- name: beside
-- What streams other than its own have of a run ($1; $2 is its root), and all kill switches: the root of a rollback
-- also has what was found out about the undos of its branches.  That a name has the root's in it is asked first: of a
-- million entries, one test of each costs a twentieth of what seven do.
WITH near AS (
    SELECT at_us, stream, seq, type, body FROM events WHERE contains(stream, $2) AND (
        starts_with(stream, 'apr_' || $1 || '_') OR starts_with(stream, 'doubt/' || $1 || ':')
        OR starts_with(stream, 'spend/' || $1 || ':') OR starts_with(stream, 'claim/' || $1 || ':')
        OR (starts_with(stream, 'doubt/' || $1 || '.') AND contains(stream, '/undo')) OR stream = 'rollback/' || $2)
    UNION ALL
    SELECT at_us, stream, seq, type, body FROM events WHERE type = 'KillSwitchChanged'
    UNION ALL
    SELECT at_us, stream, seq, type, body FROM events
    WHERE type = 'GrantRefused' AND TRY(json_extract_string(body, '$.run_id')) = $1)
SELECT at_us, stream, type, body FROM near ORDER BY at_us, stream, seq;

-- name: listed
-- Runs, newest first, with how they ended if they have: of a tenant, a status (`active`: not ended), a reason, a principal
-- and a batch (of all where these are ''), submitted since a time; branches only if asked for; those that follow one of
-- the list, if it is said by its time and name ($9 and $10); at most so many.
SELECT r.run_id, r.tenant, r.principal, r.job_id, r.route, coalesce(r.parent, ''), r.submitted_us,
       coalesce(o.status, 'active'), coalesce(o.reason_code, ''), coalesce(o.ended_us, 0), coalesce(o.steps, 0),
       coalesce(o.tool_calls, 0), coalesce(o.tokens, 0), coalesce(o.cost_microusd, 0), coalesce(o.active_us, 0)
FROM runs r LEFT JOIN outcomes o ON o.run_id = r.run_id
WHERE ($1 = '' OR r.tenant = $1) AND ($2 = '' OR coalesce(o.status, 'active') = $2)
  AND ($3 = '' OR o.reason_code = $3) AND r.submitted_us >= $4 AND ($5 OR coalesce(r.parent, '') = '')
  AND ($7 = '' OR r.principal = $7) AND ($8 = '' OR r.batch = $8)
  AND ($10 = '' OR (r.submitted_us, r.run_id) < ($9, $10))
ORDER BY r.submitted_us DESC, r.run_id DESC LIMIT $6;

-- name: counted
-- Runs by tenant, status (`active`: not ended) and reason, branches apart: of a tenant and a principal (of all where these
-- are ''), those that ended before a time left out; and what they used.
SELECT r.tenant, coalesce(o.status, 'active'), coalesce(o.reason_code, ''), count(*), coalesce(sum(o.tokens), 0)::BIGINT,
       coalesce(sum(o.cost_microusd), 0)::BIGINT
FROM runs r LEFT JOIN outcomes o ON o.run_id = r.run_id
WHERE ($1 = '' OR r.tenant = $1) AND ($2 = '' OR r.principal = $2) AND coalesce(r.parent, '') = ''
  AND coalesce(o.ended_us >= $3, true)
GROUP BY ALL ORDER BY ALL LIMIT 1000;

-- name: batches
-- The streams of batches, newest first: of a tenant (of all where it is ''), those that follow one of the list, if it is
-- said by its time and stream ($2 and $3); at most so many.  Whose a batch is its first entry says, which the driver wrote.
SELECT stream FROM events
WHERE type = 'BatchChanged' AND seq = 0 AND tenant = 'airside'
  AND ($1 = '' OR json_extract_string(body, '$.change.tenant') = $1)
  AND ($3 = '' OR at_us < $2 OR (at_us = $2 AND stream > $3))
ORDER BY at_us DESC, stream LIMIT $4;

-- name: batch_outcomes
-- The runs of some batches, branches apart, by how they ended, if they have; most first; a tenant's alone if one is said.
SELECT r.batch, coalesce(o.status, 'active'), coalesce(o.reason_code, ''), count(*), coalesce(sum(o.steps), 0),
       coalesce(sum(o.tokens), 0), coalesce(sum(o.cost_microusd), 0)
FROM runs r LEFT JOIN outcomes o ON o.run_id = r.run_id
WHERE r.batch IN (SELECT unnest($1)) AND coalesce(r.parent, '') = '' AND ($2 = '' OR r.tenant = $2)
GROUP BY ALL ORDER BY 4 DESC, 1, 2, 3;

-- name: fired
-- How often each rule decided, by tenant, hour, version of the bundle and outcome, and when last: of the entries from one
-- row on until another.  What cannot be read is left out.
SELECT tenant, at_us // 3600000000, coalesce(said[1], ''), coalesce(said[2], ''), coalesce(said[3], ''), count(*), max(at_us)
FROM (SELECT tenant, at_us, TRY(json_extract_string(
        body, ['$.decision.policy_version', '$.decision.rule', '$.decision.outcome'])) AS said
      FROM events WHERE rowid >= $1 AND rowid < $2 AND type = 'ActionGated')
WHERE said IS NOT NULL GROUP BY ALL;

-- name: row_count
-- How many entries the tables have: they are numbered from 0 as they came.
SELECT count(*) FROM events;

-- name: row_at
-- The time of the entry of a row.
SELECT at_us FROM events WHERE rowid = ?;

-- name: found
-- Entries from one row on until another ($1, $2), newest first: of a tenant, a stream and a type (of all where these are
-- ''), that have a text in any spelling of its letters, stamped since a time until before another; at most so many.
SELECT rowid, tenant, number, stream, seq, step, at_us, type, body FROM events
WHERE rowid >= $1 AND rowid < $2 AND ($3 = '' OR tenant = $3) AND ($4 = '' OR stream = $4) AND ($5 = '' OR type = $5)
  AND at_us >= $7 AND at_us < $8 AND ($6 = '' OR contains(lower(body), lower($6)) OR contains(stream, $6))
ORDER BY rowid DESC LIMIT $9;

-- name: named
-- Runs whose ids begin and end in one of two ways ($1 and $2, or $3 and $4), branches apart unless $5; at most six.
SELECT run_id FROM runs
WHERE ((starts_with(run_id, $1) AND ends_with(run_id, $2)) OR (starts_with(run_id, $3) AND ends_with(run_id, $4)))
  AND ($5 OR coalesce(parent, '') = '')
ORDER BY run_id LIMIT 6;

-- name: active_of_batch
-- The runs of a batch that have not ended, branches apart; a tenant's alone if one is said.
SELECT run_id FROM runs
WHERE batch = $1 AND coalesce(parent, '') = '' AND ($2 = '' OR tenant = $2) AND run_id NOT IN (SELECT run_id FROM outcomes) ORDER BY run_id;
