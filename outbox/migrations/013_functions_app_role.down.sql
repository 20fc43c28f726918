-- privilege: app role

REVOKE EXECUTE ON FUNCTION
  "outbox".merged_headers(jsonb),
  "outbox".check_event(text, text, text, text, bytea, jsonb, text),
  "outbox".json_payload(text),
  "outbox".publish(text, text, text, text, jsonb),
  "outbox".publish(text, text, json, text, jsonb),
  "outbox".publish(text, text, jsonb, text, jsonb),
  "outbox".publish(text, text, bytea, text, jsonb),
  "outbox".publish_many(json)
FROM "app";
REVOKE INSERT (id, topic, key, type, payload, payload_bytes, headers), SELECT (id) ON "outbox".stream FROM "app";
