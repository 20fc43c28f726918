-- privilege: owner
-- part: inbox
-- What consumers have seen. Needs the schema only, so that it can stand in the
-- database of a consumer, too, which has no outbox.

CREATE TABLE IF NOT EXISTS "outbox".inbox (
  consumer    text NOT NULL,
  id          uuid NOT NULL,
  received_at timestamp with time zone NOT NULL DEFAULT now(),
  CONSTRAINT inbox_pkey PRIMARY KEY (consumer, id),
  CONSTRAINT inbox_named CHECK (consumer <> '')
);

COMMENT ON TABLE "outbox".inbox IS 'Events that a consumer has taken, one row each, written by inbox_once() and, where ids must do, by inbox_newer(); removed by inbox_purge().';
COMMENT ON COLUMN "outbox".inbox.consumer IS 'Who took it: a name that the members of one group share.';
COMMENT ON COLUMN "outbox".inbox.id IS 'inbox_key() of the header id: the same UUID, or one made of a text that is none.';
COMMENT ON COLUMN "outbox".inbox.received_at IS 'Start of the transaction that took it; retention counts from here. infinity: kept.';
COMMENT ON CONSTRAINT inbox_pkey ON "outbox".inbox IS 'An event is taken once. Who takes it at the same time waits for the first one to end.';
COMMENT ON CONSTRAINT inbox_named ON "outbox".inbox IS 'A consumer has a name.';
COMMENT ON INDEX "outbox".inbox_pkey IS 'Belongs to the primary key.';

CREATE INDEX IF NOT EXISTS inbox_received ON "outbox".inbox (consumer, received_at);

COMMENT ON INDEX "outbox".inbox_received IS 'Finds what retention removes. Equal times of one transaction share an entry.';

-- One row a stream of positions. recent is updated in place: half of a page is left for that.
CREATE TABLE IF NOT EXISTS "outbox".inbox_positions (
  consumer   text NOT NULL,
  topic      text NOT NULL,
  partition  integer NOT NULL,
  source     text NOT NULL,
  position   text COLLATE "C" NOT NULL,
  updated_at timestamp with time zone NOT NULL DEFAULT now(),
  recent     uuid[] NOT NULL DEFAULT '{}',
  CONSTRAINT inbox_positions_pkey PRIMARY KEY (consumer, topic, partition, source),
  CONSTRAINT inbox_positions_named CHECK (consumer <> '')
) WITH (fillfactor = 50);

COMMENT ON TABLE "outbox".inbox_positions IS 'How far a consumer is, one row for each partition and source; written by inbox_newer(). Rows are small, one more a partition with each generation of a relay, and kept: they are what tells a replay of a whole topic.';
COMMENT ON COLUMN "outbox".inbox_positions.consumer IS 'Who is so far.';
COMMENT ON COLUMN "outbox".inbox_positions.topic IS 'Topic on Kafka.';
COMMENT ON COLUMN "outbox".inbox_positions.partition IS 'Partition of the topic.';
COMMENT ON COLUMN "outbox".inbox_positions.source IS 'As header outrider-source; positions compare only under one.';
COMMENT ON COLUMN "outbox".inbox_positions.position IS 'Highest header outrider-position taken or dropped; empty before the first.';
COMMENT ON COLUMN "outbox".inbox_positions.updated_at IS 'Start of the transaction that moved it last.';
COMMENT ON COLUMN "outbox".inbox_positions.recent IS 'Last events taken, at most 32, by inbox_key(); then they move to inbox_chunks.';
COMMENT ON CONSTRAINT inbox_positions_pkey ON "outbox".inbox_positions IS 'One position a stream; its row is the lock of the partition.';
COMMENT ON CONSTRAINT inbox_positions_named ON "outbox".inbox_positions IS 'A consumer has a name.';
COMMENT ON INDEX "outbox".inbox_positions_pkey IS 'Belongs to the primary key.';

-- An event is remembered once, so the last id of a chunk is nobody else's.
CREATE TABLE IF NOT EXISTS "outbox".inbox_chunks (
  consumer    text NOT NULL,
  hi          uuid NOT NULL,
  lo          uuid NOT NULL,
  ids         uuid[] NOT NULL,
  received_at timestamp with time zone NOT NULL DEFAULT now(),
  CONSTRAINT inbox_chunks_pkey PRIMARY KEY (consumer, hi)
);

