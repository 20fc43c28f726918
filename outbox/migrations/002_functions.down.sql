-- privilege: owner

DROP FUNCTION "outbox".own_tx();
DROP FUNCTION "outbox".merged_headers(jsonb);
DROP FUNCTION "outbox".context_headers();
DROP FUNCTION "outbox".uuid_v7();
