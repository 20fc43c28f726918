-- privilege: relay role

REVOKE SELECT, INSERT, UPDATE, DELETE ON "outbox".dead FROM "relay";
