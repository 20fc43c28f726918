package migrate_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/outrider-cdc/outrider/internal/migrate"
	"github.com/outrider-cdc/outrider/internal/migrate/format"
	"github.com/outrider-cdc/outrider/outbox/migrations"
)

// testDrift: whatever was done to an object behind the back of the migrations is
// told, with the file that it belongs to.
func testDrift(t *testing.T, db database) {
	if err := printed(t, db, format.Options{Direction: format.Up}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		sql, file, problem string
		state              migrate.State
	}{
		{"ALTER TABLE outbox.dead DROP COLUMN committed_at", "008_dead", `gone: COLUMN "outbox".dead.committed_at`, migrate.Missing},
		{"ALTER TABLE outbox.events DROP CONSTRAINT row_size", "003_events", `gone: CONSTRAINT row_size ON "outbox".events`, migrate.Missing},
		{"ALTER TABLE outbox.relays ALTER COLUMN timeline TYPE bigint", "004_relays", `altered: COLUMN "outbox".relays.timeline: is bigint NOT NULL`, migrate.Drifted},
		{"ALTER TABLE outbox.events ALTER COLUMN id DROP DEFAULT", "003_events", `altered: COLUMN "outbox".events.id: is uuid NOT NULL`, migrate.Drifted},
		{"ALTER TABLE outbox.events ALTER COLUMN seq DROP IDENTITY", "003_events", `altered: COLUMN "outbox".events.seq: is bigint NOT NULL`, migrate.Missing},
		{"ALTER TABLE outbox.dead ALTER COLUMN key SET DEFAULT 'k'", "008_dead", `altered: COLUMN "outbox".dead.key: is text DEFAULT`, migrate.Drifted},
		{"ALTER TABLE outbox.events DISABLE TRIGGER own_tx", "003_events", `altered: TRIGGER own_tx ON "outbox".events: is not enabled ALWAYS`, migrate.Drifted},
		{"ALTER TABLE outbox.dead SET UNLOGGED", "008_dead", `altered: TABLE "outbox".dead: is not logged, so it is not decoded`, migrate.Drifted},
		{
			"CREATE OR REPLACE FUNCTION outbox.own_tx() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
			"002_functions", `altered: FUNCTION "outbox".own_tx(): has another body`, migrate.Drifted,
		},
		{"ALTER PUBLICATION outrider SET TABLE outbox.events WHERE (topic <> 'x')", "005_publication", `altered: PUBLICATION "outrider": filters rows of table events`, migrate.Drifted},
	} {
		if strings.Contains(c.sql, " WHERE (") && db.major < 15 {
			continue
		}
		upToDate(t, db, migrations.Names{})
		undo := errors.New("undo")
		err := pgx.BeginFunc(t.Context(), db.Conn, func(pgx.Tx) error {
			must(t, db.Conn, c.sql)
			status := check(t, db, migrations.Names{})
			for _, step := range status.Steps {
				want := migrate.Applied
				switch {
				case step.ForRole():
					want = migrate.ByRole
				case step.String() == c.file:
					want = c.state
				}
				if step.State != want || step.String() == c.file && !slices.Contains(step.Problems, c.problem) {
					t.Errorf("%s: %s is %s, want %s with %q:\n%s", c.sql, step, step.State, want, c.problem, status)
				}
			}
			return undo
		})
		if !errors.Is(err, undo) {
			t.Fatal(err)
		}
	}
}

// testLaterFiles: what a later migration replaced is not drift of an earlier one.
func testLaterFiles(t *testing.T, db database) {
	up(t, db, migrate.Options{})
	const replaced = `CREATE OR REPLACE FUNCTION "outbox".own_tx() RETURNS trigger LANGUAGE plpgsql AS $function$BEGIN RETURN NEW; END$function$;
ALTER TABLE "outbox".events ALTER COLUMN key SET DEFAULT 'k',
  DROP CONSTRAINT row_size;
ALTER TABLE "outbox".relays DROP COLUMN IF EXISTS candidate;
DROP INDEX "outbox".events_tx;`
	must(t, db.Conn, replaced)
	compare := func(text, later string) (gone, altered []string) {
		t.Helper()
		gone, altered, err := migrate.Compare(t.Context(), db.Conn, text, later)
		if err != nil {
			t.Fatal(err)
		}
		return gone, altered
	}
	before := script(t, migrations.Names{})
	gone, altered := compare(before, replaced)
	if len(gone) > 0 || !slices.Equal(altered, []string{`altered: COLUMN "outbox".events.key: is text DEFAULT`}) {
		t.Errorf("gone %q, altered %q", gone, altered)
	}
	if gone, altered := compare(before, ""); len(gone) != 3 || len(altered) != 2 {
		t.Errorf("with nothing after them: gone %q, altered %q", gone, altered)
	}

	// Files to come may add columns, and views with their triggers.
	const added = `ALTER TABLE "outbox".events
  ADD COLUMN IF NOT EXISTS due timestamp with time zone, ADD COLUMN IF NOT EXISTS region text NOT NULL DEFAULT 'eu';
COMMENT ON COLUMN "outbox".events.region IS '';
COMMENT ON COLUMN "outbox".events.due IS '';
CREATE OR REPLACE VIEW "outbox".tomorrow AS SELECT id FROM "outbox".events WHERE false;
COMMENT ON VIEW "outbox".tomorrow IS '';
COMMENT ON COLUMN "outbox".tomorrow.id IS '';
CREATE OR REPLACE TRIGGER emit INSTEAD OF INSERT ON "outbox".tomorrow FOR EACH ROW EXECUTE FUNCTION "outbox".own_tx();
COMMENT ON TRIGGER emit ON "outbox".tomorrow IS '';`
	must(t, db.Conn, added)
	if gone, altered := compare(added, ""); len(gone)+len(altered) > 0 {
		t.Errorf("added: gone %q, altered %q", gone, altered)
	}
	must(t, db.Conn, `DROP VIEW outbox.tomorrow; ALTER TABLE outbox.events ALTER COLUMN region DROP DEFAULT, ALTER COLUMN due TYPE date`)
	if gone, altered := compare(added, ""); len(gone) != 3 || len(altered) != 2 {
		t.Errorf("damaged: gone %q, altered %q", gone, altered)
	}
}
