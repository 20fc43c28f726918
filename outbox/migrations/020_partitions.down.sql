-- privilege: owner
-- A table that has partitions keeps them; nobody makes or drops any more.

DROP FUNCTION "outbox".tend_partitions(interval);
DROP FUNCTION "outbox".drop_partitions(interval);
DROP FUNCTION "outbox".make_partitions();
DROP FUNCTION "outbox".fire_always();
DROP FUNCTION "outbox".partition_events(interval, integer);
