-- privilege: owner
-- Rows that no relay has published go with the table. Its indexes, its trigger
-- and its sequence belong to it.

DROP TABLE "outbox".events;
