package migrate_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/outrider-cdc/outrider/internal/harness/postgres"
	"github.com/outrider-cdc/outrider/internal/migrate"
	"github.com/outrider-cdc/outrider/outbox/migrations"
)

// recorded are the names of the migrations that leave a record.
func recorded() []string {
	var names []string
	for _, m := range migrations.All() {
		if !m.ForRole() {
			names = append(names, m.String())
		}
	}
	return names
}

func testUpTwice(t *testing.T, db database) {
	before := check(t, db, migrations.Names{})
	if before.UpToDate() {
		t.Errorf("an empty database counts as up to date:\n%s", before)
	}
	first := up(t, db, migrate.Options{})
	if diff := cmp.Diff(recorded(), first.Applied); diff != "" {
		t.Errorf("applied at first (-want +got):\n%s", diff)
	}
	if len(first.Warnings) > 0 {
		t.Errorf("warnings: %q", first.Warnings)
	}
	upToDate(t, db, migrations.Names{})
	rows := get[int](t, db.Conn, `SELECT count(*)::int FROM outbox.schema_version WHERE length(checksum) = 64`)
	if rows != len(recorded()) {
		t.Errorf("%d records, want %d", rows, len(recorded()))
	}
	if second := up(t, db, migrate.Options{}); len(second.Applied) > 0 {
		t.Errorf("applied again: %q", second.Applied)
	}
	// What Up skips must be harmless too: Script applies all of it again.
	must(t, db.Conn, "INSERT INTO outbox.events (topic) VALUES ('t')")
	must(t, db.Conn, script(t, migrations.Names{}))
	if n := get[int](t, db.Conn, "SELECT count(*)::int FROM outbox.events"); n != 1 {
		t.Errorf("%d rows after applying again, want 1", n)
	}
}

