-- privilege: owner
-- Without CASCADE: whoever keeps something else in the schema gets an error.

DROP TABLE "outbox".settings;
DROP TABLE "outbox".schema_version;
DROP SCHEMA "outbox";
