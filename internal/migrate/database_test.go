package migrate_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/outrider-cdc/outrider/internal/harness/postgres"
	"github.com/outrider-cdc/outrider/internal/migrate"
	"github.com/outrider-cdc/outrider/outbox/migrations"
)

// TestOnEveryMajor runs each behaviour in a database of its own, on one server a major.
func TestOnEveryMajor(t *testing.T) {
	behaviours := map[string]func(*testing.T, database){
		"up twice":                    testUpTwice,
		"up by eight at once":         testConcurrentUp,
		"status and repair":           testStatusAndRepair,
		"drifted file":                testDriftedFile,
		"altered beyond repair":       testAlteredBeyondRepair,
		"publication lost its table":  testPublicationLostTable,
		"missing privilege":           testMissingPrivilege,
		"every object has a comment":  testComments,
		"other names":                 testOtherNames,
		"publication":                 testPublication,
		"print through psql":          testPrintThroughPsql,
		"print by simple protocol":    testPrintSimpleProtocol,
		"rows refused":                testRowsRefused,
		"rows accepted":               testRowsAccepted,
		"tx is the database's":        testForgedTx,
		"explicit nulls":              testExplicitNulls,
		"context headers":             testContextHeaders,
		"uuid v7":                     testUUIDv7,
		"app role":                    testAppRole,
		"relay role":                  testRelayRole,
		"role that does not exist":    testRoleMissing,
		"progress row":                testProgressRow,
		"hostile search path":         testHostileSearchPath,
		"schema of an administrator":  testSchemaMadeBefore,
		"record of a newer program":   testNewerRecord,
		"table of somebody else":      testForeignTable,
		"settings of the first start": testSettings,
		"down to nothing and back":    testDown,
		"down refuses":                testDownRefuses,
		"owner of all":                testOwner,
		"drift":                       testDrift,
		"later files":                 testLaterFiles,
	}
	for _, major := range postgres.Majors() {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			t.Parallel()
			server := postgres.Start(t, major)
			for name, behaviour := range behaviours {
				t.Run(name, func(t *testing.T) { behaviour(t, newDatabase(t, server)) })
			}
		})
	}
}

// database is an empty one, with a connection as its superuser.
type database struct {
	*pgx.Conn
	name, url string
	major     int
}

func newDatabase(t *testing.T, s *postgres.Server) database {
	t.Helper()
	name, url := s.NewDatabase(t)
	return database{Conn: postgres.Connect(t, url), name: name, url: url, major: s.Major()}
}

// must runs statements that must work. It takes no test's context, so that clean-up can use it.
func must(t *testing.T, conn *pgx.Conn, sql string, args ...any) {
	t.Helper()
	if _, err := conn.Exec(context.Background(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// refused runs a statement that must fail, and returns the error.
func refused(t *testing.T, conn *pgx.Conn, code, sql string, args ...any) *pgconn.PgError {
	t.Helper()
	_, err := conn.Exec(t.Context(), sql, args...)
	server, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || server.Code != code {
		t.Errorf("%.200s: got %v, want SQLSTATE %s", sql, err, code)
		return &pgconn.PgError{}
	}
	return server
}

// get returns the one value of a query.
func get[T any](t *testing.T, conn *pgx.Conn, sql string, args ...any) T {
	t.Helper()
	var v T
	if err := conn.QueryRow(t.Context(), sql, args...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

// role makes a role that goes with the test, and returns its name.
func role(t *testing.T, db database, attributes string) string {
	t.Helper()
	name := "r-" + rand.Text()[:12] // needs quotes
	must(t, db.Conn, fmt.Sprintf("CREATE ROLE %q %s", name, attributes))
	t.Cleanup(func() {
		must(t, db.Conn, "RESET ROLE")
		must(t, db.Conn, fmt.Sprintf("DROP OWNED BY %q CASCADE", name))
		must(t, db.Conn, fmt.Sprintf("DROP ROLE %q", name))
	})
	return name
}

func as(t *testing.T, db database, role string) {
	t.Helper()
	must(t, db.Conn, fmt.Sprintf("SET ROLE %q", role))
}

// up migrates, and returns what was applied.
func up(t *testing.T, db database, o migrate.Options) migrate.Report {
	t.Helper()
	report, err := migrate.Up(t.Context(), db.Conn, o)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func check(t *testing.T, db database, n migrations.Names) migrate.Status {
	t.Helper()
	status, err := migrate.Check(t.Context(), db.Conn, n)
	if err != nil {
		t.Fatal(err)
	}
	return status
}

// upToDate fails the test unless the database is.
func upToDate(t *testing.T, db database, n migrations.Names) {
	t.Helper()
	if status := check(t, db, n); !status.UpToDate() {
		t.Errorf("not up to date:\n%s", status)
	}
}
