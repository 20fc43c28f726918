-- privilege: owner
-- What is scheduled goes with the table.

DROP FUNCTION "outbox".publish_due(integer);
DROP FUNCTION "outbox".unschedule(uuid);
DROP FUNCTION "outbox".schedule(timestamp with time zone, text, text, bytea, text, jsonb);
DROP FUNCTION "outbox".schedule(timestamp with time zone, text, text, jsonb, text, jsonb);
DROP FUNCTION "outbox".schedule(timestamp with time zone, text, text, json, text, jsonb);
DROP FUNCTION "outbox".schedule(timestamp with time zone, text, text, text, text, jsonb);
DROP FUNCTION "outbox".put_off(timestamp with time zone, text, text, json, bytea, text, jsonb);
DROP TABLE "outbox".scheduled;
