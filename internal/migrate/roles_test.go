package migrate_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/outrider-cdc/outrider/internal/migrate"
	"github.com/outrider-cdc/outrider/outbox/migrations"
)

const denied = "42501"

// granted migrates with one role, where functions are not PUBLIC's, and becomes that role.
func granted(t *testing.T, db database, p migrations.Privilege) (name string) {
	t.Helper()
	must(t, db.Conn, "ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC")
	name = role(t, db, "")
	report := up(t, db, migrate.Options{Roles: []migrations.Role{{Privilege: p, Name: name}}})
	if !slices.ContainsFunc(report.Applied, func(step string) bool { return strings.HasSuffix(step, " "+name) }) {
		t.Errorf("applied %q, want the role's grants too", report.Applied)
	}
	must(t, db.Conn, `INSERT INTO outbox.events (topic, payload) VALUES ('t', '"somebody else''s"')`)
	as(t, db, name)
	return name
}

func testAppRole(t *testing.T, db database) {
	granted(t, db, migrations.AppRole)
	get[string](t, db.Conn, `INSERT INTO outbox.events (topic, key, type, payload, headers) VALUES ('t', 'k', 'y', '1', '{"a": "1"}') RETURNING id::text`)
	get[string](t, db.Conn, `INSERT INTO outbox.events (topic, payload_bytes) VALUES ('t', '1') RETURNING id::text`)
	get[string](t, db.Conn, `INSERT INTO outbox.events (id, topic, headers) VALUES (NULL, 't', NULL) RETURNING id::text`)
	must(t, db.Conn, `INSERT INTO outbox.events (id, topic) SELECT id, 't' FROM outbox.events LIMIT 1 ON CONFLICT (id) DO NOTHING`)
	if _, err := db.PgConn().CopyFrom(t.Context(), strings.NewReader("t\t1\n"), `COPY outbox.events (topic, payload) FROM STDIN`); err != nil {
		t.Errorf("copy: %v", err)
	}
	err := pgx.BeginFunc(t.Context(), db.Conn, func(tx pgx.Tx) error {
		_, err := tx.Exec(t.Context(), `SET LOCAL outbox.traceparent = '00-x'; INSERT INTO outbox.events (topic) VALUES ('t')`)
		return err
	})
	if err != nil {
		t.Errorf("with a context: %v", err)
	}
	for _, sql := range []string{
		`SELECT payload FROM outbox.events`, `SELECT topic FROM outbox.events`, `SELECT * FROM outbox.events`,
		`INSERT INTO outbox.events (topic) VALUES ('t') RETURNING topic`,
		`INSERT INTO outbox.events (topic, tx) VALUES ('t', '3')`,
		`INSERT INTO outbox.events (topic, created_at) VALUES ('t', now())`,
		`INSERT INTO outbox.events (topic, seq) OVERRIDING SYSTEM VALUE VALUES ('t', 1)`,
		`COPY outbox.events TO STDOUT`,
		`UPDATE outbox.events SET topic = 'x'`, `DELETE FROM outbox.events`, `TRUNCATE outbox.events`,
		`SELECT * FROM outbox.relays`, `SELECT * FROM outbox.settings`, `SELECT * FROM outbox.schema_version`, `SELECT * FROM outbox.dead`,
		`CREATE TABLE outbox.mine (a int)`, `ALTER TABLE outbox.events DISABLE TRIGGER own_tx`,
	} {
		refused(t, db.Conn, denied, sql)
	}
}

func testRelayRole(t *testing.T, db database) {
	granted(t, db, migrations.RelayRole)
	if n := get[int](t, db.Conn, `SELECT count(*)::int FROM outbox.events WHERE pg_visible_in_snapshot(tx, pg_current_snapshot()) AND payload IS NOT NULL`); n != 1 {
		t.Errorf("sees %d rows, want 1", n)
	}
	for _, sql := range []string{
		`INSERT INTO outbox.relays (slot, contract, system_id, timeline, phase) VALUES ('s', 1, '7', 1, 'creating')
 ON CONFLICT (slot) DO UPDATE SET instance = excluded.instance`,
		`UPDATE outbox.relays SET phase = 'streaming' WHERE slot = 's'`,
		`SELECT * FROM outbox.relays FOR UPDATE`,
		`DELETE FROM outbox.relays`,
		`INSERT INTO outbox.dead (slot, source, position, id, state, reason, topic) VALUES ('s', '7.1.s.0', 'p', 'i', 'halted', 'too large', 't')`,
		`SELECT * FROM outbox.dead FOR UPDATE`,
		`UPDATE outbox.dead SET state = 'skipped', updated_at = now() WHERE state = 'halted'`,
		`DELETE FROM outbox.dead WHERE state = 'skipped'`,
		`SELECT * FROM outbox.settings`,
		`SELECT * FROM outbox.schema_version`,
		`SELECT * FROM pg_publication_tables`,
		`SELECT system_identifier FROM pg_control_system()`,
		`DELETE FROM outbox.events WHERE seq IN (SELECT seq FROM outbox.events ORDER BY seq LIMIT 10)`,
	} {
		must(t, db.Conn, sql)
	}
	for _, sql := range []string{
		`INSERT INTO outbox.events (topic) VALUES ('t')`, `UPDATE outbox.events SET topic = 'x'`, `TRUNCATE outbox.events`,
		`UPDATE outbox.settings SET value = 'stream'`, `DELETE FROM outbox.schema_version`, `DROP TABLE outbox.relays`, `TRUNCATE outbox.dead`,
		`CREATE TABLE outbox.mine (a int)`,
	} {
		refused(t, db.Conn, denied, sql)
	}
	// The relay looks at the state of the migrations with its own rights.
	upToDate(t, db, migrations.Names{})
}

func testRoleMissing(t *testing.T, db database) {
	for privilege, want := range map[migrations.Privilege]string{
		migrations.AppRole: "CREATE ROLE ... LOGIN", migrations.RelayRole: "CREATE ROLE ... LOGIN REPLICATION",
	} {
		_, err := migrate.Up(t.Context(), db.Conn, migrate.Options{Roles: []migrations.Role{{Privilege: privilege, Name: "nobody there"}}})
		if err == nil || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%s: %v", privilege, err)
		}
	}
	for _, bad := range []migrations.Role{{Privilege: migrations.Owner, Name: "x"}, {Privilege: migrations.AppRole}, {Privilege: migrations.AppRole, Name: "a\x00"}} {
		if _, err := migrations.Script(migrations.Names{}, []migrations.Role{bad}); err == nil && bad.Privilege != migrations.Owner {
			t.Errorf("%+v was taken", bad)
		}
	}
}
