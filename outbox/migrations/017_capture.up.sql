-- privilege: owner
-- Events for the changes of a table whose application is not to be touched.

-- What capture() makes is meant to be read: a trigger function that names its
-- columns. Values are compared as text, since not every type has an equality.
CREATE OR REPLACE FUNCTION "outbox".capture(source regclass, topic text, key text[] DEFAULT NULL, columns text[] DEFAULT NULL,
  operations text[] DEFAULT '{insert,update,delete}', changed text[] DEFAULT NULL, condition text DEFAULT NULL) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s'
AS $function$
DECLARE
  named text := (SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = source);
  body text;
  unknown text;
  compared text[];
BEGIN
  IF source IS NULL THEN
    RAISE invalid_parameter_value USING MESSAGE = 'source is null', HINT = 'capture(''public.orders'', topic => ''orders'')';
  ELSIF (SELECT relnamespace FROM pg_class WHERE oid = source) = (SELECT oid FROM pg_namespace WHERE nspname = (parse_ident('"outbox"'))[1]) THEN
    RAISE invalid_parameter_value USING MESSAGE = format('source %s belongs to the outbox itself', source), HINT = 'Capture tables of the application.';
  END IF;
  PERFORM "outbox".check_event($2, NULL, NULL, NULL, NULL, NULL);
  IF NOT operations <@ '{insert,update,delete,truncate}' OR cardinality(operations) = 0 OR operations IS NULL THEN
    RAISE invalid_parameter_value USING MESSAGE = format('operations are %s', coalesce(operations::text, 'null')), HINT = 'Some of insert, update, delete and truncate.';
  END IF;
  IF key IS NULL THEN
    key := ARRAY(SELECT a.attname::text FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
      WHERE i.indrelid = source AND i.indisprimary ORDER BY array_position(i.indkey::int2[], a.attnum));
    IF cardinality(key) = 0 THEN
      RAISE invalid_parameter_value USING MESSAGE = format('%s has no primary key, and key is not given', source),
        HINT = 'Name the columns of the Kafka key: key => ''{customer_id}''. An empty array: no key, and no order.';
    END IF;
  END IF;
  columns := coalesce(columns, ARRAY(SELECT attname::text FROM pg_attribute WHERE attrelid = source AND attnum > 0 AND NOT attisdropped ORDER BY attnum));
  compared := coalesce(changed, columns);
  unknown := (SELECT string_agg(u.name, ', ') FROM unnest(key || columns || compared) AS u(name)
    WHERE NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = source AND attname = u.name AND attnum > 0 AND NOT attisdropped));
  IF unknown IS NOT NULL OR cardinality(columns) = 0 OR cardinality(compared) = 0 THEN
    RAISE undefined_column USING MESSAGE = CASE WHEN unknown IS NULL THEN 'columns and changed must not be empty' ELSE format('%s has no column %s', source, unknown) END,
      HINT = 'key, columns and changed are arrays of column names.';
  END IF;
  body := format($body$
DECLARE
  old_key text;
  new_key text;
BEGIN
  IF current_setting('outbox.suppress', true) = 'on' THEN
    RETURN NULL;
  END IF;
  IF TG_OP = 'TRUNCATE' THEN
    INSERT INTO "outbox".stream (topic, type, payload, headers) VALUES (%1$L, %2$L, '{"before": null, "after": null}', '{"operation": "truncate"}');
    RETURN NULL;
  END IF;
  IF TG_OP = 'UPDATE' AND %3$s THEN
    RETURN NULL; -- nothing that is watched has changed
  END IF;
  IF (%4$s) IS NOT TRUE THEN
    RETURN NULL;
  END IF;
  old_key := %5$s;
  new_key := %6$s;
  IF TG_OP = 'UPDATE' AND old_key IS DISTINCT FROM new_key THEN -- each key is told what became of it
    INSERT INTO "outbox".stream (topic, key, type, payload, headers)
    VALUES (%1$L, old_key, %2$L, json_build_object('before', %7$s, 'after', NULL), '{"operation": "delete"}'),
      (%1$L, new_key, %2$L, json_build_object('before', NULL, 'after', %8$s), '{"operation": "insert"}');
    RETURN NULL;
  END IF;
  INSERT INTO "outbox".stream (topic, key, type, payload, headers)
  VALUES (%1$L, CASE TG_OP WHEN 'DELETE' THEN old_key ELSE new_key END, %2$L,
    json_build_object('before', CASE WHEN TG_OP <> 'INSERT' THEN %7$s END, 'after', CASE WHEN TG_OP <> 'DELETE' THEN %8$s END),
    jsonb_build_object('operation', lower(TG_OP)));
  RETURN NULL;
END
$body$,
    $2, named,
    (SELECT string_agg(format('OLD.%1$I::text IS NOT DISTINCT FROM NEW.%1$I::text', u.name), ' AND ' ORDER BY u.n) FROM unnest(compared || key) WITH ORDINALITY AS u(name, n)),
    coalesce(condition, 'true'), "outbox".capture_key('OLD', key), "outbox".capture_key('NEW', key),
    "outbox".capture_row('OLD', columns), "outbox".capture_row('NEW', columns));
  EXECUTE format('CREATE OR REPLACE FUNCTION "outbox".%I() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS %L',
    "outbox".capture_name(source), body);
  EXECUTE format('REVOKE EXECUTE ON FUNCTION "outbox".%I() FROM PUBLIC', "outbox".capture_name(source));
  EXECUTE format('COMMENT ON FUNCTION "outbox".%I() IS %L', "outbox".capture_name(source),
    format('Made by capture(): publishes changes of %s to topic %s.', named, $2));
  EXECUTE format('DROP TRIGGER IF EXISTS outbox_capture ON %1$s; DROP TRIGGER IF EXISTS outbox_capture_truncate ON %1$s', source);
  IF operations && '{insert,update,delete}' THEN
    EXECUTE format('CREATE TRIGGER outbox_capture AFTER %s ON %s FOR EACH ROW EXECUTE FUNCTION "outbox".%I()',
      (SELECT string_agg(DISTINCT o.name, ' OR ') FROM unnest(operations) AS o(name) WHERE o.name <> 'truncate'), source, "outbox".capture_name(source));
  END IF;
  IF 'truncate' = ANY (operations) THEN
    EXECUTE format('CREATE TRIGGER outbox_capture_truncate AFTER TRUNCATE ON %s FOR EACH STATEMENT EXECUTE FUNCTION "outbox".%I()', source, "outbox".capture_name(source));
  END IF;
