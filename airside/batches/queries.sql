-- What a batch asks of the tables `events`, `runs` and `outcomes` (`Stack.query`).

-- name: changed
-- Runs of a batch that may have changed something: those that did not complete, or (the second parameter) also those
-- that did. These count where answers are held against a schema: what completed with a wrong one may be run again, too.
WITH those AS (SELECT r.run_id FROM runs r JOIN outcomes o ON o.run_id = r.run_id
               WHERE r.batch = ? AND (o.status <> 'completed' OR ?)),
     theirs AS (SELECT f.run_id, e.* FROM those f JOIN events e ON split_part(e.stream, '.', 1) = f.run_id)
SELECT DISTINCT g.run_id FROM theirs g
WHERE g.type = 'ActionGated' AND coalesce(json_extract_string(g.body, '$.effect'), '') <> 'read'
  AND (CAST(json_extract(g.body, '$.intent') AS BOOLEAN)
       OR EXISTS (SELECT 1 FROM theirs i WHERE i.type = 'EffectIntended' AND i.stream = g.stream AND i.step = g.step));

-- name: rolled_back
-- Runs of a batch that somebody has begun to roll back.
SELECT DISTINCT r.run_id FROM runs r JOIN events e ON e.stream = 'rollback/' || r.run_id WHERE r.batch = ?;

-- name: story
-- A run's events, those of its rollback, and those of its branches: their streams, and what these begin with.
SELECT stream, body FROM events WHERE stream IN (?, ?) OR starts_with(stream, ?) ORDER BY stream, seq;

-- name: under_way
-- The runs of a batch that have not ended, branches apart, and when each was admitted.
SELECT run_id, submitted_us FROM runs
WHERE batch = ? AND coalesce(parent, '') = '' AND run_id NOT IN (SELECT run_id FROM outcomes);
