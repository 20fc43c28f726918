-- privilege: app role
-- A role that writes events: the functions that do it. They run as their caller.

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
