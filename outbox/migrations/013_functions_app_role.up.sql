-- privilege: app role
-- A role that writes events: the view, and the functions, which run as their caller.

GRANT INSERT (id, topic, key, type, payload, payload_bytes, headers), SELECT (id) ON "outbox".stream TO "app";
GRANT EXECUTE ON FUNCTION
  "outbox".merged_headers(jsonb),
  "outbox".check_event(text, text, text, text, bytea, jsonb, text),
  "outbox".json_payload(text),
  "outbox".publish(text, text, text, text, jsonb),
  "outbox".publish(text, text, json, text, jsonb),
  "outbox".publish(text, text, jsonb, text, jsonb),
  "outbox".publish(text, text, bytea, text, jsonb),
  "outbox".publish_many(json)
TO "app";
