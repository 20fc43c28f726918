-- privilege: relay role
-- The relay keeps what Kafka refused, looks for answers, and carries them out.
-- A role that is to put such rows into events again ("outrider deadletter
-- retry") needs the grants of a relay and those of an application.

GRANT SELECT, INSERT, UPDATE, DELETE ON "outbox".dead TO "relay";
