-- privilege: owner
-- Functions behind the defaults of events. They run as the role that inserts.

-- The time has microseconds here: 48 bits of milliseconds, then the rest of the
-- millisecond in the 12 bits that RFC 9562 leaves for it (method 3 of its
-- section 6.2). gen_random_uuid() brings the variant bits and 62 random ones.
DO $do$
BEGIN
  IF current_setting('server_version_num')::int >= 180000 THEN
    CREATE OR REPLACE FUNCTION "outbox".uuid_v7() RETURNS uuid
    LANGUAGE sql VOLATILE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
    AS $function$SELECT uuidv7()$function$;
  ELSE
    CREATE OR REPLACE FUNCTION "outbox".uuid_v7() RETURNS uuid
    LANGUAGE sql VOLATILE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
    AS $function$
      SELECT encode(substring(int8send(us / 1000) FROM 3)
          || int2send((28672 + (us % 1000) * 4096 / 1000)::int2)
          || substring(uuid_send(gen_random_uuid()) FROM 9), 'hex')::uuid
      FROM (SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS us) AS clock
    $function$;
  END IF;
END
$do$;

COMMENT ON FUNCTION "outbox".uuid_v7() IS 'A UUID of version 7: sorts by the time at which it was made, so that inserts touch the end of the primary key only.';

-- The block with EXCEPTION is a subtransaction: it is entered only when there is
-- something to parse, and takes no transaction id.
CREATE OR REPLACE FUNCTION "outbox".context_headers() RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
  given text := nullif(current_setting('outbox.headers', true), '');
  traceparent text := nullif(current_setting('outbox.traceparent', true), '');
  headers jsonb;
BEGIN
  IF given IS NOT NULL THEN
    BEGIN
      headers := given::jsonb;
    EXCEPTION WHEN data_exception THEN
      RAISE invalid_parameter_value USING
        MESSAGE = 'setting outbox.headers is not valid JSON', DETAIL = SQLERRM,
        HINT = 'SET LOCAL outbox.headers = ''{"name": "value"}''';
    END;
    IF jsonb_typeof(headers) <> 'object' THEN
      RAISE invalid_parameter_value USING
        MESSAGE = format('setting outbox.headers is a JSON %s, not an object', jsonb_typeof(headers)),
        HINT = 'SET LOCAL outbox.headers = ''{"name": "value"}''';
    END IF;
  END IF;
  IF traceparent IS NOT NULL THEN
    headers := coalesce(headers, '{}') || jsonb_build_object('traceparent', traceparent);
  END IF;
  RETURN headers;
END
$function$;

COMMENT ON FUNCTION "outbox".context_headers() IS 'Headers of the transaction: SET LOCAL outbox.headers (a JSON object) and outbox.traceparent (wins over one in outbox.headers). NULL without either.';

-- Headers of the transaction lie under the row's own, so that a row which brings
-- some keeps the trace. What is no object is left as it is, for the check of the table to refuse it.
CREATE OR REPLACE FUNCTION "outbox".merged_headers(headers jsonb) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $function$
  SELECT CASE WHEN headers IS NULL THEN "outbox".context_headers()
    WHEN jsonb_typeof(headers) = 'object' THEN coalesce("outbox".context_headers(), '{}') || headers
    ELSE headers END
$function$;

COMMENT ON FUNCTION "outbox".merged_headers(jsonb) IS 'Headers of a row on top of those of the transaction, see context_headers().';

CREATE OR REPLACE FUNCTION "outbox".own_tx() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
  NEW.tx := pg_current_xact_id();
  NEW.id := coalesce(NEW.id, "outbox".uuid_v7());
  NEW.headers := "outbox".merged_headers(NEW.headers);
  NEW.created_at := coalesce(NEW.created_at, now());
  RETURN NEW;
END
$function$;

COMMENT ON FUNCTION "outbox".own_tx() IS 'Puts right what a writer may not set (tx), treats an explicit NULL, which is what many ORMs send for an unset field, as the default, and puts headers of the transaction under those of the row.';
