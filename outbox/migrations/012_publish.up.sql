-- privilege: owner
-- Publishing by a function call, and headers of the transaction under those of the row.

-- Headers of the transaction lie under the row's own, so that a row which brings
-- some keeps the trace. Defaults have put them in already where the row brings none.
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

-- What is no object is left as it is, for the check of the table to refuse it.
CREATE OR REPLACE FUNCTION "outbox".merged_headers(headers jsonb) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $function$
  SELECT CASE WHEN headers IS NULL THEN "outbox".context_headers()
    WHEN jsonb_typeof(headers) = 'object' THEN coalesce("outbox".context_headers(), '{}') || headers
    ELSE headers END
$function$;

COMMENT ON FUNCTION "outbox".merged_headers(jsonb) IS 'Headers of a row on top of those of the transaction, see context_headers().';

CREATE OR REPLACE TRIGGER own_tx BEFORE INSERT ON "outbox".events FOR EACH ROW
WHEN (NEW.tx IS DISTINCT FROM pg_current_xact_id() OR NEW.id IS NULL OR NEW.created_at IS NULL
  OR current_setting('outbox.headers', true) <> '' OR current_setting('outbox.traceparent', true) <> '')
EXECUTE FUNCTION "outbox".own_tx();

ALTER TABLE "outbox".events ENABLE ALWAYS TRIGGER own_tx; -- a replaced trigger fires on origin only

-- The checks of the table, with errors that name the argument.
CREATE OR REPLACE FUNCTION "outbox".check_event(topic text, key text, type text, payload text, payload_bytes bytea, headers jsonb, called text DEFAULT '') RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
  reserved text;
  size bigint;
BEGIN
  IF topic IS NULL THEN
    RAISE not_null_violation USING MESSAGE = called || 'topic is null', COLUMN = 'topic', HINT = 'Every event names the Kafka topic that it goes to.';
  ELSIF topic !~ '^[a-zA-Z0-9._-]{1,249}$' OR topic IN ('.', '..') THEN
    RAISE check_violation USING MESSAGE = called || format('topic "%s" is none that Kafka takes', left(topic, 300)), CONSTRAINT = 'topic_name', COLUMN = 'topic',
      HINT = '1 to 249 of a-z A-Z 0-9 . _ - and neither . nor ..';
  ELSIF num_nonnulls(payload, payload_bytes) > 1 THEN
    RAISE check_violation USING MESSAGE = called || 'both payload and payload_bytes are given', CONSTRAINT = 'one_payload', COLUMN = 'payload_bytes',
      HINT = 'An event has one value: payload for JSON, payload_bytes for anything else, neither for a tombstone.';
  ELSIF jsonb_typeof(headers) <> 'object' THEN
    RAISE check_violation USING MESSAGE = called || format('headers is a JSON %s, not an object', jsonb_typeof(headers)), CONSTRAINT = 'headers_object', COLUMN = 'headers',
      HINT = '{"name": "value"}';
  END IF;
  reserved := (SELECT h.name FROM jsonb_object_keys(headers) AS h(name) WHERE h.name ~ '^(id$|type$|outrider-)' LIMIT 1);
  IF reserved IS NOT NULL THEN
    RAISE check_violation USING MESSAGE = called || format('headers holds "%s", which the relay sets', reserved), CONSTRAINT = 'reserved_header', COLUMN = 'headers',
      HINT = 'id and type are arguments of their own; outrider-... are reserved.';
  END IF;
  size := coalesce(octet_length(payload), 0) + coalesce(octet_length(payload_bytes), 0)
    + coalesce(octet_length(key), 0) + coalesce(octet_length(type), 0) + coalesce(octet_length(headers::text), 0);
  IF size > 950000 THEN
    RAISE check_violation USING MESSAGE = called || format('the event has %s octets, 950000 at most', size), CONSTRAINT = 'row_size', COLUMN = CASE WHEN payload IS NULL THEN 'payload_bytes' ELSE 'payload' END,
      HINT = 'payload, key, type and headers count together. Keep large values elsewhere, and publish where they are.';
  END IF;
  RETURN true;
END
$function$;

COMMENT ON FUNCTION "outbox".check_event(text, text, text, text, bytea, jsonb, text) IS 'Refuses what the checks of table events refuse, under the same constraint names, with a message that names the argument, after what it is called; true otherwise.';

-- Four functions of one name, by the type of the payload. A literal, and a
-- parameter of no declared type, is text to Postgres: that is taken for JSON.
CREATE OR REPLACE FUNCTION "outbox".publish(topic text, key text, payload text DEFAULT NULL, type text DEFAULT NULL, headers jsonb DEFAULT NULL) RETURNS uuid
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
  new_id uuid;
BEGIN
  PERFORM "outbox".check_event($1, $2, $4, $3, NULL, $5);
  INSERT INTO "outbox".events (topic, key, payload, type, headers)
  VALUES ($1, $2, "outbox".json_payload($3), $4, "outbox".merged_headers($5)) RETURNING id INTO new_id;
  RETURN new_id;
END
$function$;

COMMENT ON FUNCTION "outbox".publish(text, text, text, text, jsonb) IS 'Writes an event whose payload is JSON, kept byte for byte, in the current transaction, and returns its id. No payload: a tombstone. headers lie on top of those of the transaction. Needs the grants of an INSERT.';

