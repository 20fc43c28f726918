-- privilege: owner

DROP FUNCTION "outbox".publish_many(json);
DROP FUNCTION "outbox".publish(text, text, bytea, text, jsonb);
DROP FUNCTION "outbox".publish(text, text, jsonb, text, jsonb);
DROP FUNCTION "outbox".publish(text, text, json, text, jsonb);
DROP FUNCTION "outbox".publish(text, text, text, text, jsonb);
DROP FUNCTION "outbox".json_payload(text);
