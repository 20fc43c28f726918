-- privilege: owner
-- The slots that the rows are about stay, and hold WAL until they are dropped.

DROP TABLE "outbox".relays;
