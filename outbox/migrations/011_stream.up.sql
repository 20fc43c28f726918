-- privilege: owner
-- How events live: kept in the table, deleted at once, or never stored at all.

-- A plain INSERT into this view publishes an event, whatever the mode. It is
-- simple enough for Postgres to write through to the table; in mode stream a
-- trigger of set_mode() takes the row instead, and nothing is stored. Reading it
-- yields nothing: what is published is not looked up again.
DO $do$
BEGIN
  IF to_regclass('"outbox".stream') IS NULL THEN
    CREATE VIEW "outbox".stream AS
      SELECT id, topic, key, type, payload, payload_bytes, headers FROM "outbox".events WHERE false;
  END IF;
END
$do$;

COMMENT ON VIEW "outbox".stream IS 'INSERT an event here, in the transaction of the business change, and it is published after the commit; set_mode() says whether a row of events carries it or a message in the log. It is always empty.';
COMMENT ON COLUMN "outbox".stream.id IS 'As in events.';
COMMENT ON COLUMN "outbox".stream.topic IS 'As in events.';
COMMENT ON COLUMN "outbox".stream.key IS 'As in events.';
COMMENT ON COLUMN "outbox".stream.type IS 'As in events.';
COMMENT ON COLUMN "outbox".stream.payload IS 'As in events.';
COMMENT ON COLUMN "outbox".stream.payload_bytes IS 'As in events.';
COMMENT ON COLUMN "outbox".stream.headers IS 'As in events.';

-- A column of TupleData, as pgoutput sends it.
CREATE OR REPLACE FUNCTION "outbox".tuple_column(format text, value bytea) RETURNS bytea
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $function$SELECT coalesce(format::bytea || int4send(octet_length(value)) || value, 'n')$function$;

COMMENT ON FUNCTION "outbox".tuple_column(text, bytea) IS 'One column of an event in a logical message.';

-- A relay that began before the mode was set does not ask for messages: until
-- every progress row says contract 2, the event goes through the table, where
-- such a relay finds it. The content is version 1 and TupleData of the columns.
CREATE OR REPLACE FUNCTION "outbox".emit() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
  NEW.id := coalesce(NEW.id, "outbox".uuid_v7());
  NEW.headers := "outbox".merged_headers(NEW.headers);
  PERFORM "outbox".check_event(NEW.topic, NEW.key, NEW.type, NEW.payload::text, NEW.payload_bytes, NEW.headers);
  IF EXISTS (SELECT FROM "outbox".relays WHERE contract < 2) THEN
    INSERT INTO "outbox".events (id, topic, key, type, payload, payload_bytes, headers)
    VALUES (NEW.id, NEW.topic, NEW.key, NEW.type, NEW.payload, NEW.payload_bytes, NEW.headers);
    RETURN NEW;
  END IF;
  PERFORM pg_logical_emit_message(true, 'outrider.' || (parse_ident('"outbox"'))[1], '\x010007'::bytea
    || "outbox".tuple_column('b', uuid_send(NEW.id))
    || "outbox".tuple_column('t', convert_to(NEW.topic, 'UTF8'))
    || "outbox".tuple_column('t', convert_to(NEW.key, 'UTF8'))
    || "outbox".tuple_column('t', convert_to(NEW.type, 'UTF8'))
    || "outbox".tuple_column('t', convert_to(NEW.payload::text, 'UTF8'))
    || "outbox".tuple_column('b', NEW.payload_bytes)
    || "outbox".tuple_column('t', convert_to(NEW.headers::text, 'UTF8')));
  RETURN NEW;
END
$function$;

COMMENT ON FUNCTION "outbox".emit() IS 'Takes a row of the view stream in mode stream: checks it as the table does, and writes it into the log as a message, bound to the transaction.';

-- The INSERT is in the log already, which is what the relay reads. By statement,
-- not by row: a trigger for each row keeps the row's page pinned while it runs, so
-- that nothing is pruned from it, and the table grows until vacuum comes.
CREATE OR REPLACE FUNCTION "outbox".self_delete() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
  DELETE FROM "outbox".events e USING written w WHERE e.id = w.id;
  RETURN NULL;