COMMENT ON TABLE "outbox".inbox_chunks IS 'Events that were taken by position, 64 to a row, for the days on which positions do not tell: a new source, a retry. Written by inbox_newer(), removed by inbox_purge().';
COMMENT ON COLUMN "outbox".inbox_chunks.consumer IS 'Who took them.';
COMMENT ON COLUMN "outbox".inbox_chunks.hi IS 'Last of the ids.';
COMMENT ON COLUMN "outbox".inbox_chunks.lo IS 'First of the ids.';
COMMENT ON COLUMN "outbox".inbox_chunks.ids IS 'UUIDs of version 7 made within the same five minutes, in order.';
COMMENT ON COLUMN "outbox".inbox_chunks.received_at IS 'Start of the transaction that wrote the row; retention counts from here.';
COMMENT ON CONSTRAINT inbox_chunks_pkey ON "outbox".inbox_chunks IS 'An event is in one chunk.';
COMMENT ON INDEX "outbox".inbox_chunks_pkey IS 'Belongs to the primary key.';

CREATE INDEX IF NOT EXISTS inbox_chunks_received ON "outbox".inbox_chunks (consumer, received_at);

COMMENT ON INDEX "outbox".inbox_chunks_received IS 'Finds what retention removes.';

CREATE TABLE IF NOT EXISTS "outbox".inbox_purges (
  consumer         text NOT NULL,
  forgotten_before timestamp with time zone NOT NULL,
  CONSTRAINT inbox_purges_pkey PRIMARY KEY (consumer)
);

COMMENT ON TABLE "outbox".inbox_purges IS 'How far back each consumer remembers ids.';
COMMENT ON COLUMN "outbox".inbox_purges.consumer IS 'Whose ids were removed.';
COMMENT ON COLUMN "outbox".inbox_purges.forgotten_before IS 'Ids received before this may be gone.';
COMMENT ON CONSTRAINT inbox_purges_pkey ON "outbox".inbox_purges IS 'One row a consumer.';
COMMENT ON INDEX "outbox".inbox_purges_pkey IS 'Belongs to the primary key.';

-- Ids are text on the wire. Nearly all are UUIDs, which take 16 bytes instead of
-- 37 in heap and index. Only the canonical form counts as one: two texts that are
-- different stay different. Version 8 is the one for schemes of one's own (RFC 9562).
CREATE OR REPLACE FUNCTION "outbox".inbox_key(id text) RETURNS uuid
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $function$
  SELECT CASE WHEN id ~ '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$' THEN id::uuid
    ELSE overlay(overlay(left(encode(sha256(convert_to(id, 'UTF8')), 'hex'), 32) PLACING '8' FROM 13) PLACING '8' FROM 17)::uuid END
$function$;

COMMENT ON FUNCTION "outbox".inbox_key(text) IS 'What stands for the header id: the UUID that it is, else one of version 8 made of its SHA-256.';

CREATE OR REPLACE FUNCTION "outbox".inbox_chunk_end(id uuid) RETURNS uuid
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $function$
  SELECT (lpad(to_hex((('x' || left(encode(uuid_send(id), 'hex'), 12))::bit(48)::bigint / 300000 + 1) * 300000), 12, '0') || repeat('0', 20))::uuid
$function$;

COMMENT ON FUNCTION "outbox".inbox_chunk_end(uuid) IS 'First UUID of version 7 behind the five minutes in which this one was made.';

CREATE OR REPLACE FUNCTION "outbox".inbox_once(consumer text, id text, forever boolean DEFAULT false) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_column
DECLARE
  until timestamp with time zone := CASE WHEN forever THEN 'infinity' ELSE now() END;
