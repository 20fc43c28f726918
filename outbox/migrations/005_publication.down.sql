-- privilege: publication
-- A publication that was there before may carry tables of somebody else, whose
-- subscribers would lose them.

DO $do$
DECLARE
  others text;
BEGIN
  SELECT string_agg(format('%I.%I', schemaname, tablename), ', ' ORDER BY schemaname, tablename) INTO others
  FROM pg_publication_tables
  WHERE pubname = (parse_ident('"outrider"'))[1] AND (schemaname, tablename) <> ((parse_ident('"outbox"'))[1], 'events');
  IF others IS NOT NULL THEN
    RAISE dependent_objects_still_exist USING
      MESSAGE = 'publication "outrider" holds other tables: ' || others,
      HINT = 'Take the table out yourself, and this migration off the list: ALTER PUBLICATION "outrider" DROP TABLE "outbox".events; DELETE FROM "outbox".schema_version WHERE version = 5;';
  END IF;
END
$do$;

DROP PUBLICATION "outrider";
