-- name: schema
-- Everything is insert-only but `about` and `chains`, as in the file (`log.sql`); `epoch` is of the process that appends.
CREATE SCHEMA airside;
CREATE TABLE airside.about (format integer NOT NULL, log text NOT NULL, epoch bigint NOT NULL);
CREATE TABLE airside.streams (id bigint PRIMARY KEY, name text COLLATE "C" NOT NULL UNIQUE);
CREATE TABLE airside.entries (
    position bigint PRIMARY KEY,
    tenant text COLLATE "C" NOT NULL, number bigint NOT NULL,
    stream bigint NOT NULL, seq bigint NOT NULL,
    epoch bigint NOT NULL, step bigint NOT NULL, cause bigint NOT NULL,
    at_us bigint NOT NULL, type text COLLATE "C" NOT NULL, body text COLLATE "C" NOT NULL, mac bytea NOT NULL,
    UNIQUE (stream, seq));
CREATE TABLE airside.chains (tenant text COLLATE "C" PRIMARY KEY, position bigint NOT NULL) WITH (fillfactor = 50);

-- name: has_schema
-- Whether there is a log.
SELECT to_regclass('airside.about') IS NOT NULL;

-- name: objects
-- What the schema has: columns, constraints (but NOT NULL, which is one from version 18 on), triggers, rules.
SELECT c.relname || '.' || a.attname || ' ' || format_type(a.atttypid, a.atttypmod)
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relnamespace = 'airside'::regnamespace AND c.relkind <> 'i'
UNION ALL SELECT c.relname || ': ' || pg_get_constraintdef(o.oid)
FROM pg_constraint o JOIN pg_class c ON c.oid = o.conrelid WHERE o.connamespace = 'airside'::regnamespace AND o.contype <> 'n'
UNION ALL SELECT c.relname || ': trigger ' || t.tgname
FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid WHERE c.relnamespace = 'airside'::regnamespace
UNION ALL SELECT c.relname || ': rule ' || r.rulename
FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class WHERE c.relnamespace = 'airside'::regnamespace;

-- name: server
-- What a server must be like: what is acknowledged is on its disk, and texts are what they were.
SELECT current_setting('server_version_num')::int, current_setting('server_encoding'), current_setting('fsync'),
       current_setting('full_page_writes'), current_setting('synchronous_commit');

-- name: lock
-- Become the one session that appends.
SELECT pg_try_advisory_lock(%s);

-- name: holder
-- The session that has the lock, and what it calls itself.
SELECT l.pid, coalesce(a.application_name, '')
FROM pg_locks l LEFT JOIN pg_stat_activity a USING (pid)
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND l.classid = (%(key)s::bigint >> 32)::bit(32)::bigint::oid AND l.objid = (%(key)s::bigint & 4294967295)::oid;

-- name: end_session
-- End a session.
SELECT pg_terminate_backend(%s);

-- name: about
-- Which log this is, of which format, and the epoch of whoever appends.
SELECT format, log, epoch FROM airside.about;

-- name: take_over
-- Begin an epoch: whoever appended before is refused from here on.
UPDATE airside.about SET epoch = epoch + 1 RETURNING epoch;

-- name: still_ours
-- Whether an epoch is the latest; a transaction that writes, so that what was committed before it has gone where it goes.
UPDATE airside.about SET epoch = epoch WHERE epoch = %s RETURNING 1;

-- name: last
-- The position of the latest entry, and the highest number of a stream.
SELECT (SELECT coalesce(max(position), 0) FROM airside.entries), (SELECT coalesce(max(id), 0) FROM airside.streams);

-- name: mac_at
-- The link of the entry at a position.
SELECT mac FROM airside.entries WHERE position = %s;

-- name: latest_us
-- The time of the latest entry.
SELECT at_us FROM airside.entries ORDER BY position DESC LIMIT 1;

-- name: chain_heads
-- The last link of every tenant's chain; without a number where the entry is not there.
SELECT c.tenant, e.number, e.mac, c.position
FROM airside.chains c LEFT JOIN airside.entries e ON e.position = c.position AND e.tenant = c.tenant;

-- name: chain_heads_by_reading
-- The same from the entries alone.
SELECT DISTINCT ON (tenant) tenant, number, mac, position FROM airside.entries ORDER BY tenant, number DESC;

-- name: chain_ends
-- The position of the latest entry, beside where each tenant's chain is noted to end; one row at least.
SELECT (SELECT coalesce(max(position), 0) FROM airside.entries), c.tenant, c.position
FROM (SELECT 1) one LEFT JOIN airside.chains c ON true;

-- name: heads
-- Of streams: number, epoch and place of the latest entry, whose it is, and whether one ended it.
SELECT s.name, s.id, e.epoch, e.seq, e.tenant,
       EXISTS (SELECT FROM airside.entries x WHERE x.stream = s.id AND x.type = ANY(%(ended)s))
FROM airside.streams s
CROSS JOIN LATERAL (SELECT epoch, seq, tenant FROM airside.entries WHERE stream = s.id ORDER BY seq DESC LIMIT 1) e
WHERE s.name = ANY(%(streams)s);

-- name: place
-- What a stream has at some places, in order.
SELECT e.body FROM airside.entries e JOIN airside.streams s ON s.id = e.stream
WHERE s.name = %s AND e.seq >= %s AND e.seq < %s ORDER BY e.seq;

-- name: stream
-- The events of a stream, in order.
SELECT body FROM airside.entries WHERE stream = (SELECT id FROM airside.streams WHERE name = %s) ORDER BY seq;

-- name: entries
-- The entries after one position up to another, in order.
SELECT e.position, e.tenant, e.number, s.name, e.seq, e.epoch, e.step, e.cause, e.at_us, e.type, e.body, e.mac
FROM airside.entries e LEFT JOIN airside.streams s ON s.id = e.stream
WHERE e.position > %s AND e.position <= %s ORDER BY e.position;

-- name: append
-- Append a group, in one statement, which is one transaction: if the epoch is not the latest, nothing.
-- Bound as binary: as text the driver takes five times as long over an array.
WITH mine AS (SELECT 1 FROM airside.about WHERE epoch = %s FOR SHARE),
     numbered AS (INSERT INTO airside.streams
                  SELECT n.* FROM unnest(%b::bigint[], %b::text[]) n CROSS JOIN mine),
     written AS (INSERT INTO airside.entries
                 SELECT n.* FROM unnest(%b::bigint[], %b::text[], %b::bigint[], %b::bigint[], %b::bigint[], %b::bigint[],
                                        %b::bigint[], %b::bigint[], %b::bigint[], %b::text[], %b::text[], %b::bytea[]) n
                 CROSS JOIN mine),
     moved AS (INSERT INTO airside.chains
               SELECT n.* FROM unnest(%b::text[], %b::bigint[]) n CROSS JOIN mine
               ON CONFLICT (tenant) DO UPDATE SET position = excluded.position)
SELECT count(*) FROM mine;
