-- privilege: owner
-- Triggers on tables of the application hang on these functions: uncapture() the
-- tables first, or this fails with their names.

DO $do$
DECLARE
  tables text := (SELECT string_agg(source::text, ', ') FROM "outbox".captures);
BEGIN
  IF tables IS NOT NULL THEN
    RAISE dependent_objects_still_exist USING MESSAGE = 'tables are captured: ' || tables, HINT = 'SELECT "outbox".uncapture(source) FROM "outbox".captures;';
  END IF;
END
$do$;

DROP VIEW "outbox".captures;
DROP FUNCTION "outbox".uncapture(regclass);
DROP FUNCTION "outbox".capture(regclass, text, text[], text[], text[], text[], text);
DROP FUNCTION "outbox".capture_row(text, text[]);
DROP FUNCTION "outbox".capture_key(text, text[]);
DROP FUNCTION "outbox".capture_name(regclass);
