-- name: outcomes
-- How many runs ended in each way, most first, and what they used.
SELECT status, reason_code, count(*) AS runs, sum(steps) AS steps, sum(tokens) AS tokens, sum(cost_microusd) AS cost_microusd
FROM outcomes GROUP BY ALL ORDER BY runs DESC, status, reason_code;

-- name: spend_by_day
-- What the runs that ended on each day used.
SELECT CAST(to_timestamp(ended_us / 1000000) AS DATE) AS day, count(*) AS runs, sum(tokens) AS tokens,
       sum(cost_microusd) AS cost_microusd
FROM outcomes GROUP BY ALL ORDER BY day DESC;

-- name: spend_by_principal
-- What the runs that each principal asked for used, most expensive first; branches are counted with their runs.
SELECT r.principal, count(*) AS runs, sum(o.tokens) AS tokens, sum(o.cost_microusd) AS cost_microusd
FROM runs r JOIN outcomes o USING (run_id) WHERE coalesce(r.parent, '') = '' GROUP BY ALL ORDER BY cost_microusd DESC, r.principal;

-- name: denials
-- Calls that policy denied, newest first, with the rule.
SELECT at_us, stream AS run_id, step, json_extract_string(body, '$.tool') AS tool,
       json_extract_string(body, '$.decision.rule') AS rule, json_extract_string(body, '$.decision.reason_code') AS reason_code
FROM events WHERE type = 'ActionGated' AND json_extract_string(body, '$.decision.outcome') = 'deny' ORDER BY at_us DESC;

-- name: votes
-- What people said about approvals, newest first.
SELECT at_us, json_extract_string(body, '$.approval_id') AS approval_id, json_extract_string(body, '$.by') AS by,
       json_extract_string(body, '$.verdict') AS verdict, json_extract_string(body, '$.note') AS note
FROM events WHERE type = 'ApprovalVoted' ORDER BY at_us DESC;

-- name: orders
-- Who killed and cancelled runs, newest first, and why.
SELECT at_us, stream AS run_id, type, json_extract_string(body, '$.by') AS by, json_extract_string(body, '$.why') AS why
FROM events WHERE type IN ('KillRequested', 'CancelRequested') ORDER BY at_us DESC;
