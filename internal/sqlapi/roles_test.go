package sqlapi_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/outrider-cdc/outrider/outbox/migrations"
)

const denied = "42501"

// newOwned is another database, whose outbox belongs to a plain role, and where
// functions are not PUBLIC's. It returns what its app and relay roles see.
func (db database) newOwned() (owner, app, relay database) {
	db.t.Helper()
	suffix := strings.TrimPrefix(db.app, "app_m_")
	names := []string{"owner_" + suffix, "writer_" + suffix, "streamer_" + suffix}
	for _, name := range names {
		db.must(fmt.Sprintf("CREATE ROLE %q", name))
		db.t.Cleanup(func() { db.must(fmt.Sprintf("DROP OWNED BY %q CASCADE; DROP ROLE %[1]q", name)) })
	}
	db.must(`DROP PUBLICATION outrider; DROP SCHEMA outbox CASCADE`)
	db.must(fmt.Sprintf(`ALTER DEFAULT PRIVILEGES FOR ROLE %q REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC`, names[0]))
	db.must(fmt.Sprintf(`DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %%I TO %%I', current_database(), '%s'); END $$`, names[0]))
	script, err := migrations.Script(migrations.Names{}, []migrations.Role{{Privilege: migrations.AppRole, Name: names[1]}, {Privilege: migrations.RelayRole, Name: names[2]}})
	if err != nil {
		db.t.Fatal(err)
	}
	owner = db.as(names[0])
	owner.must(script)
	return owner, db.as(names[1]), db.as(names[2])
}

// What each role can do, and one by one what it cannot, where nothing is PUBLIC's.
func testRoles(t *testing.T, db database) {
	owner, app, relay := db.newOwned()
	for _, mode := range []string{"append", "self-delete", "stream"} {
		owner.must(`SELECT outbox.set_mode($1)`, mode)
		for _, sql := range []string{
			`SELECT outbox.publish('t', 'k', '1', 'T', '{"a": "1"}')`, `SELECT outbox.publish('t', 'k', '1'::json)`, `SELECT outbox.publish('t', 'k', '1'::jsonb)`,
			`SELECT outbox.publish('t', 'k', '1'::bytea)`, `SELECT outbox.publish_many('[{"topic": "t"}]')`,
			`INSERT INTO outbox.stream (id, topic, key, type, payload, payload_bytes, headers) VALUES (NULL, 't', NULL, NULL, NULL, '1', NULL) RETURNING id`,
			`INSERT INTO outbox.events (topic, headers) VALUES ('t', '{"a": "1"}') RETURNING id`,
			`SELECT outbox.schedule(now(), 't', 'k', '1')`, `SELECT outbox.schedule(now(), 't', 'k', '1'::json)`, `SELECT outbox.schedule(now(), 't', 'k', '1'::jsonb)`,
			`SELECT outbox.unschedule(outbox.schedule(now(), 't', 'k', '1'::bytea))`, `SELECT * FROM outbox.health`,
		} {
			app.must(sql)
		}
		relay.must(`SELECT * FROM outbox.publish_due(100)`)
		if left := db.text(`SELECT count(*) FROM outbox.scheduled`); left != "0" {
			t.Errorf("%s: %s scheduled events are left", mode, left)
		}
	}
	for _, sql := range []string{
		`SELECT outbox.set_mode('append')`, `SELECT outbox.publish_due(1)`, `SELECT outbox.emit()`, `SELECT outbox.capture('pg_class', 't')`, `SELECT outbox.uncapture('pg_class')`,
		`SELECT * FROM outbox.scheduled`, `DELETE FROM outbox.scheduled`, `UPDATE outbox.scheduled SET due = now()`, `INSERT INTO outbox.scheduled (id, due, topic, created_at) VALUES (gen_random_uuid(), now(), 't', now())`,
		`SELECT topic FROM outbox.stream`, `UPDATE outbox.stream SET topic = 'x'`, `DELETE FROM outbox.stream`, `SELECT * FROM outbox.captures`,
		`DROP TRIGGER emit ON outbox.stream`, `ALTER TABLE outbox.events DISABLE TRIGGER ALL`, `UPDATE outbox.settings SET value = 'append'`, `SELECT * FROM outbox.relays`, `CREATE VIEW outbox.mine AS SELECT 1`,
	} {
		app.refused(denied, sql)
	}
	for _, sql := range []string{
		`SELECT outbox.publish('t', 'k', '1')`, `INSERT INTO outbox.stream (topic) VALUES ('t')`, `INSERT INTO outbox.scheduled (id, due, topic) VALUES (gen_random_uuid(), now(), 't')`,
		`SELECT outbox.set_mode('append')`, `DELETE FROM outbox.scheduled`, `SELECT outbox.capture('pg_class', 't')`,
	} {
		relay.refused(denied, sql)
	}
}

