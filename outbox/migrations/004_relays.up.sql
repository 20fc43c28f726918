-- privilege: owner
-- Progress of the relays, one row a slot, updated in place.

-- The primary key is the replica identity, so that updates work under a
-- publication FOR ALL TABLES too. Updates touch no index, and a page that is
-- mostly empty keeps them heap-only.
CREATE TABLE IF NOT EXISTS "outbox".relays (
  slot          text NOT NULL,
  contract      integer NOT NULL,
  system_id     text NOT NULL,
  timeline      integer NOT NULL,
  history       text NOT NULL DEFAULT '',
  delivery      text NOT NULL DEFAULT 'at-least-once',
  phase         text NOT NULL,
  epoch         bigint NOT NULL DEFAULT 0,
  write_seq     bigint NOT NULL DEFAULT 0,
  generation    bigint NOT NULL DEFAULT 0,
  base          pg_snapshot,
  base_lsn      pg_lsn,
  cutoff        pg_snapshot,
  cursor        bigint,
  paid_base     pg_snapshot,
  paid_cursor   bigint,
  stuck_since   timestamp with time zone,
  candidate     text,
  candidate_at  timestamp with time zone,
  published     pg_snapshot,
  confirmed_lsn pg_lsn,
  position      text,
  options_hash  text NOT NULL DEFAULT '',
  fingerprint   text NOT NULL DEFAULT '',
  instance      text NOT NULL DEFAULT '',
  timeout_ms    bigint NOT NULL DEFAULT 0,
  released      boolean NOT NULL DEFAULT false,
  updated_at    timestamp with time zone NOT NULL DEFAULT clock_timestamp(),
  CONSTRAINT relays_pkey PRIMARY KEY (slot),
  CONSTRAINT known_phase CHECK (phase IN ('creating', 'backlog', 'streaming'))
) WITH (fillfactor = 20);

COMMENT ON TABLE "outbox".relays IS 'Progress of each relay, written by the relay alone. Deleting a row makes its slot a stranger, and the relay stops rather than guess.';
COMMENT ON COLUMN "outbox".relays.slot IS 'Replication slot.';
COMMENT ON COLUMN "outbox".relays.contract IS 'Version of these tables as the relay knew them.';
COMMENT ON COLUMN "outbox".relays.system_id IS 'System identifier of the server on which the row was written; another one means a restore or an upgrade.';
COMMENT ON COLUMN "outbox".relays.timeline IS 'Timeline of that server.';
COMMENT ON COLUMN "outbox".relays.history IS 'Timelines before it, with the positions at which each ended.';
COMMENT ON COLUMN "outbox".relays.delivery IS 'at-least-once or exactly-once.';
COMMENT ON COLUMN "outbox".relays.phase IS 'creating: a slot is about to be made. backlog: it stands, and rows before it are owed. streaming: what lies before the slot is on Kafka.';
COMMENT ON COLUMN "outbox".relays.epoch IS 'Grows with each leadership; fences an earlier leader.';
COMMENT ON COLUMN "outbox".relays.write_seq IS 'Grows with each write; tells a database that was set back.';
COMMENT ON COLUMN "outbox".relays.generation IS 'Grows whenever continuity breaks; part of header outrider-source.';
COMMENT ON COLUMN "outbox".relays.base IS 'Snapshot at which the slot begins.';
COMMENT ON COLUMN "outbox".relays.base_lsn IS 'Position of rows from the backlog: above all before, below all that is streamed.';
COMMENT ON COLUMN "outbox".relays.cutoff IS 'Backlog: rows visible here are published already. NULL: none are.';
COMMENT ON COLUMN "outbox".relays.cursor IS 'Backlog: published up to this seq.';
COMMENT ON COLUMN "outbox".relays.paid_base IS 'Backlog that a second loss of the slot cut short: rows visible here are published up to paid_cursor.';
COMMENT ON COLUMN "outbox".relays.paid_cursor IS 'See paid_base.';
COMMENT ON COLUMN "outbox".relays.stuck_since IS 'Since when the leader had no acknowledgement although rows wait; NULL when it has.';
COMMENT ON COLUMN "outbox".relays.candidate IS 'Standby that could lead.';
COMMENT ON COLUMN "outbox".relays.candidate_at IS 'When the candidate last reached Kafka.';
COMMENT ON COLUMN "outbox".relays.published IS 'Everything visible in this snapshot is on Kafka; retention deletes nothing else.';
COMMENT ON COLUMN "outbox".relays.confirmed_lsn IS 'The slot is never confirmed above this, so a slot ahead of it was moved by somebody else.';
COMMENT ON COLUMN "outbox".relays.position IS 'Newest position published, behind the generation that it belongs to.';
COMMENT ON COLUMN "outbox".relays.options_hash IS 'Hash of the stream options; positions inside a transaction compare only under one.';
COMMENT ON COLUMN "outbox".relays.fingerprint IS 'Identity of publication and table at the last mark; a change means that rows may have passed unsent.';
COMMENT ON COLUMN "outbox".relays.instance IS 'Relay that leads or led last.';
COMMENT ON COLUMN "outbox".relays.timeout_ms IS 'wal_sender_timeout of that relay in milliseconds: how long after updated_at it may still write to Kafka.';
COMMENT ON COLUMN "outbox".relays.released IS 'The leader stopped cleanly, so that the next one need not wait.';
COMMENT ON COLUMN "outbox".relays.updated_at IS 'Last write, by the clock of the server.';
COMMENT ON CONSTRAINT relays_pkey ON "outbox".relays IS 'One row a slot.';
COMMENT ON CONSTRAINT known_phase ON "outbox".relays IS 'Phases that a relay knows.';
COMMENT ON INDEX "outbox".relays_pkey IS 'Belongs to the primary key.';
