-- privilege: owner

DROP FUNCTION "outbox".own_tx();
DROP FUNCTION "outbox".context_headers();
DROP FUNCTION "outbox".uuid_v7();
