-- privilege: owner
-- The outbox. A row is written once: no status, no lease, no polling.

CREATE TABLE IF NOT EXISTS "outbox".events (
  id            uuid NOT NULL DEFAULT "outbox".uuid_v7(),
  topic         text NOT NULL,
  key           text,
  type          text,
  payload       json,
  payload_bytes bytea,
  headers       jsonb DEFAULT "outbox".context_headers(),
  created_at    timestamp with time zone NOT NULL DEFAULT now(),
  seq           bigint GENERATED ALWAYS AS IDENTITY,
  tx            xid8 NOT NULL DEFAULT pg_current_xact_id(),
  CONSTRAINT events_pkey PRIMARY KEY (id),
  CONSTRAINT topic_name CHECK (topic ~ '^[a-zA-Z0-9._-]{1,249}$' AND topic NOT IN ('.', '..')),
  CONSTRAINT one_payload CHECK (num_nonnulls(payload, payload_bytes) <= 1),
  CONSTRAINT headers_object CHECK (headers IS NULL OR jsonb_typeof(headers) = 'object'),
  CONSTRAINT reserved_header CHECK (headers IS NULL OR NOT headers @? '$.keyvalue() ? (@.key like_regex "^(id$|type$|outrider-)")'),
  CONSTRAINT row_size CHECK (coalesce(octet_length(payload::text), 0) + coalesce(octet_length(payload_bytes), 0)
    + coalesce(octet_length(key), 0) + coalesce(octet_length(type), 0) + coalesce(octet_length(headers::text), 0) <= 950000)
);

COMMENT ON TABLE "outbox".events IS 'Insert a row in the transaction of the business change; it is published to Kafka after the commit, and only then. Rows are never updated; the relay deletes what is published and older than its retention.';
COMMENT ON COLUMN "outbox".events.id IS 'Identity of the event, header id on Kafka; the same on every redelivery. May be given.';
COMMENT ON COLUMN "outbox".events.topic IS 'Kafka topic.';
COMMENT ON COLUMN "outbox".events.key IS 'Kafka key: events of one topic and key arrive in commit order. NULL: no order.';
COMMENT ON COLUMN "outbox".events.type IS 'Type of the event, header type on Kafka.';
COMMENT ON COLUMN "outbox".events.payload IS 'Value on Kafka, byte for byte as written (json keeps its text). Neither payload nor payload_bytes: a tombstone.';
COMMENT ON COLUMN "outbox".events.payload_bytes IS 'Value on Kafka where it is not JSON.';
COMMENT ON COLUMN "outbox".events.headers IS 'Headers on Kafka, a JSON object: a string is sent as its text, null as a null header, anything else as its JSON text. Those of the transaction lie under them, see context_headers().';
COMMENT ON COLUMN "outbox".events.created_at IS 'Start of the transaction; retention counts from here. Not the time of the commit.';
COMMENT ON COLUMN "outbox".events.seq IS 'Order of insertion: the relay reads rows by it that lie before its slot.';
COMMENT ON COLUMN "outbox".events.tx IS 'Top-level transaction that wrote the row: tells whether the row was visible in a snapshot. Set by the database, whatever the writer says.';
COMMENT ON SEQUENCE "outbox".events_seq_seq IS 'Belongs to column seq.';
COMMENT ON CONSTRAINT events_pkey ON "outbox".events IS 'An event is written once.';
COMMENT ON CONSTRAINT topic_name ON "outbox".events IS 'Topic names that Kafka takes: 1 to 249 of a-z A-Z 0-9 . _ - and neither . nor ..';
COMMENT ON CONSTRAINT one_payload ON "outbox".events IS 'An event has one value: payload or payload_bytes, not both.';
COMMENT ON CONSTRAINT headers_object ON "outbox".events IS 'headers is a JSON object.';
COMMENT ON CONSTRAINT reserved_header ON "outbox".events IS 'Headers id, type and outrider-... are set by the relay.';
COMMENT ON CONSTRAINT row_size ON "outbox".events IS 'At most 950000 octets of payload, key, type and headers together: a default broker refuses records above 1 MiB, and a refused record stops the stream.';
COMMENT ON INDEX "outbox".events_pkey IS 'Belongs to the primary key.';

CREATE INDEX IF NOT EXISTS events_seq ON "outbox".events (seq);

COMMENT ON INDEX "outbox".events_seq IS 'Chunks in order of insertion. BRIN would not do: once the heap was turned over by deletes, seq no longer follows it.';

-- xid8 has no BRIN operator class, bigint has.
CREATE INDEX IF NOT EXISTS events_tx ON "outbox".events USING brin ((tx::text::bigint)) WITH (autosummarize = on);

COMMENT ON INDEX "outbox".events_tx IS 'Rows of an interval of transactions, for a few kilobytes.';

-- BEFORE triggers run ahead of NOT NULL checks, so an explicit NULL can be
-- mended. The condition is false for an ordinary row, which costs no call.
CREATE OR REPLACE TRIGGER own_tx BEFORE INSERT ON "outbox".events FOR EACH ROW
WHEN (NEW.tx IS DISTINCT FROM pg_current_xact_id() OR NEW.id IS NULL OR NEW.created_at IS NULL
  OR current_setting('outbox.headers', true) <> '' OR current_setting('outbox.traceparent', true) <> '')
EXECUTE FUNCTION "outbox".own_tx();

-- ALWAYS: also with session_replication_role = replica, as under logical
-- replication, whose rows carry transaction ids of another server.
ALTER TABLE "outbox".events ENABLE ALWAYS TRIGGER own_tx;

COMMENT ON TRIGGER own_tx ON "outbox".events IS 'Corrects a forged tx, fills explicit NULLs and merges headers. Recovery and retention rest on tx: never disable it.';
