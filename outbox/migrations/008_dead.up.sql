-- privilege: owner
-- Rows that Kafka refused, kept until somebody retries or drops them.

-- The whole row is copied: retention deletes its event like any other. The
-- primary key is the replica identity, as in relays.
CREATE TABLE IF NOT EXISTS "outbox".dead (
  slot          text NOT NULL,
  source        text NOT NULL,
  position      text NOT NULL,
  id            text NOT NULL,
  state         text NOT NULL,
  reason        text NOT NULL,
  topic         text NOT NULL,
  key           text,
  type          text,
  value         bytea,
  headers       text,
  committed_at  timestamp with time zone,
  created_at    timestamp with time zone NOT NULL DEFAULT now(),
  updated_at    timestamp with time zone NOT NULL DEFAULT now(),
  CONSTRAINT dead_pkey PRIMARY KEY (slot, source, position),
  CONSTRAINT known_state CHECK (state IN ('halted', 'divert', 'skip', 'dead-lettered', 'skipped'))
);

COMMENT ON TABLE "outbox".dead IS 'Rows that Kafka refused, whole, until "outrider deadletter" retries or drops them. The relay writes them and waits at one that is halted; a person answers.';
COMMENT ON COLUMN "outbox".dead.slot IS 'Replication slot of the relay.';
COMMENT ON COLUMN "outbox".dead.source IS 'As header outrider-source; positions compare only under one.';
COMMENT ON COLUMN "outbox".dead.position IS 'As header outrider-position: where in the log the row stands.';
COMMENT ON COLUMN "outbox".dead.id IS 'Id of the event; empty if the row had none.';
COMMENT ON COLUMN "outbox".dead.state IS 'halted: the relay waits at this row. divert, skip: the answer of a person, not yet carried out. dead-lettered: published to the dead-letter topic instead. skipped: left out.';
COMMENT ON COLUMN "outbox".dead.reason IS 'Why it could not be published.';
COMMENT ON COLUMN "outbox".dead.topic IS 'Topic on Kafka to which it was to go, as prefix and renaming made it.';
COMMENT ON COLUMN "outbox".dead.key IS 'Kafka key. NULL: none.';
COMMENT ON COLUMN "outbox".dead.type IS 'Type of the event. NULL: none.';
COMMENT ON COLUMN "outbox".dead.value IS 'Value for Kafka, byte for byte. NULL: a tombstone.';
COMMENT ON COLUMN "outbox".dead.headers IS 'Headers of the row itself as JSON text, or what the row held if that cannot be read. NULL: none.';
COMMENT ON COLUMN "outbox".dead.committed_at IS 'When the row was committed, as header outrider-committed-at.';
COMMENT ON COLUMN "outbox".dead.created_at IS 'When it was refused first, by the clock of the server.';
COMMENT ON COLUMN "outbox".dead.updated_at IS 'When its state changed last, by the clock of the server.';
COMMENT ON CONSTRAINT dead_pkey ON "outbox".dead IS 'A row is refused once at its place.';
COMMENT ON CONSTRAINT known_state ON "outbox".dead IS 'States that a relay knows.';
COMMENT ON INDEX "outbox".dead_pkey IS 'Belongs to the primary key.';
