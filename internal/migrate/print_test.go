package migrate_test

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/outrider-cdc/outrider/internal/harness"
	"github.com/outrider-cdc/outrider/internal/migrate"
	"github.com/outrider-cdc/outrider/outbox/migrations"
)

func script(t *testing.T, n migrations.Names, roles ...migrations.Role) string {
	t.Helper()
	text, err := migrations.Script(n, roles)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func testPrintThroughPsql(t *testing.T, db database) {
	psql, err := exec.LookPath("psql")
	if err != nil {
		harness.Missing(t, fmt.Errorf("psql: %w (apt-get install postgresql-client)", err))
	}
	app := migrations.Role{Privilege: migrations.AppRole, Name: role(t, db, "")}
	relay := migrations.Role{Privilege: migrations.RelayRole, Name: role(t, db, "")}
	names := migrations.Names{Schema: "events_out", Publication: "out"}
	for range 2 { // it may be applied again
		cmd := exec.CommandContext(t.Context(), psql, "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", db.url, "-f", "-")
		cmd.Stdin = strings.NewReader(script(t, names, app, relay))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("psql: %v\n%s", err, out)
		}
	}
	upToDate(t, db, names)
	if report := up(t, db, migrate.Options{Names: names}); len(report.Applied) > 0 {
		t.Errorf("up after print applied %q", report.Applied)
	}
	as(t, db, app.Name)
	get[string](t, db.Conn, "INSERT INTO events_out.events (topic) VALUES ('t') RETURNING id::text")
}

func testPrintSimpleProtocol(t *testing.T, db database) {
	send := func(text string) error {
		_, err := db.PgConn().Exec(t.Context(), text).ReadAll()
		return err
	}
	if err := send(script(t, migrations.Names{})); err != nil {
		t.Fatal(err)
	}
	upToDate(t, db, migrations.Names{})

	// All or nothing: a script whose end fails leaves no schema.
	bad := script(t, migrations.Names{Schema: "other", Publication: "other"}, migrations.Role{Privilege: migrations.AppRole, Name: "nobody there"})
	if err := send(bad); err == nil {
		t.Error("a grant to a role that is not there worked")
	}
	_ = send("ROLLBACK")
	if get[bool](t, db.Conn, "SELECT to_regnamespace('other') IS NOT NULL") {
		t.Error("half a script is left")
	}
}

// TestPrintByPrivilege: what an administrator, an owner and a role manager apply can be had apart.
func TestPrintByPrivilege(t *testing.T) {
	t.Parallel()
	roles := []migrations.Role{{Privilege: migrations.AppRole, Name: "a"}, {Privilege: migrations.AppRole, Name: `b"c`}, {Privilege: migrations.RelayRole, Name: "r"}}
	for _, c := range []struct {
		only       []migrations.Privilege
		has, lacks []string
	}{
		{nil, []string{"CREATE TABLE", "CREATE PUBLICATION", `TO "a"`, `TO "b""c"`, `TO "r"`}, nil},
		{[]migrations.Privilege{migrations.Owner}, []string{"CREATE TABLE"}, []string{"CREATE PUBLICATION", "\nGRANT"}},
		{[]migrations.Privilege{migrations.Publication}, []string{"CREATE PUBLICATION"}, []string{"CREATE TABLE", "\nGRANT"}},
		{[]migrations.Privilege{migrations.RelayRole}, []string{`TO "r"`}, []string{"CREATE TABLE", "CREATE PUBLICATION", `TO "a"`}},
	} {
		text, err := migrations.Script(migrations.Names{}, roles, c.only...)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range c.has {
			if !strings.Contains(text, s) {
				t.Errorf("%v: lacks %q", c.only, s)
			}
		}
		for _, s := range c.lacks {
			if strings.Contains(text, s) {
				t.Errorf("%v: has %q", c.only, s)
			}
		}
	}
	if _, err := migrations.Script(migrations.Names{}, nil, migrations.AppRole); err == nil {
		t.Error("grants without a role were printed")
	}
}

func testOtherNames(t *testing.T, db database) {
	other := migrations.Names{Schema: "select", Publication: "relay"} // a keyword, and a name that stands in the files
	up(t, db, migrate.Options{Names: other})
	up(t, db, migrate.Options{}) // beside it, with the default names
	upToDate(t, db, other)
	upToDate(t, db, migrations.Names{})
	get[string](t, db.Conn, `INSERT INTO "select".events (id, topic, tx) VALUES (NULL, 't', '3') RETURNING id::text`)
	if !get[bool](t, db.Conn, `SELECT tx = pg_current_xact_id() FROM "select".events WHERE false UNION ALL SELECT every(tx::text <> '3') FROM "select".events`) {
		t.Error("the trigger of the other schema did not run")
	}
	tables := get[string](t, db.Conn, `SELECT string_agg(pubname || ' ' || schemaname || '.' || tablename, ', ' ORDER BY pubname) FROM pg_publication_tables`)
	if want := "outrider outbox.events, relay select.events"; tables != want {
		t.Errorf("publications hold %q, want %q", tables, want)
	}
	// The name of a publication is the database's, so a second schema needs a second one.
	_, err := migrate.Up(t.Context(), db.Conn, migrate.Options{Names: migrations.Names{Schema: "third"}})
	if err == nil || !strings.Contains(err.Error(), `does not hold "third".events`) {
		t.Errorf("a publication of another schema was taken: %v", err)
	}
}