-- The block with EXCEPTION is a subtransaction; it takes no transaction id.
CREATE OR REPLACE FUNCTION "outbox".json_payload(payload text) RETURNS json
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
  RETURN payload::json;
EXCEPTION WHEN data_exception THEN
  RAISE invalid_text_representation USING MESSAGE = 'payload is not valid JSON', DETAIL = SQLERRM,
    HINT = 'Bytes that are not JSON are given as bytea: payload => $1::bytea.';
END
$function$;

COMMENT ON FUNCTION "outbox".json_payload(text) IS 'The text as json, or an error that names the argument.';

CREATE OR REPLACE FUNCTION "outbox".publish(topic text, key text, payload json, type text DEFAULT NULL, headers jsonb DEFAULT NULL) RETURNS uuid
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $function$SELECT "outbox".publish($1, $2, $3::text, $4, $5)$function$;

COMMENT ON FUNCTION "outbox".publish(text, text, json, text, jsonb) IS 'As publish of a text payload.';

CREATE OR REPLACE FUNCTION "outbox".publish(topic text, key text, payload jsonb, type text DEFAULT NULL, headers jsonb DEFAULT NULL) RETURNS uuid
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $function$SELECT "outbox".publish($1, $2, $3::text, $4, $5)$function$;

COMMENT ON FUNCTION "outbox".publish(text, text, jsonb, text, jsonb) IS 'As publish of a text payload. jsonb has lost spaces, order and repeats of keys before it comes here.';

CREATE OR REPLACE FUNCTION "outbox".publish(topic text, key text, payload bytea, type text DEFAULT NULL, headers jsonb DEFAULT NULL) RETURNS uuid
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
  new_id uuid;
BEGIN
  PERFORM "outbox".check_event($1, $2, $4, NULL, $3, $5);
  INSERT INTO "outbox".events (topic, key, payload_bytes, type, headers)
  VALUES ($1, $2, $3, $4, "outbox".merged_headers($5)) RETURNING id INTO new_id;
  RETURN new_id;
END
$function$;

COMMENT ON FUNCTION "outbox".publish(text, text, bytea, text, jsonb) IS 'Writes an event whose payload is bytes, in the current transaction, and returns its id.';

-- json, not jsonb: an object in it keeps its text, and that is the payload.
CREATE OR REPLACE FUNCTION "outbox".publish_many(events json) RETURNS SETOF uuid
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
  wrong record;
BEGIN
  IF json_typeof(events) <> 'array' THEN
    RAISE invalid_parameter_value USING MESSAGE = format('events is a JSON %s, not an array', json_typeof(events)),
      HINT = '[{"topic": "orders", "key": "42", "type": "OrderPaid", "payload": {"order": 42}}]';
  END IF;
  SELECT e.n, json_typeof(e.event) AS kind INTO wrong
  FROM json_array_elements(events) WITH ORDINALITY AS e(event, n) WHERE json_typeof(e.event) <> 'object' LIMIT 1;
  IF FOUND THEN
    RAISE invalid_parameter_value USING MESSAGE = format('events[%s] is a JSON %s, not an object', wrong.n - 1, wrong.kind),
      HINT = '{"topic": "orders", "key": "42", "type": "OrderPaid", "payload": {"order": 42}}';
  END IF;
  SELECT e.n, f.name INTO wrong
  FROM json_array_elements(events) WITH ORDINALITY AS e(event, n), json_object_keys(e.event) AS f(name)
  WHERE f.name NOT IN ('id', 'topic', 'key', 'type', 'payload', 'payload_bytes', 'headers') LIMIT 1;
  IF FOUND THEN
    RAISE invalid_parameter_value USING MESSAGE = format('events[%s] has the field "%s", which no event has', wrong.n - 1, wrong.name),
      HINT = 'Fields are id, topic, key, type, payload, payload_bytes (base64) and headers.';
  END IF;
  RETURN QUERY
  WITH written AS (
    INSERT INTO "outbox".events (id, topic, key, type, payload, payload_bytes, headers)
    SELECT e.id, e.topic, e.key, e.type, e.payload, e.payload_bytes, "outbox".merged_headers(e.headers)
    FROM (
      SELECT a.n, coalesce((event ->> 'id')::uuid, "outbox".uuid_v7()) AS id, event ->> 'topic' AS topic, event ->> 'key' AS key, event ->> 'type' AS type,
        CASE WHEN json_typeof(event -> 'payload') <> 'null' THEN event -> 'payload' END AS payload,
        decode(event ->> 'payload_bytes', 'base64') AS payload_bytes,
        CASE WHEN json_typeof(event -> 'headers') <> 'null' THEN (event -> 'headers')::text::jsonb END AS headers
      FROM json_array_elements(events) WITH ORDINALITY AS a(event, n)
    ) AS e
    WHERE "outbox".check_event(e.topic, e.key, e.type, e.payload::text, e.payload_bytes, e.headers, format('events[%s]: ', e.n - 1))
    ORDER BY e.n
    RETURNING id
  )
  SELECT written.id FROM written;
END
$function$;

COMMENT ON FUNCTION "outbox".publish_many(json) IS 'Writes the events of a JSON array in its order, and returns their ids in that order. Fields: topic, key, type, payload (any JSON, kept byte for byte; null: none), payload_bytes (base64), headers, id.';
