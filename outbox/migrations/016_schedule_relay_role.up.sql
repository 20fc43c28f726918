-- privilege: relay role
-- A relay moves what is due, and reads how much is waiting.

GRANT EXECUTE ON FUNCTION "outbox".publish_due(integer) TO "relay";