END
$function$;

COMMENT ON FUNCTION "outbox".self_delete() IS 'Deletes rows of events in the statement that wrote them, in modes self-delete and stream.';

-- Who writes through the view locks it first. In short spells, giving all locks
-- back in between: a writer that uses view and table in one transaction would run
-- into a deadlock with one that waits longer.
CREATE OR REPLACE FUNCTION "outbox".lock_events() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = '200ms'
AS $function$
BEGIN
  FOR try IN 1..50 LOOP
    BEGIN
      LOCK TABLE "outbox".stream IN ACCESS EXCLUSIVE MODE;
      RETURN;
    EXCEPTION WHEN lock_not_available THEN
      IF try = 50 THEN
        RAISE lock_not_available USING MESSAGE = 'writers leave no moment in which the table could change', DETAIL = SQLERRM,
          HINT = 'Transactions that have written events stay open for long: look for them in pg_stat_activity, and try again.';
      END IF;
      PERFORM pg_sleep(0.05);
    END;
  END LOOP;
END
$function$;

COMMENT ON FUNCTION "outbox".lock_events() IS 'Waits for a moment without writers; none of them waits longer than 0.2 s for it.';

-- Triggers, and not a look at the settings, make the mode: catalogs are seen as
-- they are also under an old snapshot, and to change a trigger waits for every
-- transaction that has written under the former mode.
CREATE OR REPLACE FUNCTION "outbox".set_mode(mode text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = '200ms'
AS $function$
BEGIN
  IF mode IS NULL OR mode NOT IN ('append', 'self-delete', 'stream') THEN
    RAISE invalid_parameter_value USING MESSAGE = format('mode %L is none', mode), HINT = 'Modes are append, self-delete and stream.';
  END IF;
  PERFORM "outbox".lock_events();
  DROP TRIGGER IF EXISTS emit ON "outbox".stream;
  DROP TRIGGER IF EXISTS self_delete ON "outbox".events;
  IF mode <> 'append' THEN
    CREATE TRIGGER self_delete AFTER INSERT ON "outbox".events REFERENCING NEW TABLE AS written FOR EACH STATEMENT EXECUTE FUNCTION "outbox".self_delete();
    ALTER TABLE "outbox".events ENABLE ALWAYS TRIGGER self_delete;
    COMMENT ON TRIGGER self_delete ON "outbox".events IS 'Made by set_mode(): rows are deleted in the statement that writes them.';
  END IF;
  IF mode = 'stream' THEN
    CREATE TRIGGER emit INSTEAD OF INSERT ON "outbox".stream FOR EACH ROW EXECUTE FUNCTION "outbox".emit();
    COMMENT ON TRIGGER emit ON "outbox".stream IS 'Made by set_mode(): events are messages in the log, and stored nowhere.';
    INSERT INTO "outbox".settings (name, value) VALUES ('messages', 'true') ON CONFLICT (name) DO UPDATE SET value = 'true';
  END IF;
  IF mode = 'append' AND EXISTS (SELECT FROM "outbox".settings s WHERE s.name = 'mode' AND s.value <> 'append') THEN
    INSERT INTO "outbox".settings (name, value) VALUES ('kept_since', pg_current_wal_insert_lsn()::text)
    ON CONFLICT (name) DO UPDATE SET value = excluded.value;
  END IF;
  INSERT INTO "outbox".settings (name, value) VALUES ('mode', mode) ON CONFLICT (name) DO UPDATE SET value = excluded.value;
END
$function$;

COMMENT ON FUNCTION "outbox".set_mode(text) IS 'How events live: append (rows stay until every relay has published them and the retention is over; a lost slot is recovered from them), self-delete (rows are deleted at once) or stream (messages, nothing stored). The last two are as durable as the slot. For the owner of the tables; no writer waits for it longer than 0.2 s.';
