-- privilege: relay role
-- A relay has partitions made and dropped, by rights of their owner.

GRANT EXECUTE ON FUNCTION "outbox".tend_partitions(interval) TO "relay";