// As health says, and only then, nobody else can put events into the log.
func testMessagesFenced(t *testing.T, db database) {
	owner, app, _ := db.newOwned()
	if n := db.text(`SELECT count(*) FROM outbox.health WHERE subject = 'messages'`); n != "0" {
		t.Error("messages matter in mode append")
	}
	owner.must(`SELECT outbox.set_mode('stream')`)
	const forge = `SELECT pg_logical_emit_message(true, 'outrider.outbox', 'x')`
	app.must(forge)
	var hint string
	if err := app.QueryRow(t.Context(), `SELECT hint FROM outbox.health WHERE subject = 'messages' AND NOT ok`).Scan(&hint); err != nil {
		t.Fatal(err)
	}
	_, sql, ok := strings.Cut(hint, "as a superuser: ")
	if !ok {
		t.Fatalf("hint %q", hint)
	}
	db.must(sql)
	app.refused(denied, forge)
	app.refused(denied, `SELECT pg_logical_emit_message(true, 'outrider.outbox', 'x'::bytea)`)
	app.must(`INSERT INTO outbox.stream (topic) VALUES ('t')`)
	if got := app.text(`SELECT ok FROM outbox.health WHERE subject = 'messages'`); got != "true" {
		t.Errorf("health afterwards: %s", got)
	}
}

// Each line of health is wrong when its subject is.
func testHealth(t *testing.T, db database) {
	wrong := func() string {
		return db.text(`SELECT coalesce(string_agg(subject || ': ' || detail, '; ' ORDER BY subject), '') FROM outbox.health WHERE NOT ok AND (hint <> '') IS TRUE`)
	}
	begins := func(want string) {
		t.Helper()
		if got := wrong(); !strings.HasPrefix(got, want) || want == "" && got != "" {
			t.Errorf("%q, want %q", got, want)
		}
	}
	begins("relay: none has ever run here")
	db.must(`SELECT pg_create_logical_replication_slot('s', 'pgoutput')`)
	db.must(`INSERT INTO outbox.relays (slot, contract, system_id, timeline, phase, published) SELECT 's', 1, '1', 1, 'streaming', pg_current_snapshot()`)
	begins("relay s: nobody uses its slot, ")
	db.must(`SELECT pg_drop_replication_slot('s')`)
	begins("relay s: its slot is gone, ")
	db.must(`DELETE FROM outbox.relays WHERE slot = 's'`)
	db.must(`INSERT INTO outbox.events (topic, created_at) SELECT 't', now() - interval '1 hour' FROM generate_series(1, 3)`)
	db.must(`INSERT INTO outbox.relays (slot, contract, system_id, timeline, phase, published) SELECT 's', 1, '1', 1, 'streaming', '1:1:'`)
	if got := wrong(); !strings.Contains(got, "unpublished: 3 events, the oldest written ") {
		t.Errorf("unpublished: %q", got)
	}
	db.must(`UPDATE outbox.relays SET published = pg_current_snapshot()`)
	if got := wrong(); strings.Contains(got, "unpublished") {
		t.Errorf("published: %q", got)
	}
	db.must(`DELETE FROM outbox.relays`)
	db.must(`SELECT outbox.schedule(now() - interval '1 hour', 't', 'k')`)
	db.must(`INSERT INTO outbox.dead (slot, source, position, id, state, reason, topic) VALUES ('s', '7.1.s.0', 'p', 'i', 'halted', 'too large', 't')`)
	db.must(`ALTER TABLE outbox.events ENABLE TRIGGER own_tx`)
	db.must(`DROP PUBLICATION outrider`)
	for _, want := range []string{"scheduled: 1 events, the next one due ", "refused: 1 events", "trigger own_tx: is missing or not", "publication outrider: is missing"} {
		if got := wrong(); !strings.Contains(got, want) {
			t.Errorf("%q lacks %q", got, want)
		}
	}
}
