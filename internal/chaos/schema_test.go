package chaos_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/outrider-cdc/outrider/outbox/migrations"
)

// migrate makes the outbox.
func migrate(t *testing.T, url string) {
	t.Helper()
	script, err := migrations.Script(migrations.Names{}, nil, migrations.Owner, migrations.Publication)
	if err != nil {
		t.Fatal(err)
	}
	execute(t, url, script)
}

// execute runs statements on a connection of its own.
func execute(t *testing.T, url, sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatal(err)
	}
}
