-- privilege: owner
-- The schema, and what the tables are: mode, contract, applied migrations.

-- CREATE SCHEMA IF NOT EXISTS wants CREATE on the database even when the schema
-- is there; a schema made beforehand by an administrator must be enough.
DO $do$
BEGIN
  IF to_regnamespace('"outbox"') IS NULL THEN
    CREATE SCHEMA "outbox";
  END IF;
END
$do$;

COMMENT ON SCHEMA "outbox" IS 'Transactional outbox of Outrider: a row committed in events arrives on Kafka. Settings outbox.headers and outbox.traceparent keep their names whatever the schema is called.';

CREATE TABLE IF NOT EXISTS "outbox".schema_version (
  version    integer NOT NULL,
  name       text NOT NULL,
  checksum   text NOT NULL,
  applied_at timestamp with time zone NOT NULL DEFAULT now(),
  CONSTRAINT schema_version_pkey PRIMARY KEY (version)
);

COMMENT ON TABLE "outbox".schema_version IS 'Migrations that were applied; written by "outrider migrate up" and by the text of "outrider migrate print".';
COMMENT ON COLUMN "outbox".schema_version.version IS 'Number of the migration.';
COMMENT ON COLUMN "outbox".schema_version.name IS 'Name of the migration.';
COMMENT ON COLUMN "outbox".schema_version.checksum IS 'SHA-256 of the migration before names were put in; a released migration never changes.';
COMMENT ON COLUMN "outbox".schema_version.applied_at IS 'When it was applied first.';
COMMENT ON CONSTRAINT schema_version_pkey ON "outbox".schema_version IS 'A migration is applied once.';
COMMENT ON INDEX "outbox".schema_version_pkey IS 'Belongs to the primary key.';

CREATE TABLE IF NOT EXISTS "outbox".settings (
  name  text NOT NULL,
  value text NOT NULL,
  CONSTRAINT settings_pkey PRIMARY KEY (name),
  CONSTRAINT known_mode CHECK (name <> 'mode' OR value IN ('append', 'self-delete', 'stream'))
);

COMMENT ON TABLE "outbox".settings IS 'What application and relay agreed on: mode and contract.';
COMMENT ON COLUMN "outbox".settings.name IS 'mode: how events live, see set_mode(). contract: version of the tables as the relay reads them. messages: whether relays ask for logical messages; it stays when the mode changes, as writers may be on their way. kept_since: position from which on every row was kept.';
COMMENT ON COLUMN "outbox".settings.value IS 'Value of the setting, as text.';
COMMENT ON CONSTRAINT settings_pkey ON "outbox".settings IS 'A setting has one value.';
COMMENT ON CONSTRAINT known_mode ON "outbox".settings IS 'Modes that a relay knows.';
COMMENT ON INDEX "outbox".settings_pkey IS 'Belongs to the primary key.';

INSERT INTO "outbox".settings (name, value) VALUES ('mode', 'append'), ('contract', '1')
ON CONFLICT (name) DO NOTHING;
