-- privilege: owner
-- What a person asks first, in one SELECT.

-- Lines that are not ok come with what to do. Nothing in it scans the table:
-- what is unpublished lies behind the mark of a relay, where the BRIN index leads.
CREATE OR REPLACE VIEW "outbox".health AS
  WITH names AS (SELECT (parse_ident('"outbox"'))[1] AS schema, (parse_ident('"outrider"'))[1] AS publication),
  mode AS (SELECT s.value AS mode FROM "outbox".settings s WHERE s.name = 'mode'),
  relays AS (
    SELECT r.slot, r.phase, r.published, r.updated_at, r.stuck_since, p.slot_name IS NOT NULL AS there, coalesce(p.active, false) AS active,
      p.wal_status = 'lost' AS lost, CASE WHEN NOT pg_is_in_recovery() THEN pg_wal_lsn_diff(pg_current_wal_lsn(), p.restart_lsn) END AS retained
    FROM "outbox".relays r LEFT JOIN pg_catalog.pg_replication_slots p ON p.slot_name = r.slot AND p.database = current_database())
  SELECT 'mode' AS subject, true AS ok, m.mode AS detail, NULL::text AS hint FROM mode m
  UNION ALL
  SELECT 'wal_level', current_setting('wal_level') = 'logical', current_setting('wal_level'), 'ALTER SYSTEM SET wal_level = ''logical''; and restart the server'
  UNION ALL
  SELECT 'publication ' || n.publication, coalesce(p.pubinsert AND t.tablename IS NOT NULL, false),
    CASE WHEN p.oid IS NULL THEN 'is missing' WHEN t.tablename IS NULL THEN 'does not hold table events' WHEN NOT p.pubinsert THEN 'does not publish inserts' ELSE 'holds table events' END,
    'outrider migrate status'
  FROM names n LEFT JOIN pg_catalog.pg_publication p ON p.pubname = n.publication
  LEFT JOIN pg_catalog.pg_publication_tables t ON t.pubname = n.publication AND t.schemaname = n.schema AND t.tablename = 'events'
  UNION ALL
  SELECT 'trigger own_tx', coalesce(bool_and(t.tgenabled = 'A'), false), CASE WHEN coalesce(bool_and(t.tgenabled = 'A'), false) THEN 'is enabled' ELSE 'is missing or not enabled ALWAYS' END, 'outrider migrate status'
  FROM pg_catalog.pg_trigger t WHERE t.tgname = 'own_tx' AND t.tgrelid = '"outbox".events'::regclass
  UNION ALL
  SELECT 'relay', false, 'none has ever run here', 'outrider run' WHERE NOT EXISTS (SELECT FROM relays)
  UNION ALL
  SELECT 'relay ' || r.slot, r.active AND r.phase = 'streaming' AND r.stuck_since IS NULL AND NOT coalesce(r.lost, false),
    CASE WHEN NOT r.there THEN 'its slot is gone' WHEN r.lost THEN 'its slot was invalidated' WHEN NOT r.active THEN 'nobody uses its slot'
      WHEN r.stuck_since IS NOT NULL THEN 'has published nothing since ' || r.stuck_since WHEN r.phase <> 'streaming' THEN 'publishes what lies before its slot' ELSE 'streams' END
    || coalesce(', ' || pg_size_pretty(r.retained) || ' of WAL retained', '') || ', progress written ' || date_trunc('second', r.updated_at),
    'outrider status; outrider relays remove ' || r.slot || ', if it will not come back'
  FROM relays r
  UNION ALL
  SELECT 'unpublished', coalesce(u.oldest > now() - interval '1 minute', true), u.number || ' events' || coalesce(', the oldest written ' || date_trunc('second', u.oldest), ''), 'outrider status'
  FROM (SELECT count(*) AS number, min(o.created_at) AS oldest FROM (
    SELECT e.created_at FROM relays r JOIN "outbox".events e
    ON e.tx::text::bigint >= pg_snapshot_xmin(r.published)::text::bigint AND NOT pg_visible_in_snapshot(e.tx, r.published)
    WHERE r.published IS NOT NULL LIMIT 100000) AS o) AS u
  UNION ALL
  SELECT 'scheduled', coalesce(min(s.due) > now() - interval '1 minute', true), count(*) || ' events' || coalesce(', the next one due ' || date_trunc('second', min(s.due)), ''), 'outrider status'
  FROM "outbox".scheduled s
  UNION ALL
  SELECT 'refused', count(*) = 0, count(*) || ' events', 'outrider deadletter list' FROM "outbox".dead d
  UNION ALL
  SELECT 'messages', NOT bool_or(has_function_privilege('public', p.oid, 'EXECUTE')), CASE WHEN bool_or(has_function_privilege('public', p.oid, 'EXECUTE'))
      THEN 'any role of this database can emit messages, and so events' ELSE 'only chosen roles can emit messages' END,
    'as a superuser: REVOKE EXECUTE ON FUNCTION ' || string_agg(p.oid::regprocedure::text, ', ' ORDER BY p.oid) || ' FROM PUBLIC; GRANT EXECUTE ON FUNCTION '
      || string_agg(p.oid::regprocedure::text, ', ' ORDER BY p.oid) || ' TO ' || (SELECT quote_ident(pg_get_userbyid(f.proowner)) FROM pg_catalog.pg_proc f WHERE f.oid = '"outbox".emit()'::regprocedure)
  FROM pg_catalog.pg_proc p WHERE p.proname = 'pg_logical_emit_message' AND p.pronamespace = 'pg_catalog'::regnamespace AND (SELECT m.mode FROM mode m) = 'stream'
  HAVING count(*) > 0;

COMMENT ON VIEW "outbox".health IS 'State of the outbox, one line a subject. Alert on: SELECT * FROM outbox.health WHERE NOT ok.';
COMMENT ON COLUMN "outbox".health.subject IS 'What the line is about.';
COMMENT ON COLUMN "outbox".health.ok IS 'False: somebody should look.';
COMMENT ON COLUMN "outbox".health.detail IS 'What was found.';
COMMENT ON COLUMN "outbox".health.hint IS 'What to do where it is not ok.';
