-- privilege: owner
-- Publishing by a function call. Like any INSERT into the view stream, a call writes
-- what the mode says: a row of events, or a message.

-- Four functions of one name, by the type of the payload. A literal, and a
-- parameter of no declared type, is text to Postgres: that is taken for JSON.
CREATE OR REPLACE FUNCTION "outbox".publish(topic text, key text, payload text DEFAULT NULL, type text DEFAULT NULL, headers jsonb DEFAULT NULL) RETURNS uuid
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
  new_id uuid;
BEGIN
  PERFORM "outbox".check_event($1, $2, $4, $3, NULL, $5);
  INSERT INTO "outbox".stream (topic, key, payload, type, headers)
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
  INSERT INTO "outbox".stream (topic, key, payload_bytes, type, headers)
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
    INSERT INTO "outbox".stream (id, topic, key, type, payload, payload_bytes, headers)
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