END
$function$;

COMMENT ON FUNCTION "outbox".capture(regclass, text, text[], text[], text[], text[], text) IS 'Publishes the changes of a table by a trigger, without a change to its application. key: columns of the Kafka key (default: the primary key; several make a JSON array). columns: those in the event (default: all of today). operations: insert, update, delete, truncate. changed: an update counts if one of these changes (default: columns). condition: SQL over NEW and OLD, such as ''NEW.state = 4''; it runs as the owner. The value is {"before": {...}, "after": {...}}, the header operation says which. A transaction with SET LOCAL outbox.suppress = ''on'' publishes nothing. May be called again, and replaces then. For the owner of the outbox with the right to make triggers on the table.';

CREATE OR REPLACE FUNCTION "outbox".capture_name(source regclass) RETURNS name
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $function$
  SELECT (CASE WHEN octet_length(named) <= 55 THEN 'capture_' || named ELSE 'capture_' || left(named, 13) || '_' || md5(named) END)::name
  FROM (SELECT n.nspname || '_' || c.relname AS named FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = source) AS t
$function$;

COMMENT ON FUNCTION "outbox".capture_name(regclass) IS 'Name of the trigger function that capture() makes for a table.';

CREATE OR REPLACE FUNCTION "outbox".capture_key(variable text, key text[]) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $function$
  SELECT CASE cardinality(key) WHEN 0 THEN 'NULL' WHEN 1 THEN format('%s.%I::text', variable, key[1])
    ELSE 'json_build_array(' || (SELECT string_agg(format('%s.%I', variable, k.name), ', ' ORDER BY k.n) FROM unnest(key) WITH ORDINALITY AS k(name, n)) || ')::text' END
$function$;

COMMENT ON FUNCTION "outbox".capture_key(text, text[]) IS 'SQL of the Kafka key, for capture().';

-- Not json_build_object: a function takes 100 arguments at most.
CREATE OR REPLACE FUNCTION "outbox".capture_row(variable text, columns text[]) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $function$
  SELECT '(SELECT row_to_json(r) FROM (SELECT ' || string_agg(format('%s.%I AS %2$I', variable, c.name), ', ' ORDER BY c.n) || ') AS r)'
  FROM unnest(columns) WITH ORDINALITY AS c(name, n)
$function$;

COMMENT ON FUNCTION "outbox".capture_row(text, text[]) IS 'SQL of one side of a change, for capture().';

CREATE OR REPLACE FUNCTION "outbox".uncapture(source regclass) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s'
AS $function$
DECLARE
  there boolean := EXISTS (SELECT FROM pg_trigger WHERE tgrelid = source AND tgname IN ('outbox_capture', 'outbox_capture_truncate'));
BEGIN
  EXECUTE format('DROP TRIGGER IF EXISTS outbox_capture ON %1$s; DROP TRIGGER IF EXISTS outbox_capture_truncate ON %1$s', source);
  EXECUTE format('DROP FUNCTION IF EXISTS "outbox".%I()', "outbox".capture_name(source));
  RETURN there;
END
$function$;

COMMENT ON FUNCTION "outbox".uncapture(regclass) IS 'Ends what capture() began; false: the table was not captured.';

CREATE OR REPLACE VIEW "outbox".captures AS
  SELECT t.tgrelid::regclass AS source, string_agg(pg_get_triggerdef(t.oid), '; ' ORDER BY t.tgname) AS triggers,
    bool_and(t.tgenabled <> 'D') AS enabled, max(p.prosrc) AS function
  FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
  WHERE t.tgname IN ('outbox_capture', 'outbox_capture_truncate') AND NOT t.tgisinternal AND t.tgparentid = 0
    AND p.pronamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = (parse_ident('"outbox"'))[1])
  GROUP BY t.tgrelid;

COMMENT ON VIEW "outbox".captures IS 'Tables whose changes are published by capture().';
COMMENT ON COLUMN "outbox".captures.source IS 'The table.';
COMMENT ON COLUMN "outbox".captures.triggers IS 'Triggers on it.';
COMMENT ON COLUMN "outbox".captures.enabled IS 'False: somebody has disabled one.';
COMMENT ON COLUMN "outbox".captures.function IS 'Body of the trigger function.';
