-- privilege: relay role
-- The role of a relay. Beside these grants it needs LOGIN and REPLICATION, which
-- only an administrator gives: ALTER ROLE ... LOGIN REPLICATION (on RDS and
-- Aurora: GRANT rds_replication TO ...).

GRANT USAGE ON SCHEMA "outbox" TO "relay";
GRANT SELECT, DELETE ON "outbox".events TO "relay";
GRANT SELECT, INSERT, UPDATE, DELETE ON "outbox".relays TO "relay";
GRANT SELECT ON "outbox".settings, "outbox".schema_version TO "relay";
