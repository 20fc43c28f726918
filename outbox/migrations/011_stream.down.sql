-- privilege: owner
-- Events in the log that no relay has published stay readable for relays that
-- know messages only; the mode is append again.

SELECT "outbox".set_mode('append');
DROP FUNCTION "outbox".set_mode(text);
DROP FUNCTION "outbox".lock_events();
DROP VIEW "outbox".stream;
DROP FUNCTION "outbox".self_delete();
DROP FUNCTION "outbox".emit();
DROP FUNCTION "outbox".tuple_column(text, bytea);
DELETE FROM "outbox".settings WHERE name IN ('messages', 'kept_since');
