-- privilege: consumer role
-- part: inbox
-- A role that consumes: its functions, and the tables that these write. They run
-- as the role that calls them.

GRANT USAGE ON SCHEMA "outbox" TO "consumer";
GRANT SELECT, INSERT, DELETE ON "outbox".inbox, "outbox".inbox_chunks TO "consumer";
-- UPDATE of a column is what SELECT ... FOR UPDATE wants, too.
GRANT UPDATE (received_at) ON "outbox".inbox, "outbox".inbox_chunks TO "consumer";
GRANT SELECT, INSERT, UPDATE ON "outbox".inbox_positions, "outbox".inbox_purges TO "consumer";
GRANT EXECUTE ON FUNCTION "outbox".inbox_key(text), "outbox".inbox_once(text, text, boolean), "outbox".inbox_newer(text, text, integer, jsonb),
  "outbox".inbox_chunk_end(uuid), "outbox".inbox_purge(text, interval, integer) TO "consumer";
