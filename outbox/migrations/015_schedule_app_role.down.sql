-- privilege: app role

REVOKE EXECUTE ON FUNCTION
  "outbox".put_off(timestamp with time zone, text, text, json, bytea, text, jsonb),
  "outbox".schedule(timestamp with time zone, text, text, text, text, jsonb),
  "outbox".schedule(timestamp with time zone, text, text, json, text, jsonb),
  "outbox".schedule(timestamp with time zone, text, text, jsonb, text, jsonb),
  "outbox".schedule(timestamp with time zone, text, text, bytea, text, jsonb),
  "outbox".unschedule(uuid)
FROM "app";
REVOKE INSERT (id, due, topic, key, type, payload, payload_bytes, headers) ON "outbox".scheduled FROM "app";
