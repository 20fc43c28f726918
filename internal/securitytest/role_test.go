package securitytest_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/outrider-cdc/outrider/internal/harness/postgres"
)

// What docs/security.md says of a role with REPLICATION, and of what fences it in.
func TestReplicationRole(t *testing.T) {
	s := newSecured(t)
	s.exec(`CREATE TABLE payroll (secret text)`)
	s.exec(`CREATE PUBLICATION everything FOR ALL TABLES`)
	s.exec(`CREATE DATABASE fenced`)
	s.exec(`REVOKE CONNECT ON DATABASE fenced FROM PUBLIC`)
	conn := postgres.Connect(t, s.url("password"))
	code := func(err error) string {
		e, _ := errors.AsType[*pgconn.PgError](err)
		if e == nil {
			return ""
		}
		return e.Code
	}
	if _, err := conn.Exec(t.Context(), `SELECT * FROM payroll`); code(err) != "42501" {
		t.Errorf("reads a table: %v", err)
	}
	if _, err := conn.Exec(t.Context(), `CREATE PUBLICATION mine FOR TABLE payroll`); code(err) != "42501" {
		t.Errorf("publishes a table: %v", err)
	}

	// A publication that somebody else has made shows it every change.
	if _, err := conn.Exec(t.Context(), `SELECT pg_create_logical_replication_slot('peek', 'pgoutput')`); err != nil {
		t.Fatal(err)
	}
	s.exec(`INSERT INTO payroll VALUES ('planted-salary')`)
	var seen string
	err := conn.QueryRow(t.Context(), `SELECT coalesce(string_agg(encode(data, 'escape'), ''), '') FROM pg_logical_slot_peek_binary_changes('peek', NULL, NULL, 'proto_version', '1', 'publication_names', 'everything')`).Scan(&seen)
	if err != nil || !strings.Contains(seen, "planted-salary") {
		t.Errorf("sees %q: %v", seen, err)
	}
	// Slots belong to nobody.
	s.exec(`SELECT pg_create_physical_replication_slot('standby')`)
	if _, err := conn.Exec(t.Context(), `SELECT pg_drop_replication_slot('standby')`); err != nil {
		t.Errorf("drops another's slot: %v", err)
	}

	if _, err := pgconn.Connect(t.Context(), s.url("password", "replication", "true")); code(err) != "28000" {
		t.Errorf("opens a physical replication connection without a line for it: %v", err)
	}
	if _, err := pgconn.Connect(t.Context(), strings.Replace(s.url("password", "replication", "database"), "/postgres?", "/fenced?", 1)); code(err) != "42501" {
		t.Errorf("opens another database: %v", err)
	}
}
