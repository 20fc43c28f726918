package sqlapi_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/outrider-cdc/outrider/internal/harness/postgres"
	"github.com/outrider-cdc/outrider/outbox/migrations"
)

// TestOnEveryMajor runs each behaviour in a database of its own, on one server a major.
func TestOnEveryMajor(t *testing.T) {
	for _, major := range postgres.Majors() {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			t.Parallel()
			server := postgres.Start(t, major)
			for name, behaviour := range behaviours() {
				t.Run(name, func(t *testing.T) { behaviour(t, newDatabase(t, server)) })
			}
		})
	}
}

// database has an outbox, a connection as its superuser, and a role that writes events.
type database struct {
	*pgx.Conn
	t     *testing.T
	url   string
	major int
	app   string
}

func newDatabase(t *testing.T, s *postgres.Server) database {
	t.Helper()
	admin, app := postgres.Connect(t, s.URL()), "app_"+strings.ToLower(rand.Text()[:12])
	must(t, admin, "CREATE ROLE "+app)
	t.Cleanup(func() { must(t, admin, "DROP ROLE "+app) }) // after the database with its grants
	_, url := s.NewDatabase(t)
	db := database{t: t, url: url, major: s.Major(), app: app}
	db.Conn = postgres.Connect(t, url)
	script, err := migrations.Script(migrations.Names{}, []migrations.Role{{Privilege: migrations.AppRole, Name: db.app}})
	if err != nil {
		t.Fatal(err)
	}
	must(t, db.Conn, script)
	return db
}

func must(t *testing.T, conn *pgx.Conn, sql string, args ...any) {
	t.Helper()
	if _, err := conn.Exec(context.Background(), sql, args...); err != nil {
		t.Fatalf("%.300s: %v", sql, err)
	}
}

func (db database) must(sql string, args ...any) {
	db.t.Helper()
	must(db.t, db.Conn, sql, args...)
}

// text is the one value of a query, as text; NULL is "NULL".
func (db database) text(sql string, args ...any) string {
	db.t.Helper()
	var v *string
	if err := db.QueryRow(db.t.Context(), "SELECT ("+sql+")::text", args...).Scan(&v); err != nil {
		db.t.Fatalf("%.300s: %v", sql, err)
	}
	if v == nil {
		return "NULL"
	}
	return *v
}

// refused runs a statement that must fail, and returns the error.
func (db database) refused(code, sql string, args ...any) *pgconn.PgError {
	db.t.Helper()
	_, err := db.Exec(db.t.Context(), sql, args...)
	server, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || server.Code != code {
		db.t.Errorf("%.300s: got %v, want SQLSTATE %s", sql, err, code)
		return &pgconn.PgError{}
	}
	return server
}

// as is a connection of the database as one that has only this role's rights.
func (db database) as(role string) database {
	db.t.Helper()
	db.Conn = postgres.Connect(db.t, db.url)
	db.must(fmt.Sprintf("SET ROLE %q", role))
	return db
}
