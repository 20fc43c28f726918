package sqlapi_test

import (
	"strings"
	"testing"

	"github.com/outrider-cdc/outrider/internal/harness/postgres"
	"github.com/outrider-cdc/outrider/internal/migrate"
	"github.com/outrider-cdc/outrider/outbox/migrations"
)

// The table becomes partitioned under all that hangs on it: rows and their order,
// grants, view, functions, checks, trigger, publication.
func testPartitions(t *testing.T, db database) {
	app := db.as(db.app)
	app.must(`SELECT outbox.publish('t', 'k', n::text) FROM generate_series(1, 100) n`)
	db.must(`SELECT outbox.partition_events(every => '1 hour', ahead => 3)`)
	app.must(`SELECT outbox.publish('t', 'k', n::text) FROM generate_series(101, 110) n`)
	app.must(`INSERT INTO outbox.events (topic, key, payload, headers) VALUES ('t', 'k', '111', '{"a": "1"}') RETURNING id`)
	app.must(`INSERT INTO outbox.stream (id, topic, key, payload) VALUES (NULL, 't', 'k', '112') RETURNING id`)
	app.must(`SET outbox.traceparent = '00-1'; INSERT INTO outbox.events (topic, key, payload) VALUES ('t', 'k', '113')`)
	if got := db.text(`SELECT count(*) || ' ' || max(step) || ' ' || min(step) FROM (SELECT payload::text::int - lag(payload::text::int) OVER (ORDER BY seq) AS step FROM outbox.events) s`); got != "113 1 1" {
		t.Errorf("rows and steps of their order: %s", got)
	}
	for _, bad := range []struct{ code, constraint, sql string }{
		{"23514", "topic_name", `INSERT INTO outbox.events (topic) VALUES ('a b')`},
		{"23514", "row_size", `INSERT INTO outbox.events (topic, payload_bytes) VALUES ('t', decode(repeat('00', 950001), 'hex'))`},
		{"428C9", "", `INSERT INTO outbox.events (topic, seq) VALUES ('t', 7)`},
	} {
		if err := db.refused(bad.code, bad.sql); err.ConstraintName != bad.constraint {
			t.Errorf("%.60s: constraint %q", bad.sql, err.ConstraintName)
		}
	}
	app.refused(denied, `SELECT payload FROM outbox.events`)
	app.refused(denied, `INSERT INTO outbox.events (topic, created_at) VALUES ('t', now())`)
	// A forged tx is corrected in every partition, also as a replicated row.
	db.must(`SET session_replication_role = replica`)
	for _, at := range []string{`now()`, `now() + interval '1 hour'`, `now() + interval '1 year'`} {
		db.must(`INSERT INTO outbox.events (topic, tx, created_at) VALUES ('forged', '3', ` + at + `)`)
	}
	db.must(`RESET session_replication_role`)
	if got := db.text(`SELECT count(DISTINCT tableoid) || ' ' || count(*) FILTER (WHERE tx = '3') FROM outbox.events WHERE topic = 'forged'`); got != "3 0" {
		t.Errorf("partitions, and forged rows: %s", got)
	}
	if got := db.text(`SELECT string_agg(tablename, ' ') FROM pg_publication_tables WHERE pubname = 'outrider'`); got != "events" {
		t.Errorf("published: %s", got)
	}
	if status, err := migrate.Check(t.Context(), db.Conn, migrations.Names{}); err != nil || !status.UpToDate() {
		t.Errorf("status (%v):\n%s", err, status)
	}
	if got := db.text(`SELECT (SELECT made FROM outbox.tend_partitions('1 day')) || ' ' || (SELECT count(*) FROM pg_inherits WHERE inhparent = 'outbox.events'::regclass)`); got != "0 5" {
		t.Errorf("made again, partitions: %s", got)
	}
}