BEGIN
  IF coalesce(inbox_once.id, '') = '' THEN
    RAISE invalid_parameter_value USING MESSAGE = 'inbox_once: the event has no id', HINT = 'pass the header id of the record';
  END IF;
  -- Waits for a transaction that is about to take the same event, and takes it if that one rolls back.
  INSERT INTO "outbox".inbox (consumer, id, received_at) VALUES (inbox_once.consumer, "outbox".inbox_key(inbox_once.id), until) ON CONFLICT DO NOTHING;
  IF FOUND THEN
    RETURN true;
  END IF;
  IF forever THEN UPDATE "outbox".inbox AS i SET received_at = until
    WHERE i.consumer = inbox_once.consumer AND i.id = "outbox".inbox_key(inbox_once.id) AND i.received_at < until;
  END IF;
  RETURN false;
END
$function$;

COMMENT ON FUNCTION "outbox".inbox_once(text, text, boolean) IS 'Takes an event by its id: true the first time, false after that. Call it in the transaction of the effect: if that rolls back, the event was not taken. forever keeps the id from inbox_purge(): for dead letters, which somebody may retry at any time.';

CREATE OR REPLACE FUNCTION "outbox".inbox_newer(consumer text, topic text, partition integer, records jsonb) RETURNS boolean[]
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_column
DECLARE
  batch jsonb;       -- key, source, position, and whether the event is a candidate, in order
  singly uuid[];     -- candidates that get a row each
  taken uuid[];      -- of these, the ones that nobody else took
  verdict boolean[];
