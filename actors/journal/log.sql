-- name: schema
-- Everything is insert-only but `chains`.  `entries` is the source of truth, in the order in which it was acknowledged.
CREATE TABLE about (log TEXT NOT NULL);                 -- which log this is: copies of it are the same one
CREATE TABLE streams (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE entries (
    position INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL, number INTEGER NOT NULL,      -- the tenant's chain
    stream INTEGER NOT NULL, seq INTEGER NOT NULL,      -- the stream's own order
    epoch INTEGER NOT NULL, step INTEGER NOT NULL, cause INTEGER NOT NULL,
    at_us INTEGER NOT NULL, type TEXT NOT NULL, body TEXT NOT NULL, mac BLOB NOT NULL);
-- Streams are numbered as they come, so that those at work are neighbours here: by their names, which are random, a
-- commit would change a page for every entry.
CREATE UNIQUE INDEX by_stream ON entries (stream, seq);
CREATE TABLE chains (tenant TEXT PRIMARY KEY, position INTEGER NOT NULL) WITHOUT ROWID;

-- name: schema_objects
-- What the file has of tables, indexes, triggers and views.
SELECT type, name, sql FROM sqlite_schema ORDER BY name;

-- name: about
-- Which log this is.
SELECT log FROM about;

-- name: last
-- The position of the latest entry, and the highest number of a stream.
SELECT (SELECT coalesce(max(position), 0) FROM entries), (SELECT coalesce(max(id), 0) FROM streams);

-- name: mac_at
-- The link of the entry at a position.
SELECT mac FROM entries WHERE position = ?;

-- name: latest_us
-- The time of the latest entry.
SELECT at_us FROM entries ORDER BY position DESC LIMIT 1;

-- name: chain_heads
-- The last link of every tenant's chain; without a number where the entry is not there.
SELECT c.tenant, e.number, e.mac, c.position
FROM chains c LEFT JOIN entries e ON e.position = c.position AND e.tenant = c.tenant;

-- name: chain_heads_by_reading
-- The same from the entries alone.
SELECT tenant, max(number), mac, position FROM entries GROUP BY tenant;

-- name: chain_ends
-- The position of the latest entry, beside where each tenant's chain is noted to end; one row at least.
SELECT (SELECT coalesce(max(position), 0) FROM entries), c.tenant, c.position FROM (SELECT 1) LEFT JOIN chains c;

-- name: stream_id
-- The number of a stream.
SELECT id FROM streams WHERE name = ?;

-- name: stream_end
-- The epoch and the place of the latest entry of a stream, and whose it is.
SELECT epoch, seq, tenant FROM entries WHERE stream = ? ORDER BY seq DESC LIMIT 1;

-- name: stream_types
-- The types of a stream's entries, latest first.
SELECT type FROM entries WHERE stream = ? ORDER BY seq DESC;

-- name: place
-- What a stream has at some places, in order.
SELECT body FROM entries WHERE stream = ? AND seq >= ? AND seq < ? ORDER BY seq;

-- name: stream
-- The events of a stream, in order.
SELECT body FROM entries WHERE stream = (SELECT id FROM streams WHERE name = ?) ORDER BY seq;

-- name: entries
-- The entries after one position up to another, in order.
SELECT e.position, e.tenant, e.number, s.name, e.seq, e.epoch, e.step, e.cause, e.at_us, e.type, e.body, e.mac
FROM entries e LEFT JOIN streams s ON s.id = e.stream WHERE e.position > ? AND e.position <= ? ORDER BY e.position;

-- name: add_stream
-- Number a stream.
INSERT INTO streams VALUES (?, ?);

-- name: add_entry
-- Append an entry.
INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: move_chain
-- Note where a tenant's chain ends.
INSERT INTO chains VALUES (?, ?) ON CONFLICT (tenant) DO UPDATE SET position = excluded.position;
