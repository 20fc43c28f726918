-- privilege: owner
-- Rows of mode append in partitions by time: made ahead, dropped behind. To drop
-- is for nothing what to delete costs, which pays off from some thousand events a
-- second on.

-- The table becomes the first partition of a new one of its name, with what hung
-- on it: definitions are read from the catalog and run again, so that there is no
-- second text of them. Views and publications know tables by identity.
CREATE OR REPLACE FUNCTION "outbox".partition_events(every interval DEFAULT '1 day', ahead integer DEFAULT 3) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = '200ms'
AS $function$
DECLARE
  source CONSTANT oid := '"outbox".events'::regclass;
  step CONSTANT numeric := extract(epoch FROM every);
  again text[];
  publications text[];
  grants text[];
  last bigint;
BEGIN
  IF step IS NULL OR step < 60 OR ahead IS NULL OR ahead < 1 THEN
    RAISE invalid_parameter_value USING MESSAGE = format('every is %s, ahead is %s', every, ahead), HINT = 'every is a minute at least, ahead 1 at least.';
  ELSIF (SELECT relkind FROM pg_class WHERE oid = source) = 'p' THEN
    RAISE object_not_in_prerequisite_state USING MESSAGE = 'table events has partitions already', HINT = 'To change every or ahead, update partition_every and partitions_ahead in settings.';
  ELSIF (SELECT s.value FROM "outbox".settings s WHERE s.name = 'mode') <> 'append' THEN
    RAISE object_not_in_prerequisite_state USING MESSAGE = 'only rows of mode append are kept', HINT = 'SELECT set_mode(''append'');';
  ELSIF pg_table_size(source) > 64 * 1024 * 1024 THEN
    RAISE object_not_in_prerequisite_state USING MESSAGE = format('table events has %s, and writers would wait while it is made a partition', pg_size_pretty(pg_table_size(source))),
      HINT = 'Let the relay delete more with a short OUTRIDER_RETENTION, then VACUUM FULL, and try again below 64 MB.';
  END IF;
  -- All of it in a spell, or nothing: who has rolled back to a savepoint holds the
  -- sequence, and not the table.
  FOR try IN 1..50 LOOP
    BEGIN
      LOCK TABLE "outbox".stream IN ACCESS EXCLUSIVE MODE;
      again := ARRAY(SELECT pg_get_indexdef(i.indexrelid) FROM pg_index i WHERE i.indrelid = source AND NOT i.indisprimary)
        || ARRAY(SELECT pg_get_triggerdef(t.oid) FROM pg_trigger t WHERE t.tgrelid = source AND NOT t.tgisinternal)
        || ARRAY(SELECT format('CREATE OR REPLACE VIEW %s AS %s', v.view, pg_get_viewdef(v.view)) FROM (
          SELECT DISTINCT w.ev_class::regclass AS view FROM pg_depend d JOIN pg_rewrite w ON w.oid = d.objid
          WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = source) AS v);
      publications := ARRAY(SELECT format('ALTER PUBLICATION %I ', p.pubname) FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid WHERE r.prrelid = source);
      grants := ARRAY(SELECT format('GRANT %s ON "outbox".events TO %s', a.privilege_type, CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END)
          FROM pg_class c, aclexplode(c.relacl) AS a WHERE c.oid = source AND a.grantee <> c.relowner)
        || ARRAY(SELECT format('GRANT %s (%I) ON "outbox".events TO %s', a.privilege_type, c.attname, CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END)
          FROM pg_attribute c, aclexplode(c.attacl) AS a WHERE c.attrelid = source AND c.attnum > 0);
      last := coalesce((SELECT max(e.seq) FROM "outbox".events e), 0);
      last := greatest(last, (SELECT s.last_value FROM "outbox".events_seq_seq s));

      ALTER TABLE "outbox".events RENAME TO events_first;
      ALTER TABLE "outbox".events_first ALTER COLUMN seq DROP IDENTITY, DROP CONSTRAINT events_pkey;
      ALTER INDEX "outbox".events_seq RENAME TO events_first_seq;
      ALTER INDEX "outbox".events_tx RENAME TO events_first_tx;
      DROP TRIGGER own_tx ON "outbox".events_first;
      CREATE TABLE "outbox".events (LIKE "outbox".events_first INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING COMMENTS) PARTITION BY RANGE (created_at);
      EXECUTE format('ALTER TABLE "outbox".events ALTER COLUMN seq ADD GENERATED ALWAYS AS IDENTITY (SEQUENCE NAME "outbox".events_seq_seq START WITH %s)', last + 1);
      ALTER TABLE "outbox".events ADD CONSTRAINT events_pkey PRIMARY KEY (id, created_at);
      FOR i IN 1..cardinality(again) LOOP
        EXECUTE again[i];
      END LOOP;
      FOR i IN 1..cardinality(grants) LOOP
        EXECUTE grants[i];
      END LOOP;
      EXECUTE format('ALTER TABLE "outbox".events ATTACH PARTITION "outbox".events_first FOR VALUES FROM (MINVALUE) TO (%L)', to_timestamp((floor(extract(epoch FROM now()) / step) + 1) * step));
      CREATE TABLE "outbox".events_default PARTITION OF "outbox".events DEFAULT;
      FOR i IN 1..cardinality(publications) LOOP
        EXECUTE publications[i] || 'DROP TABLE "outbox".events_first';
        EXECUTE publications[i] || 'ADD TABLE "outbox".events' || CASE WHEN current_setting('server_version_num')::int >= 150000 THEN ' (id, topic, key, type, payload, payload_bytes, headers)' ELSE '' END;
      END LOOP;
      PERFORM "outbox".fire_always();
      COMMENT ON TABLE "outbox".events IS 'Insert a row in the transaction of the business change; it is published to Kafka after the commit, and only then. Rows are never updated; partitions are dropped when they are published and older than the retention.';
      COMMENT ON TABLE "outbox".events_first IS 'Rows from before there were partitions.';
      COMMENT ON TABLE "outbox".events_default IS 'Rows for which no partition was made in time; deleted row by row.';
      COMMENT ON SEQUENCE "outbox".events_seq_seq IS 'Belongs to column seq.';
      COMMENT ON CONSTRAINT events_pkey ON "outbox".events IS 'A partitioned table can hold to this only: that id alone comes once rests on how it is made.';
      COMMENT ON INDEX "outbox".events_pkey IS 'Belongs to the primary key.';
      COMMENT ON INDEX "outbox".events_seq IS 'Chunks in order of insertion.';
      COMMENT ON INDEX "outbox".events_tx IS 'Rows of an interval of transactions, for a few kilobytes.';
      COMMENT ON TRIGGER own_tx ON "outbox".events IS 'Corrects a forged tx, fills explicit NULLs and merges headers. Recovery and retention rest on tx: never disable it.';
      INSERT INTO "outbox".settings (name, value) VALUES ('partition_every', every::text), ('partitions_ahead', ahead::text)
      ON CONFLICT (name) DO UPDATE SET value = excluded.value;
      PERFORM "outbox".make_partitions();
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

