-- privilege: relay role

REVOKE EXECUTE ON FUNCTION "outbox".publish_due(integer) FROM "relay";
