-- privilege: owner

DROP VIEW "outbox".health;
