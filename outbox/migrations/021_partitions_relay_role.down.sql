-- privilege: relay role

REVOKE EXECUTE ON FUNCTION "outbox".tend_partitions(interval) FROM "relay";