COMMENT ON FUNCTION "outbox".partition_events(interval, integer) IS 'Keeps events in partitions of that length, so many of them made ahead; the relay makes new ones and drops old ones, when all in them is published and older than the retention. For the owner of the tables, once, in mode append, with a small table. A relay that runs publishes the latest rows again.';

-- Clones of a trigger in partitions do not follow the one they are made from in every version.
CREATE OR REPLACE FUNCTION "outbox".fire_always() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
  holder regclass;
BEGIN
  FOR holder IN SELECT t.tgrelid::regclass FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
    WHERE t.tgname = 'own_tx' AND t.tgenabled <> 'A' AND c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = (parse_ident('"outbox"'))[1])
  LOOP
    EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER own_tx', holder);
  END LOOP;
END
$function$;

COMMENT ON FUNCTION "outbox".fire_always() IS 'Enables trigger own_tx in all partitions, also for replicated rows.';

-- Attaching takes no lock that a writer would wait for, unless it writes into the
-- default partition, which is looked through. Where that holds rows of a range
-- already, the range stays with it.
CREATE OR REPLACE FUNCTION "outbox".make_partitions() RETURNS integer
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = '200ms' SET timezone = 'UTC'
AS $function$
DECLARE
  step CONSTANT numeric := (SELECT extract(epoch FROM s.value::interval) FROM "outbox".settings s WHERE s.name = 'partition_every');
  ahead CONSTANT integer := (SELECT s.value::integer FROM "outbox".settings s WHERE s.name = 'partitions_ahead');
  made integer := 0;
  low timestamp with time zone;
  partition text;
