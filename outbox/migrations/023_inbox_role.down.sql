-- privilege: consumer role
-- part: inbox
-- A role that writes events, too, is to be granted what it needs for that again.

REVOKE EXECUTE ON FUNCTION "outbox".inbox_key(text), "outbox".inbox_once(text, text, boolean), "outbox".inbox_newer(text, text, integer, jsonb),
  "outbox".inbox_chunk_end(uuid), "outbox".inbox_purge(text, interval, integer) FROM "consumer";
REVOKE ALL ON "outbox".inbox, "outbox".inbox_chunks, "outbox".inbox_positions, "outbox".inbox_purges FROM "consumer";
REVOKE USAGE ON SCHEMA "outbox" FROM "consumer";