func testPublication(t *testing.T, db database) {
	up(t, db, migrate.Options{})
	if got := get[string](t, db.Conn, `SELECT concat_ws(' ', puballtables, pubinsert, pubupdate, pubdelete, pubtruncate, pubviaroot) FROM pg_publication WHERE pubname = 'outrider'`); got != "f t f f f t" {
		t.Errorf("all, insert, update, delete, truncate, via root = %s", got)
	}
	if db.major < 15 {
		return
	}
	want := "{id,topic,key,type,payload,payload_bytes,headers}"
	if got := get[string](t, db.Conn, `SELECT attnames::text FROM pg_publication_tables WHERE pubname = 'outrider'`); got != want {
		t.Errorf("columns %s, want %s", got, want)
	}
}

// testHostileSearchPath: definitions mean the built-in functions, whoever shadows them.
func testHostileSearchPath(t *testing.T, db database) {
	must(t, db.Conn, `CREATE SCHEMA evil;
CREATE FUNCTION evil.now() RETURNS timestamptz LANGUAGE sql AS $$SELECT 'epoch'::timestamptz$$;
CREATE FUNCTION evil.pg_current_xact_id() RETURNS xid8 LANGUAGE sql AS $$SELECT '3'::xid8$$;
CREATE FUNCTION evil.num_nonnulls(VARIADIC "any") RETURNS int LANGUAGE internal AS 'pg_num_nulls';
SET search_path = evil, pg_catalog`)
	up(t, db, migrate.Options{})
	upToDate(t, db, migrations.Names{})
	must(t, db.Conn, `INSERT INTO outbox.events (topic, payload, created_at) VALUES ('t', '1', NULL)`)
	if !get[bool](t, db.Conn, `SELECT created_at > 'epoch' AND tx <> '3' FROM outbox.events`) {
		t.Error("a default is somebody else's function")
	}
}

func testSchemaMadeBefore(t *testing.T, db database) {
	owner := role(t, db, "")
	must(t, db.Conn, fmt.Sprintf("CREATE SCHEMA outbox AUTHORIZATION %q", owner))
	as(t, db, owner)
	up(t, db, migrate.Options{Only: []migrations.Privilege{migrations.Owner}}) // no CREATE on the database
	must(t, db.Conn, "RESET ROLE")
	up(t, db, migrate.Options{Only: []migrations.Privilege{migrations.Publication}})
	upToDate(t, db, migrations.Names{})
}

func testSettings(t *testing.T, db database) {
	up(t, db, migrate.Options{})
	if got := get[string](t, db.Conn, "SELECT string_agg(name || '=' || value, ' ' ORDER BY name) FROM outbox.settings"); got != "contract=1 mode=append" {
		t.Errorf("settings %q", got)
	}
	refused(t, db.Conn, "23514", "UPDATE outbox.settings SET value = 'polling' WHERE name = 'mode'")
	must(t, db.Conn, "UPDATE outbox.settings SET value = 'self-delete' WHERE name = 'mode'")
	must(t, db.Conn, script(t, migrations.Names{}))
	if got := get[string](t, db.Conn, "SELECT value FROM outbox.settings WHERE name = 'mode'"); got != "self-delete" {
		t.Errorf("applying again set the mode to %q", got)
	}
}

// testComments: no object of the migration is without a word on what it is for.
func testComments(t *testing.T, db database) {
	up(t, db, migrate.Options{})
	const silent = `
SELECT 'schema' FROM pg_namespace n WHERE nspname = 'outbox' AND obj_description(oid, 'pg_namespace') IS NULL
UNION ALL SELECT 'relation ' || relname FROM pg_class WHERE relnamespace = 'outbox'::regnamespace AND obj_description(oid, 'pg_class') IS NULL
UNION ALL SELECT 'column ' || relname || '.' || attname FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid
  WHERE relnamespace = 'outbox'::regnamespace AND relkind = 'r' AND attnum > 0 AND col_description(attrelid, attnum) IS NULL
UNION ALL SELECT 'function ' || proname FROM pg_proc WHERE pronamespace = 'outbox'::regnamespace AND obj_description(oid, 'pg_proc') IS NULL
UNION ALL SELECT 'constraint ' || conname FROM pg_constraint WHERE connamespace = 'outbox'::regnamespace AND contype <> 'n' AND obj_description(oid, 'pg_constraint') IS NULL
UNION ALL SELECT 'trigger ' || tgname FROM pg_trigger g JOIN pg_class c ON c.oid = tgrelid
  WHERE relnamespace = 'outbox'::regnamespace AND NOT tgisinternal AND obj_description(g.oid, 'pg_trigger') IS NULL
UNION ALL SELECT 'publication ' || pubname FROM pg_publication WHERE obj_description(oid, 'pg_publication') IS NULL`
	if got := get[string](t, db.Conn, "SELECT coalesce(string_agg(o, ', '), '') FROM ("+silent+") AS s (o)"); got != "" {
		t.Errorf("without a comment: %s", got)
	}
	// And the query does find objects: take one comment away.
	must(t, db.Conn, "COMMENT ON COLUMN outbox.relays.epoch IS NULL")
	if got := get[string](t, db.Conn, "SELECT coalesce(string_agg(o, ', '), '') FROM ("+silent+") AS s (o)"); got != "column relays.epoch" {
		t.Errorf("found %q", got)
	}
}
