package postgres_test

import (
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/outrider-cdc/outrider/internal/harness/postgres"
)

// A clone has data and slots of its moment, and lives beside the original.
func TestClone(t *testing.T) {
	s := postgres.Start(t, 18)
	ask := func(s *postgres.Server, sql string) (answer string) {
		t.Helper()
		db, err := pgx.Connect(t.Context(), s.URL())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = db.Close(t.Context()) }()
		if err := db.QueryRow(t.Context(), sql).Scan(&answer); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		return answer
	}
	ask(s, `SELECT slot_name::text FROM pg_create_logical_replication_slot('kept', 'pgoutput')`)
	ask(s, `SELECT pg_create_restore_point('here')::text`)
	clone, err := s.Clone(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = clone.Close() }()
	if err := clone.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	const identity = `SELECT system_identifier || ' ' || timeline_id || ' ' || pg_is_in_recovery() FROM pg_control_system(), pg_control_checkpoint()`
	if a, b := ask(s, identity), ask(clone, identity); a != b {
		t.Errorf("the clone is %s, the original %s", b, a)
	}
	if got := ask(clone, `SELECT string_agg(slot_name, ',') FROM pg_replication_slots`); got != "kept" {
		t.Errorf("slots of the clone: %s", got)
	}
}

// Only a fresh server is another system to whoever asks for its identifier.
func TestFreshServerIsAnotherSystem(t *testing.T) {
	ctx := t.Context()
	s := postgres.Start(t, 18)
	s.Private(t)
	fresh, err := s.Fresh(ctx, "max_prepared_transactions=7")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = fresh.Close() })
	ask := func(url, sql string) (answer string) {
		t.Helper()
		db, err := pgx.Connect(ctx, url)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = db.Close(ctx) }()
		if err := db.QueryRow(ctx, sql).Scan(&answer); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		return answer
	}
	const system = `SELECT system_identifier::text FROM pg_control_system()`
	if ask(s.URL(), system) == ask(fresh.URL(), system) {
		t.Error("both servers are the same system")
	}
	if got := ask(fresh.URL(), `SHOW max_prepared_transactions`); got != "7" {
		t.Errorf("max_prepared_transactions is %s", got)
	}
}

func TestUpgradeNeedsTheProgram(t *testing.T) {
	s := postgres.Start(t, 18)
	if _, err := s.Tool("pg_upgrade"); err == nil {
		return // a distribution's build, which has all programs
	}
	if _, err := s.Upgrade(t.Context()); !errors.Is(err, postgres.ErrNoTool) {
		t.Errorf("got %v", err)
	}
}
