-- privilege: owner

DROP FUNCTION "outbox".check_event(text, text, text, text, bytea, jsonb, text);
