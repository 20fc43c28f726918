package main

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/outrider-cdc/outrider/internal/harness/postgres"
)

func TestRelaysCommand(t *testing.T) {
	server := postgres.Start(t, 0)
	environ := []string{"OUTRIDER_DATABASE_URL=" + server.URL()}
	if code, _, stderr := migrateLine(t, environ, "up"); code != 0 {
		t.Fatal(stderr)
	}
	conn, err := pgx.Connect(t.Context(), server.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(t.Context()) })
	if _, err := conn.Exec(t.Context(), `INSERT INTO outbox.relays (slot, contract, system_id, timeline, phase, instance)
VALUES ('gone', 1, '1', 1, 'streaming', 'a'), ('idle', 1, '1', 1, 'backlog', 'b')`); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), `SELECT pg_create_logical_replication_slot('idle', 'pgoutput')`); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		args           []string
		code           int
		stdout, stderr string // parts
	}{
		{[]string{"list"}, 0, "missing", ""},
		{[]string{"list"}, 0, "inactive", ""},
		{[]string{"remove"}, 78, "", "accepts 1 arg"},
		{[]string{"remove", "nobody"}, 1, "", "outrider relays list"},
		{[]string{"remove", "gone"}, 0, "removed the progress row of slot gone", ""},
		{[]string{"remove", "idle"}, 1, "", "outrider relays remove --drop-slot idle"},
		{[]string{"remove", "--drop-slot", "idle"}, 0, "dropped slot idle", ""},
	} {
		var out, errs strings.Builder
		code := run(t.Context(), process{environ: environ, stdout: &out, stderr: &errs}, append([]string{"relays"}, step.args...))
		if code != step.code || !strings.Contains(out.String(), step.stdout) || !strings.Contains(errs.String(), step.stderr) {
			t.Errorf("relays %q: exit code %d, want %d\nstdout, want %q:\n%s\nstderr, want %q:\n%s", step.args, code, step.code, step.stdout, out.String(), step.stderr, errs.String())
		}
	}
}