func testConcurrentUp(t *testing.T, db database) {
	const writers = 8
	reports := make([]migrate.Report, writers)
	errs := make([]error, writers)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // a lock that nobody gives back
	defer cancel()
	var wg sync.WaitGroup
	for i := range writers {
		conn := postgres.Connect(t, db.url)
		wg.Go(func() { reports[i], errs[i] = migrate.Up(ctx, conn, migrate.Options{}) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	var applied []string
	for _, r := range reports {
		applied = append(applied, r.Applied...)
	}
	if diff := cmp.Diff(recorded(), applied); diff != "" {
		t.Errorf("applied by all together (-want +got):\n%s", diff)
	}
	if n := get[int](t, db.Conn, `SELECT count(*)::int FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`); n != 0 {
		t.Errorf("%d advisory locks are left", n)
	}
}

func testStatusAndRepair(t *testing.T, db database) {
	up(t, db, migrate.Options{})
	for _, damage := range []struct {
		sql, problem, file string
		state              migrate.State
		also               string // a file that went with it
	}{
		{"DROP INDEX outbox.events_tx", `gone: INDEX "outbox".events_tx`, "003_events", migrate.Missing, ""},
		{"DROP TRIGGER own_tx ON outbox.events", `gone: TRIGGER own_tx ON "outbox".events`, "003_events", migrate.Missing, ""},
		{"DROP TABLE outbox.relays CASCADE", `gone: TABLE "outbox".relays`, "004_relays", migrate.Missing, "018_health"},
		{"DROP TABLE outbox.dead CASCADE", `gone: TABLE "outbox".dead`, "008_dead", migrate.Missing, "018_health"},
		{"DROP PUBLICATION outrider", `gone: PUBLICATION "outrider"`, "005_publication", migrate.Missing, ""},
		{"ALTER TABLE outbox.events ENABLE TRIGGER own_tx", `altered: TRIGGER own_tx ON "outbox".events: is not enabled ALWAYS`, "003_events", migrate.Drifted, ""},
		{
			"CREATE OR REPLACE FUNCTION outbox.uuid_v7() RETURNS uuid LANGUAGE sql AS 'SELECT gen_random_uuid()'",
			`altered: FUNCTION "outbox".uuid_v7(): has another body`, "002_functions", migrate.Drifted, "",
		},
	} {
		must(t, db.Conn, damage.sql)
		status := check(t, db, migrations.Names{})
		i := slices.IndexFunc(status.Steps, func(s migrate.Step) bool { return s.String() == damage.file })
		if step := status.Steps[i]; status.UpToDate() || step.State != damage.state || !slices.Contains(step.Problems, damage.problem) {
			t.Errorf("after %s: want %s with %q, got\n%s", damage.sql, damage.state, damage.problem, status)
		}
		if !strings.Contains(status.String(), damage.problem) {
			t.Errorf("status does not tell %q:\n%s", damage.problem, status)
		}
		want := []string{damage.file}
		if damage.also != "" {
			want = append(want, damage.also)
		}
		if diff := cmp.Diff(want, up(t, db, migrate.Options{}).Applied); diff != "" {
			t.Errorf("repair after %s (-want +got):\n%s", damage.sql, diff)
		}
		upToDate(t, db, migrations.Names{})
	}
}

func testDriftedFile(t *testing.T, db database) {
	up(t, db, migrate.Options{})
	must(t, db.Conn, "UPDATE outbox.schema_version SET checksum = repeat('0', 64) WHERE version = 3")
	must(t, db.Conn, "DELETE FROM outbox.schema_version WHERE version = 4")
	_, err := migrate.Up(t.Context(), db.Conn, migrate.Options{})
	if !errors.Is(err, migrate.ErrDrifted) || !strings.Contains(err.Error(), "003_events") {
		t.Errorf("up on a drifted record: %v", err)
	}
	if n := get[int](t, db.Conn, "SELECT count(*)::int FROM outbox.schema_version WHERE version = 4"); n != 0 {
		t.Error("up went on beside a drifted record")
	}
	status := check(t, db, migrations.Names{})
	if status.UpToDate() || status.Steps[2].State != migrate.Drifted || status.Steps[3].State != migrate.Missing {
		t.Errorf("status:\n%s", status)
	}
}

func testAlteredBeyondRepair(t *testing.T, db database) {
	up(t, db, migrate.Options{})
	must(t, db.Conn, `ALTER TABLE outbox.events ALTER COLUMN topic DROP NOT NULL; ALTER TABLE outbox.relays ALTER COLUMN instance TYPE varchar(10)`)
	must(t, db.Conn, `ALTER PUBLICATION outrider SET (publish = 'insert, delete')`)
	want := []string{
		`altered: COLUMN "outbox".events.topic: is text`,
		`altered: COLUMN "outbox".relays.instance: is character varying(10) NOT NULL DEFAULT`,
		`altered: PUBLICATION "outrider": publishes more than inserts`,
	}
	if diff := cmp.Diff(want, up(t, db, migrate.Options{}).Warnings); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
	if check(t, db, migrations.Names{}).UpToDate() {
		t.Error("altered columns count as up to date")
	}
}

func testPublicationLostTable(t *testing.T, db database) {
	up(t, db, migrate.Options{})
	must(t, db.Conn, "ALTER PUBLICATION outrider DROP TABLE outbox.events")
	if s := check(t, db, migrations.Names{}); s.UpToDate() || s.Steps[4].State != migrate.Drifted {
		t.Errorf("status:\n%s", s)
	}
	_, err := migrate.Up(t.Context(), db.Conn, migrate.Options{})
	if err == nil || !strings.Contains(err.Error(), "005_publication") ||
		!strings.Contains(err.Error(), `ALTER PUBLICATION "outrider" ADD TABLE "outbox".events;`) {
		t.Errorf("up: %v", err)
	}
}

func testMissingPrivilege(t *testing.T, db database) {
	owner := role(t, db, "")
	as(t, db, owner)
	privilegeError(t, db, "001_schema", "CREATE on the database",
		fmt.Sprintf(`GRANT CREATE ON DATABASE %q TO %q;`, db.name, owner))

	must(t, db.Conn, "RESET ROLE")
	must(t, db.Conn, fmt.Sprintf("CREATE SCHEMA outbox AUTHORIZATION %q", owner))
	as(t, db, owner)
	privilegeError(t, db, "005_publication", "the owner of the table, with CREATE on the database",
		fmt.Sprintf(`GRANT CREATE ON DATABASE %q TO %q;`, db.name, owner))

	must(t, db.Conn, "RESET ROLE")
	must(t, db.Conn, fmt.Sprintf("GRANT CREATE ON DATABASE %s TO %q", db.name, owner))
	other := role(t, db, "")
	must(t, db.Conn, fmt.Sprintf("GRANT CREATE ON DATABASE %s TO %q", db.name, other))
	must(t, db.Conn, fmt.Sprintf("GRANT USAGE ON SCHEMA outbox TO %q", other))
	must(t, db.Conn, fmt.Sprintf("GRANT SELECT ON outbox.schema_version TO %q", other))
	as(t, db, other)
	privilegeError(t, db, "005_publication", fmt.Sprintf("the owner of schema outbox and its tables, role %q", owner), "")
	as(t, db, owner)
	var rest []string
	for _, m := range migrations.All() {
		if m.Version >= 5 && !m.ForRole() {
			rest = append(rest, m.String())
		}
	}
	if diff := cmp.Diff(rest, up(t, db, migrate.Options{}).Applied); diff != "" {
		t.Errorf("with the privilege (-want +got):\n%s", diff)
	}
}

func privilegeError(t *testing.T, db database, file, need, sql string) {
	t.Helper()
	_, err := migrate.Up(t.Context(), db.Conn, migrate.Options{})
	missing, ok := errors.AsType[*migrate.PrivilegeError](err)
	if !ok || missing.Migration != file || missing.SQL != sql || !strings.Contains(err.Error(), file) || !strings.Contains(err.Error(), need) {
		t.Errorf("want %s, %q, %q; got %v", file, need, sql, err)
	}
}

func testNewerRecord(t *testing.T, db database) {
	up(t, db, migrate.Options{})
	must(t, db.Conn, "INSERT INTO outbox.schema_version VALUES (999, 'later', 'x')")
	status := check(t, db, migrations.Names{})
	if !status.UpToDate() || !slices.Equal(status.Newer, []string{"999_later"}) || !strings.Contains(status.String(), "999_later") {
		t.Errorf("status:\n%s", status)
	}
	up(t, db, migrate.Options{})
}

// testForeignTable: IF NOT EXISTS must not make a table of ours out of one of somebody else.
func testForeignTable(t *testing.T, db database) {
	must(t, db.Conn, "CREATE SCHEMA outbox; CREATE TABLE outbox.events (id uuid PRIMARY KEY, body text)")
	if _, err := migrate.Up(t.Context(), db.Conn, migrate.Options{}); err == nil || !strings.Contains(err.Error(), "003_events") {
		t.Errorf("up beside another table events: %v", err)
	}
	if check(t, db, migrations.Names{}).UpToDate() {
		t.Error("counts as up to date")
	}
}

// TestWarnsOfWALLevel needs a server that cannot decode.
func TestWarnsOfWALLevel(t *testing.T) {
	t.Parallel()
	server := postgres.Start(t, 0, "wal_level=replica")
	conn := postgres.Connect(t, server.URL())
	report, err := migrate.Up(t.Context(), conn, migrate.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Warnings) != 1 || !strings.Contains(report.Warnings[0], "wal_level is replica") {
		t.Errorf("warnings: %q", report.Warnings)
	}
}

// TestUpNeedsAValidName: names are checked before the connection is touched.
func TestUpNeedsAValidName(t *testing.T) {
	t.Parallel()
	for _, schema := range []string{"Outbox", "a-b", `a"b`, "a;b", "pg_x", "information_schema", strings.Repeat("a", 64)} {
		if _, err := migrate.Up(t.Context(), (*pgx.Conn)(nil), migrate.Options{Names: migrations.Names{Schema: schema}}); err == nil {
			t.Errorf("schema %q was taken", schema)
		}
	}
}