// A partition goes when it is over and published, and no sooner.
func testPartitionsDropped(t *testing.T, db database) {
	db.must(`INSERT INTO outbox.events (topic, payload, created_at) SELECT 't', '1', now() - interval '3 days' FROM generate_series(1, 10)`)
	db.must(`SELECT outbox.partition_events(every => '1 hour')`)
	db.must(`CREATE TABLE outbox.old (LIKE outbox.events INCLUDING DEFAULTS INCLUDING CONSTRAINTS)`)
	db.must(`ALTER TABLE outbox.events DETACH PARTITION outbox.events_first; UPDATE outbox.events_first SET created_at = now() - interval '2 days'`)
	db.must(`DO $$ BEGIN EXECUTE format('ALTER TABLE outbox.events ATTACH PARTITION outbox.events_first FOR VALUES FROM (MINVALUE) TO (%L)', date_trunc('hour', now() - interval '30 hours')); END $$`)
	dropped := func(want, why string) {
		t.Helper()
		if got := db.text(`SELECT dropped FROM outbox.tend_partitions('1 day')`); got != want {
			t.Errorf("%s: dropped %s, want %s", why, got, want)
		}
	}
	dropped("0", "no relay has published anything")
	db.must(`INSERT INTO outbox.relays (slot, contract, system_id, timeline, phase, published) SELECT s, 1, system_identifier::text, 1, 'streaming', '1:1:' FROM pg_control_system(), unnest('{a,b}'::text[]) s`)
	dropped("0", "nothing is published")
	db.must(`UPDATE outbox.relays SET published = pg_current_snapshot() WHERE slot = 'a'`)
	dropped("0", "the other relay has published nothing")
	db.must(`UPDATE outbox.relays SET published = pg_current_snapshot()`)
	if got := db.text(`SELECT dropped FROM outbox.tend_partitions('2 days')`) + db.text(`SELECT dropped FROM outbox.tend_partitions(NULL)`); got != "00" {
		t.Errorf("not old enough, or never: dropped %s", got)
	}
	// Somebody who began long ago still writes to it.
	writer := postgres.Connect(t, db.url)
	must(t, writer, `BEGIN; INSERT INTO outbox.events (topic, payload, created_at) VALUES ('t', '2', now() - interval '31 hours')`)
	dropped("0", "a writer is at it")
	must(t, writer, `COMMIT`)
	dropped("0", "what it wrote is not published")
	db.must(`UPDATE outbox.relays SET published = pg_current_snapshot(), phase = 'backlog' WHERE slot = 'a'`)
	dropped("0", "a relay publishes a backlog")
	db.must(`UPDATE outbox.relays SET published = pg_current_snapshot(), phase = 'streaming'`)
	// Writers of other partitions hold off the drop, and are not held up by it.
	must(t, writer, `BEGIN; INSERT INTO outbox.events (topic, payload) VALUES ('t', '3')`)
	dropped("0", "the table is in use")
	must(t, writer, `COMMIT`)
	dropped("1", "all is published")
	if got := db.text(`SELECT string_agg(payload::text, ' ') FROM outbox.events`); got != "3" {
		t.Errorf("left: %s", got)
	}
}

func testPartitionsRefused(t *testing.T, db database) {
	for call, names := range map[string]string{
		`partition_events(every => '1 second')`: "every is 00:00:01", `partition_events(ahead => 0)`: "ahead is 0", `partition_events(every => NULL)`: "every is ",
	} {
		if err := db.refused("22023", `SELECT outbox.`+call); !strings.Contains(err.Message, names) {
			t.Errorf("%s: %q", call, err.Message)
		}
	}
	app := db.as(db.app)
	app.refused(denied, `SELECT outbox.partition_events()`)
	app.refused(denied, `SELECT outbox.tend_partitions('1 day')`)
	db.must(`SELECT outbox.set_mode('stream')`)
	if err := db.refused("55000", `SELECT outbox.partition_events()`); !strings.Contains(err.Message, "mode append") {
		t.Errorf("mode stream: %q", err.Message)
	}
	db.must(`SELECT outbox.set_mode('append'); SELECT outbox.partition_events()`)
	if err := db.refused("55000", `SELECT outbox.partition_events()`); !strings.Contains(err.Message, "partitions already") {
		t.Errorf("twice: %q", err.Message)
	}
}
