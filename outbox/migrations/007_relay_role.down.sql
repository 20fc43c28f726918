-- privilege: relay role
-- LOGIN and REPLICATION, which an administrator gave, are his to take.

REVOKE SELECT ON "outbox".settings, "outbox".schema_version FROM "relay";
REVOKE SELECT, INSERT, UPDATE, DELETE ON "outbox".relays FROM "relay";
REVOKE SELECT, DELETE, UPDATE (tx) ON "outbox".events FROM "relay";
REVOKE USAGE ON SCHEMA "outbox" FROM "relay";
