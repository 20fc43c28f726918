-- privilege: app role

REVOKE EXECUTE ON FUNCTION "outbox".uuid_v7(), "outbox".context_headers() FROM "app";
REVOKE INSERT (id, topic, key, type, payload, payload_bytes, headers), SELECT (id) ON "outbox".events FROM "app";
REVOKE USAGE ON SCHEMA "outbox" FROM "app";