BEGIN
  FOR i IN 1..ahead LOOP
    low := to_timestamp((floor(extract(epoch FROM now()) / step) + i) * step);
    partition := 'events_' || to_char(low, 'YYYYMMDD_HH24MI');
    CONTINUE WHEN to_regclass(format('"outbox".%I', partition)) IS NOT NULL;
    BEGIN
      EXECUTE format('CREATE TABLE "outbox".%I (LIKE "outbox".events INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', partition);
      EXECUTE format('ALTER TABLE "outbox".events ATTACH PARTITION "outbox".%I FOR VALUES FROM (%L) TO (%L)', partition, low, low + step * interval '1 second');
      EXECUTE format('COMMENT ON TABLE "outbox".%I IS ''Partition of events.''', partition);
      made := made + 1;
    EXCEPTION WHEN check_violation OR lock_not_available OR invalid_object_definition THEN
      NULL; -- the next round tries again
    END;
  END LOOP;
  PERFORM "outbox".fire_always();
  RETURN made;
END
$function$;

COMMENT ON FUNCTION "outbox".make_partitions() IS 'Makes the partitions that are to be there ahead of time; returns how many were missing.';

-- A partition goes when its time is over, and every row in it is published by
-- every relay. It is looked through with nobody locked out, and again when it is
-- locked: a transaction that began in its time may have written late. Who writes
-- to other partitions waits for the drop only.
CREATE OR REPLACE FUNCTION "outbox".drop_partitions(keep interval) RETURNS integer
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = '200ms'
AS $function$
DECLARE
  dropped integer := 0;
  partition regclass;
  owed boolean;
BEGIN
  IF keep IS NULL OR EXISTS (SELECT FROM "outbox".relays r WHERE r.phase <> 'streaming' OR r.published IS NULL OR r.system_id <> (SELECT c.system_identifier::text FROM pg_control_system() c))
    OR NOT EXISTS (SELECT FROM "outbox".relays) THEN
    RETURN 0;
  END IF;
  FOR partition IN
    SELECT i.inhrelid::regclass FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = '"outbox".events'::regclass AND pg_get_expr(c.relpartbound, c.oid) <> 'DEFAULT'
      AND (regexp_match(pg_get_expr(c.relpartbound, c.oid), 'TO \(''([^'']+)''\)'))[1]::timestamp with time zone <= now() - keep
  LOOP
    BEGIN
      FOR look IN 1..2 LOOP
        IF look = 2 THEN
          EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', partition);
        END IF;
        EXECUTE format('SELECT EXISTS (SELECT FROM %s e, "outbox".relays r WHERE NOT pg_visible_in_snapshot(e.tx, r.published))', partition) INTO owed;
        EXIT WHEN owed;
      END LOOP;
      IF NOT owed THEN
        EXECUTE format('DROP TABLE %s', partition);
        dropped := dropped + 1;
      END IF;
    EXCEPTION WHEN lock_not_available THEN
      NULL; -- the next round tries again
    END;
  END LOOP;
  RETURN dropped;
END
$function$;

COMMENT ON FUNCTION "outbox".drop_partitions(interval) IS 'Drops partitions whose time has been over for that long, and all of whose rows every relay has published; returns how many.';

CREATE OR REPLACE FUNCTION "outbox".tend_partitions(keep interval, OUT made integer, OUT dropped integer)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
  made := 0;
  dropped := 0;
  IF (SELECT relkind FROM pg_class WHERE oid = '"outbox".events'::regclass) = 'p' THEN
    made := "outbox".make_partitions();
    dropped := "outbox".drop_partitions(keep);
  END IF;
END
$function$;

REVOKE EXECUTE ON FUNCTION "outbox".tend_partitions(interval) FROM PUBLIC;

COMMENT ON FUNCTION "outbox".tend_partitions(interval) IS 'Makes partitions ahead and drops them behind, if there are any. The relay that leads calls it with its retention; NULL: nothing is dropped.';
