-- privilege: owner
-- Rows that Kafka refused and nobody answered for go with the table.

DROP TABLE "outbox".dead;
