-- privilege: owner
-- The checks of the table as a function, for those who write by functions and the view.

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
