-- privilege: app role
-- A role that writes events: for later, too.

GRANT INSERT (id, due, topic, key, type, payload, payload_bytes, headers) ON "outbox".scheduled TO "app";
GRANT EXECUTE ON FUNCTION
  "outbox".put_off(timestamp with time zone, text, text, json, bytea, text, jsonb),
  "outbox".schedule(timestamp with time zone, text, text, text, text, jsonb),
  "outbox".schedule(timestamp with time zone, text, text, json, text, jsonb),
  "outbox".schedule(timestamp with time zone, text, text, jsonb, text, jsonb),
  "outbox".schedule(timestamp with time zone, text, text, bytea, text, jsonb),
  "outbox".unschedule(uuid)
TO "app";
