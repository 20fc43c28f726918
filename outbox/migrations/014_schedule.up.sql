-- privilege: owner
-- Events for later. A row cannot wait in the log without holding up all behind
-- it, so it waits in a table of its own, and the relay moves it when it is due.

CREATE TABLE IF NOT EXISTS "outbox".scheduled (
  id            uuid NOT NULL,
  due           timestamp with time zone NOT NULL,
  topic         text NOT NULL,
  key           text,
  type          text,
  payload       json,
  payload_bytes bytea,
  headers       jsonb,
  created_at    timestamp with time zone NOT NULL DEFAULT now(),
  CONSTRAINT scheduled_pkey PRIMARY KEY (id)
);

COMMENT ON TABLE "outbox".scheduled IS 'Events that are due later; schedule() writes them, unschedule() takes them back, and the relay that leads moves them into the outbox when they are due. Columns as in events.';
COMMENT ON COLUMN "outbox".scheduled.id IS 'As in events.';
COMMENT ON COLUMN "outbox".scheduled.due IS 'When it is to be published, by the clock of the server; not before.';
COMMENT ON COLUMN "outbox".scheduled.topic IS 'As in events.';
COMMENT ON COLUMN "outbox".scheduled.key IS 'As in events.';
COMMENT ON COLUMN "outbox".scheduled.type IS 'As in events.';
COMMENT ON COLUMN "outbox".scheduled.payload IS 'As in events.';
COMMENT ON COLUMN "outbox".scheduled.payload_bytes IS 'As in events.';
COMMENT ON COLUMN "outbox".scheduled.headers IS 'As in events, with those of the transaction that scheduled it.';
COMMENT ON COLUMN "outbox".scheduled.created_at IS 'Start of the transaction that scheduled it.';
COMMENT ON CONSTRAINT scheduled_pkey ON "outbox".scheduled IS 'An event is scheduled once.';
COMMENT ON INDEX "outbox".scheduled_pkey IS 'Belongs to the primary key.';

CREATE INDEX IF NOT EXISTS scheduled_due ON "outbox".scheduled (due, id);

COMMENT ON INDEX "outbox".scheduled_due IS 'What is due next.';

-- What could not be published later is refused now: nothing that is due may stop
-- the others. infinity would never be due, and is refused as well.
CREATE OR REPLACE FUNCTION "outbox".put_off(at timestamp with time zone, topic text, key text, payload json, payload_bytes bytea, type text, headers jsonb) RETURNS uuid
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
  new_id uuid := "outbox".uuid_v7();
  merged jsonb := "outbox".merged_headers($7);
BEGIN
  IF at IS NULL OR NOT isfinite(at) THEN
    RAISE invalid_parameter_value USING MESSAGE = format('at is %s, no moment at which anything could be due', coalesce(at::text, 'null')),
      HINT = 'schedule(at => now() + interval ''15 minutes'', topic => ''orders'', key => ''42'', payload => ''{}'')';
  END IF;
  PERFORM "outbox".check_event($2, $3, $6, $4::text, $5, merged);
  INSERT INTO "outbox".scheduled (id, due, topic, key, type, payload, payload_bytes, headers)
  VALUES (new_id, $1, $2, $3, $6, $4, $5, merged);
  RETURN new_id;
END
$function$;

COMMENT ON FUNCTION "outbox".put_off(timestamp with time zone, text, text, json, bytea, text, jsonb) IS 'Behind schedule(): checks an event and writes it into scheduled.';

CREATE OR REPLACE FUNCTION "outbox".schedule(at timestamp with time zone, topic text, key text, payload text DEFAULT NULL, type text DEFAULT NULL, headers jsonb DEFAULT NULL) RETURNS uuid
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $function$SELECT "outbox".put_off($1, $2, $3, "outbox".json_payload($4), NULL, $5, $6)$function$;

COMMENT ON FUNCTION "outbox".schedule(timestamp with time zone, text, text, text, text, jsonb) IS 'As publish, at a later moment: the event enters the outbox when it is due by the clock of the server, within a second or two, never before, and once. Returns the id that it will have. Events of one key that are due at different moments come in that order.';

CREATE OR REPLACE FUNCTION "outbox".schedule(at timestamp with time zone, topic text, key text, payload json, type text DEFAULT NULL, headers jsonb DEFAULT NULL) RETURNS uuid
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $function$SELECT "outbox".put_off($1, $2, $3, $4, NULL, $5, $6)$function$;

COMMENT ON FUNCTION "outbox".schedule(timestamp with time zone, text, text, json, text, jsonb) IS 'As schedule of a text payload.';

CREATE OR REPLACE FUNCTION "outbox".schedule(at timestamp with time zone, topic text, key text, payload jsonb, type text DEFAULT NULL, headers jsonb DEFAULT NULL) RETURNS uuid
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $function$SELECT "outbox".put_off($1, $2, $3, $4::text::json, NULL, $5, $6)$function$;

COMMENT ON FUNCTION "outbox".schedule(timestamp with time zone, text, text, jsonb, text, jsonb) IS 'As schedule of a text payload.';

CREATE OR REPLACE FUNCTION "outbox".schedule(at timestamp with time zone, topic text, key text, payload bytea, type text DEFAULT NULL, headers jsonb DEFAULT NULL) RETURNS uuid
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $function$SELECT "outbox".put_off($1, $2, $3, NULL, $4, $5, $6)$function$;

COMMENT ON FUNCTION "outbox".schedule(timestamp with time zone, text, text, bytea, text, jsonb) IS 'As schedule of a text payload, for bytes.';

-- The application deletes by this function only: one that is being moved waits.
CREATE OR REPLACE FUNCTION "outbox".unschedule(id uuid) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
  DELETE FROM "outbox".scheduled s WHERE s.id = $1;
  RETURN FOUND;
END
$function$;

COMMENT ON FUNCTION "outbox".unschedule(uuid) IS 'Takes a scheduled event back; false: it is in the outbox already, or never was scheduled.';

-- One at a time, or two batches of a key could change places. Rows that somebody
-- is just taking back are left for the next round.
CREATE OR REPLACE FUNCTION "outbox".publish_due(most integer, OUT moved bigint, OUT next timestamp with time zone)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
  moved := 0;
  IF NOT pg_try_advisory_xact_lock(hashtextextended('outrider publish_due ' || (parse_ident('"outbox"'))[1], 0)) THEN
    RETURN;
  END IF;
  WITH due AS (
    DELETE FROM "outbox".scheduled s WHERE s.id IN (
      SELECT c.id FROM "outbox".scheduled c WHERE c.due <= clock_timestamp() ORDER BY c.due, c.id LIMIT most FOR UPDATE SKIP LOCKED)
    RETURNING s.*
  )
  INSERT INTO "outbox".stream (id, topic, key, type, payload, payload_bytes, headers)
  SELECT d.id, d.topic, d.key, d.type, d.payload, d.payload_bytes, d.headers FROM due d ORDER BY d.due, d.id;
  GET DIAGNOSTICS moved = ROW_COUNT;
  next := (SELECT min(s.due) FROM "outbox".scheduled s);
END
$function$;

REVOKE EXECUTE ON FUNCTION "outbox".publish_due(integer) FROM PUBLIC;

COMMENT ON FUNCTION "outbox".publish_due(integer) IS 'Moves what is due into the outbox, in order, and tells how many events that were and when the next one is due. The relay that leads calls it.';
