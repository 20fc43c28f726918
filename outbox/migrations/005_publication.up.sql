-- privilege: publication
-- What the slot decodes: inserts of events, without the columns that only the
-- database needs (a column list exists from Postgres 15 on).

-- A publication that stands without the table is not mended in silence: rows
-- written meanwhile are in no stream, and somebody has to know.
DO $do$
DECLARE
  publication name := (parse_ident('"outrider"'))[1];
  columns text := '';
  existing record;
BEGIN
  SELECT p.pubinsert, EXISTS (SELECT FROM pg_publication_tables t WHERE t.pubname = p.pubname
      AND t.schemaname = (parse_ident('"outbox"'))[1] AND t.tablename = 'events') AS holds
    INTO existing FROM pg_publication p WHERE p.pubname = publication;
  IF FOUND AND NOT existing.holds THEN
    RAISE object_not_in_prerequisite_state USING
      MESSAGE = 'publication "outrider" exists and does not hold "outbox".events',
      HINT = 'Take another name for the publication, or add the table: ALTER PUBLICATION "outrider" ADD TABLE "outbox".events;';
  ELSIF FOUND AND NOT existing.pubinsert THEN
    RAISE object_not_in_prerequisite_state USING
      MESSAGE = 'publication "outrider" exists and does not publish inserts',
      HINT = 'ALTER PUBLICATION "outrider" SET (publish = ''insert'');';
  ELSIF NOT FOUND THEN
    IF current_setting('server_version_num')::int >= 150000 THEN
      columns := '(id, topic, key, type, payload, payload_bytes, headers)';
    END IF;
    EXECUTE 'CREATE PUBLICATION "outrider" FOR TABLE "outbox".events ' || columns
      || ' WITH (publish = ''insert'', publish_via_partition_root = true)';
  END IF;
END
$do$;

COMMENT ON PUBLICATION "outrider" IS 'Inserts into the outbox, for Outrider. Dropping it, or taking the table out, loses what is written until it is back.';
