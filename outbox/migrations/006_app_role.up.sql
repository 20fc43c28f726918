-- privilege: app role
-- A role that writes events: the columns it may set, and the id for RETURNING.

GRANT USAGE ON SCHEMA "outbox" TO "app";
GRANT INSERT (id, topic, key, type, payload, payload_bytes, headers), SELECT (id) ON "outbox".events TO "app";
-- Defaults run as the role that inserts.
GRANT EXECUTE ON FUNCTION "outbox".uuid_v7(), "outbox".context_headers() TO "app";
