-- privilege: relay role
-- The role of a relay. Beside these grants it needs LOGIN and REPLICATION, which
-- only an administrator gives: ALTER ROLE ... LOGIN REPLICATION (on RDS and
-- Aurora: GRANT rds_replication TO ...).

GRANT USAGE ON SCHEMA "outbox" TO "relay";
-- UPDATE (tx): rows that a restore brought from another server get a transaction id of this one.
GRANT SELECT, DELETE, UPDATE (tx) ON "outbox".events TO "relay";
GRANT SELECT, INSERT, UPDATE, DELETE ON "outbox".relays TO "relay";
GRANT SELECT ON "outbox".settings, "outbox".schema_version TO "relay";