BEGIN
  IF EXISTS (SELECT FROM jsonb_to_recordset(records) AS r (id text) WHERE coalesce(r.id, '') = '') THEN
    RAISE invalid_parameter_value USING MESSAGE = 'inbox_newer: an event has no id', HINT = 'pass the header id of each record';
  ELSIF EXISTS (SELECT FROM jsonb_to_recordset(records) AS r (position text) WHERE r.position !~ '^[0-9A-F]{16}[.][0-9A-F]{16}$') THEN
    RAISE invalid_parameter_value USING MESSAGE = 'inbox_newer: a position is not of the form of header outrider-position';
  END IF;

  -- An older snapshot would not see what was committed while a lock was waited for.
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE invalid_transaction_state USING MESSAGE = 'inbox_newer: the transaction is ' || current_setting('transaction_isolation'),
      HINT = 'BEGIN ISOLATION LEVEL READ COMMITTED, or inbox_once, which works at any level';
  END IF;
  -- A dead letter may meet its event, retried, in the hands of another member:
  -- it is alone while it is taken. All others of the consumer go side by side.
  IF EXISTS (SELECT FROM jsonb_to_recordset(records) AS r (dead boolean) WHERE r.dead) THEN
    PERFORM pg_advisory_xact_lock(hashtextextended('outrider inbox ' || inbox_newer.consumer, 0));
  ELSE
    PERFORM pg_advisory_xact_lock_shared(hashtextextended('outrider inbox ' || inbox_newer.consumer, 0));
  END IF;
  -- The row of the stream is the lock: whoever works on the same partition, as
  -- after a rebalance that one of them has not noticed, waits here.
  INSERT INTO "outbox".inbox_positions (consumer, topic, partition, source, position)
  SELECT DISTINCT inbox_newer.consumer, inbox_newer.topic, inbox_newer.partition, r.source, ''
  FROM jsonb_to_recordset(records) AS r (source text, ordered boolean) WHERE r.ordered AND r.source IS NOT NULL ORDER BY 4
  ON CONFLICT DO NOTHING;
  PERFORM FROM "outbox".inbox_positions AS p
  WHERE p.consumer = inbox_newer.consumer AND p.topic = inbox_newer.topic AND p.partition = inbox_newer.partition
    AND p.source IN (SELECT r.source FROM jsonb_to_recordset(records) AS r (source text))
  ORDER BY p.source FOR UPDATE;

  -- One statement, so one snapshot, taken when the lock was held: what is
  -- remembered, and how far back, belong together also beside a purge.
  WITH keyed AS MATERIALIZED (
    SELECT r.*, "outbox".inbox_key(r.id) AS key
    FROM ROWS FROM (jsonb_to_recordset(records) AS (id text, source text, position text, committed_at timestamp with time zone, ordered boolean, dead boolean))
      WITH ORDINALITY AS r (id, source, position, committed_at, ordered, dead, n)
  ), given AS MATERIALIZED (
    SELECT r.n, r.key, "outbox".inbox_chunk_end(r.key) AS chunk_end, r.source, r.position, r.committed_at, coalesce(r.dead, false) AS dead,
      coalesce(r.ordered, false) AND NOT coalesce(r.dead, false) AND r.source IS NOT NULL AND r.position IS NOT NULL AND r.committed_at IS NOT NULL AS placed
    FROM keyed AS r
  ), judged AS (
    SELECT g.*, g.placed AND substr(g.key::text, 15, 1) = '7' AS compact,
      row_number() OVER (PARTITION BY g.key ORDER BY g.n) > 1
      -- Not EXISTS, which may be planned as a hash of the whole table.
      OR coalesce((SELECT true FROM "outbox".inbox AS i WHERE i.consumer = inbox_newer.consumer AND i.id = g.key LIMIT 1), false)
      OR coalesce((SELECT true FROM "outbox".inbox_positions AS o WHERE o.consumer = inbox_newer.consumer AND g.key = ANY (o.recent) LIMIT 1), false)
      OR coalesce((SELECT true FROM "outbox".inbox_chunks AS c WHERE c.consumer = inbox_newer.consumer
        AND c.hi >= g.key AND c.hi < g.chunk_end AND c.lo <= g.key AND g.key = ANY (c.ids) LIMIT 1), false) AS known,
      g.placed AND g.position COLLATE "C" <= greatest(p.position, max(g.position COLLATE "C") OVER
        (PARTITION BY g.placed, g.source ORDER BY g.n ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)) AS passed,
      -- An hour for clocks that differ.
      coalesce(g.committed_at >= (SELECT f.forgotten_before FROM "outbox".inbox_purges AS f WHERE f.consumer = inbox_newer.consumer)
        + interval '1 hour', true) AS remembered
    FROM given AS g LEFT JOIN "outbox".inbox_positions AS p ON g.placed AND p.consumer = inbox_newer.consumer
      AND p.topic = inbox_newer.topic AND p.partition = inbox_newer.partition AND p.source = g.source
  ), decided AS (
    SELECT j.*, NOT j.known AND (j.remembered OR NOT j.passed) AS candidate FROM judged AS j
  )
  SELECT jsonb_agg(to_jsonb(d) ORDER BY d.n), array_agg(d.key ORDER BY d.key) FILTER (WHERE d.candidate AND NOT d.compact)
  INTO batch, singly FROM decided AS d;

  IF singly IS NOT NULL THEN
    WITH inserted AS (
      INSERT INTO "outbox".inbox (consumer, id) SELECT inbox_newer.consumer, k FROM unnest(singly) AS k ON CONFLICT DO NOTHING RETURNING id
    )
    SELECT array_agg(i.id) INTO taken FROM inserted AS i;
  END IF;
  -- A dead letter may be retried at any time: its id is kept, whoever took the event.
  IF jsonb_path_exists(batch, '$[*].dead ? (@ == true)') THEN
    INSERT INTO "outbox".inbox AS i (consumer, id, received_at)
    SELECT DISTINCT inbox_newer.consumer, d.key, timestamp with time zone 'infinity' FROM jsonb_to_recordset(batch) AS d (key uuid, dead boolean)
    WHERE d.dead ORDER BY d.key
    ON CONFLICT (consumer, id) DO UPDATE SET received_at = excluded.received_at WHERE i.received_at < excluded.received_at;
  END IF;
  SELECT coalesce(array_agg(d.candidate AND (d.compact OR coalesce(d.key = ANY (taken), false)) ORDER BY d.n), '{}') INTO verdict
  FROM jsonb_to_recordset(batch) AS d (n bigint, key uuid, candidate boolean, compact boolean);

  -- What does not fit beside the position any more moves to chunks, cut so that
  -- none crosses the five minutes within which it is looked for.
  INSERT INTO "outbox".inbox_chunks (consumer, hi, lo, ids)
  SELECT inbox_newer.consumer, c.ids[cardinality(c.ids)], c.ids[1], c.ids
  FROM (
    SELECT array_agg(cut.key ORDER BY cut.key) AS ids
    FROM (
      SELECT a.key, a.until, (row_number() OVER (PARTITION BY a.until ORDER BY a.key) - 1) / 64 AS number
      FROM (
        SELECT k AS key, "outbox".inbox_chunk_end(k) AS until, p.source, count(*) OVER (PARTITION BY p.source) AS held
        FROM "outbox".inbox_positions AS p, LATERAL (
          SELECT unnest(p.recent) UNION ALL
          SELECT d.key FROM jsonb_to_recordset(batch) AS d (key uuid, source text, candidate boolean, compact boolean)
          WHERE d.candidate AND d.compact AND d.source = p.source
        ) AS u (k)
        WHERE p.consumer = inbox_newer.consumer AND p.topic = inbox_newer.topic AND p.partition = inbox_newer.partition
          AND p.source IN (SELECT d.source FROM jsonb_to_recordset(batch) AS d (source text, candidate boolean, compact boolean) WHERE d.candidate AND d.compact)
      ) AS a
      WHERE a.held > 32
    ) AS cut
    GROUP BY cut.until, cut.number
  ) AS c;
  WITH moved AS (
    SELECT d.source, max(d.position COLLATE "C") AS position,
      coalesce(array_agg(d.key ORDER BY d.n DESC) FILTER (WHERE d.candidate AND d.compact), '{}') AS fresh
    FROM jsonb_to_recordset(batch) AS d (n bigint, key uuid, source text, position text, placed boolean, candidate boolean, compact boolean)
    WHERE d.placed GROUP BY d.source
  ) UPDATE "outbox".inbox_positions AS p SET position = greatest(p.position, m.position), updated_at = now(),
    recent = CASE WHEN cardinality(m.fresh) + cardinality(p.recent) > 32 THEN '{}' ELSE m.fresh || p.recent END
  FROM moved AS m
  WHERE p.consumer = inbox_newer.consumer AND p.topic = inbox_newer.topic AND p.partition = inbox_newer.partition AND p.source = m.source
    AND (m.position > p.position OR m.fresh <> '{}');
  RETURN verdict;
