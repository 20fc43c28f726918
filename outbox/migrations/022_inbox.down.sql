-- privilege: owner
-- part: inbox
-- Forgets what consumers have seen: what comes again afterwards is taken again.

DROP FUNCTION "outbox".inbox_purge(text, interval, integer);
DROP FUNCTION "outbox".inbox_newer(text, text, integer, jsonb);
DROP FUNCTION "outbox".inbox_once(text, text, boolean);
DROP FUNCTION "outbox".inbox_chunk_end(uuid);
DROP FUNCTION "outbox".inbox_key(text);
DROP TABLE "outbox".inbox_purges;
DROP TABLE "outbox".inbox_chunks;
DROP TABLE "outbox".inbox_positions;
DROP TABLE "outbox".inbox;