END
$function$;

COMMENT ON FUNCTION "outbox".inbox_newer(text, text, integer, jsonb) IS 'Takes records of one partition, in their order, by position: one answer each, true the first time. records is an array of objects with id, source, position, committed_at (headers id, outrider-source, outrider-position, outrider-committed-at), ordered: whether the record has a key, and dead: whether it has a header outrider-dead-topic. Call it in the transaction of the effects.';

CREATE OR REPLACE FUNCTION "outbox".inbox_purge(consumer text, keep interval, batch integer DEFAULT 1000) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_column
DECLARE
  removed bigint;
  more bigint;
BEGIN
  IF keep IS NULL OR keep < interval '0' OR batch IS NULL OR batch < 1 THEN
    RAISE invalid_parameter_value USING MESSAGE = 'inbox_purge: keep must not be negative, and batch be 1 or more';
  END IF;
  INSERT INTO "outbox".inbox_purges AS f (consumer, forgotten_before) VALUES (inbox_purge.consumer, now() - keep)
  ON CONFLICT (consumer) DO UPDATE SET forgotten_before = greatest(f.forgotten_before, excluded.forgotten_before);
  WITH gone AS (DELETE FROM "outbox".inbox WHERE ctid = ANY (ARRAY(
    SELECT i.ctid FROM "outbox".inbox AS i WHERE i.consumer = inbox_purge.consumer AND i.received_at < now() - keep
    ORDER BY i.received_at LIMIT batch FOR UPDATE SKIP LOCKED)) RETURNING 1)
  SELECT count(*) INTO removed FROM gone;
  WITH gone AS (DELETE FROM "outbox".inbox_chunks WHERE ctid = ANY (ARRAY(
    SELECT c.ctid FROM "outbox".inbox_chunks AS c WHERE c.consumer = inbox_purge.consumer AND c.received_at < now() - keep
    ORDER BY c.received_at LIMIT batch FOR UPDATE SKIP LOCKED)) RETURNING 1)
  SELECT count(*) INTO more FROM gone;
  RETURN removed + more;
END
$function$;

COMMENT ON FUNCTION "outbox".inbox_purge(text, interval, integer) IS 'Forgets ids that were received longer ago than keep: at most batch rows of each table in one call, in order. Returns how many; call it until that is 0. keep must exceed the time after which an event can come again.';
