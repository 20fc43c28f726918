package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/outrider-cdc/outrider/internal/harness"
	"github.com/outrider-cdc/outrider/internal/harness/postgres"
	"github.com/outrider-cdc/outrider/internal/migrate/format"
)

// migrateLine runs the command with an environment and nothing else of the process.
func migrateLine(t *testing.T, environ []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs strings.Builder
	code = run(t.Context(), process{environ: environ, stdout: &out, stderr: &errs}, append([]string{"migrate"}, args...))
	return code, out.String(), errs.String()
}

func TestMigrateCommand(t *testing.T) {
	server := postgres.Start(t, 0)
	environ := []string{"OUTRIDER_DATABASE_URL=" + server.URL(), "OUTRIDER_SCHEMA=events_out"}
	for _, step := range []struct {
		args           []string
		code           int
		stdout, stderr string // parts
	}{
		{[]string{"status"}, 1, "001_schema           owner        missing\n", "outrider migrate up"},
		{[]string{"up", "--only", "owner"}, 0, "applied 003_events\n", ""},
		{[]string{"status"}, 1, "005_publication      publication  missing\n", "not up to date"},
		{[]string{"up"}, 0, "applied 005_publication\n", ""},
		{[]string{"up"}, 0, "up to date\n", ""},
		{[]string{"status"}, 0, "005_publication      publication  applied (recorded 2", ""},
		{[]string{"status", "--schema", "outbox"}, 1, "001_schema           owner        missing\n", ""},
		{[]string{"up", "--roles", "app=nobody there"}, 1, "", `role "nobody there" does not exist`},
		{[]string{"up", "--roles", "writer=x"}, 78, "", "write app=NAME, relay=NAME or consumer=NAME"},
		{[]string{"up", "--only", "grants"}, 78, "", "write owner, publication, roles or inbox"},
		{[]string{"up", "--schema", "a;b"}, 78, "", `schema name "a;b"`},
		{[]string{"up", "more"}, 78, "", "more"},
		{[]string{"upp"}, 78, "", `unknown command "upp"`},
	} {
		code, stdout, stderr := migrateLine(t, environ, step.args...)
		if code != step.code || !strings.Contains(stdout, step.stdout) || !strings.Contains(stderr, step.stderr) {
			t.Errorf("migrate %q: exit code %d, want %d\nstdout, want %q:\n%s\nstderr, want %q:\n%s",
				step.args, code, step.code, step.stdout, stdout, step.stderr, stderr)
		}
	}
}

// TestMigratePrint needs no server: the SQL is for other tools.
func TestMigratePrint(t *testing.T) {
	code, stdout, stderr := migrateLine(t, nil, "print", "--schema", "s1", "--publication", "p1", "--roles", "app=a,relay=r", "--roles", "app=b")
	if code != 0 || stderr != "" {
		t.Fatalf("exit code %d, stderr %q", code, stderr)
	}
	for _, part := range []string{"BEGIN;", `CREATE TABLE IF NOT EXISTS "s1".events`, `CREATE PUBLICATION "p1"`, `TO "a";`, `TO "b";`, `TO "r";`, "COMMIT;"} {
		if !strings.Contains(stdout, part) {
			t.Errorf("lacks %q", part)
		}
	}
	if strings.Contains(stdout, `"outbox"`) {
		t.Error("the default schema is left")
	}
}

// TestMigratePrintForTools goes through every flag that print has for other tools.
func TestMigratePrintForTools(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "migrations")
	for _, step := range []struct {
		args           []string
		code           int
		stdout, stderr string // parts
	}{
		{[]string{"--format", "goose"}, 0, "-- +goose Down\n", ""},
		{[]string{"--direction", "down", "--from", "8", "--to", "8"}, 0, `DROP TABLE "outbox".dead;`, ""},
		{[]string{"--roles", `"owner=o""w"`}, 0, `SET LOCAL ROLE "o""w";`, ""},
		{[]string{"--format", "alembic", "--from", "8", "--after", "ae1027a6acf"}, 0, `down_revision = "ae1027a6acf"`, ""},
		{[]string{"--format", "django", "--from", "8", "--after", "0007_x", "--app", "shop"}, 0, `dependencies = [("shop", "0007_x")]`, ""},
		{[]string{"--format", "goose", "--dir", dir, "--base", "20260131120000"}, 0, filepath.Join(dir, "20260131120008_outbox_dead.sql"), ""},
		{[]string{"--format", "goose", "--dir", dir, "--base", "20260131120000"}, 0, "all files are there already", ""},
		{[]string{"--format", "goose", "--dir", dir, "--base", "20260131120000", "--publication", "p"}, 1, "", "is there with other content"},
		{[]string{"--format", "rails"}, 78, "", "write one of sql, goose"},
		{[]string{"--format", "goose", "--direction", "down"}, 78, "", "holds both directions"},
		{[]string{"--direction", "sideways"}, 78, "", "write up or down"},
		{[]string{"--roles", "owner="}, 78, "", "name one owner"},
		{[]string{"--roles", "owner=a,owner=b"}, 78, "", "name one owner"},
		{[]string{"--after", "x"}, 78, "", "--after is for alembic and django"},
		{[]string{"--format", "alembic", "--app", "x"}, 78, "", "--app is for django"},
		{[]string{"--format", "alembic", "--from", "8"}, 78, "", "--after"},
	} {
		code, stdout, stderr := migrateLine(t, nil, append([]string{"print"}, step.args...)...)
		if code != step.code || !strings.Contains(stdout, step.stdout) || !strings.Contains(stderr, step.stderr) {
			t.Errorf("print %q: exit code %d, want %d\nstdout, want %q:\n%.2000s\nstderr, want %q:\n%s",
				step.args, code, step.code, step.stdout, stdout, step.stderr, stderr)
		}
	}
	if code, _, stderr := migrateLine(t, nil, "up", "--roles", "owner=o"); code != 78 || !strings.Contains(stderr, "owner=o") {
		t.Errorf("up takes an owner: %d %s", code, stderr)
	}
}

// TestMigratePrintIsForPsql goes the way of a user: print | psql, then status.
func TestMigratePrintIsForPsql(t *testing.T) {
	psql, err := exec.LookPath("psql")
	if err != nil {
		harness.Missing(t, fmt.Errorf("%w (apt-get install postgresql-client)", err))
	}
	server := postgres.Start(t, 0)
	environ := []string{"OUTRIDER_DATABASE_URL=" + server.URL()}
	_, script, _ := migrateLine(t, environ, "print")
	cmd := exec.CommandContext(t.Context(), psql, "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", server.URL())
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("psql: %v\n%s", err, out)
	}
	if code, stdout, stderr := migrateLine(t, environ, "status"); code != 0 {
		t.Errorf("status after psql: exit code %d\n%s%s", code, stdout, stderr)
	}
}

// TestMigrateKeepsThePasswordToItself: not even a URL that cannot be parsed is repeated.
func TestMigrateKeepsThePasswordToItself(t *testing.T) {
	for _, url := range []string{"postgres://u:hunter2@127.0.0.1:1/d?connect_timeout=1", "postgres://u:hunter2@[bad/d", "user=u password=hunter2 port=x"} {
		code, stdout, stderr := migrateLine(t, []string{"OUTRIDER_DATABASE_URL=" + url}, "up")
		if code == 0 || stderr == "" || strings.Contains(stdout+stderr, "hunter2") {
			t.Errorf("exit code %d, output %q", code, stdout+stderr)
		}
	}
}

// TestMigrationsPageIsTrue runs each command line of docs/migrations.md.
func TestMigrationsPageIsTrue(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("docs", "migrations.md"))
	if err != nil {
		t.Fatal(err)
	}
	ran := 0
	for line := range strings.Lines(string(page)) {
		rest, ok := strings.CutPrefix(line, "outrider migrate ")
		if !ok {
			continue
		}
		ran++
		words, _, _ := strings.Cut(rest, " > ")
		args := strings.Fields(words)
		if at := slices.Index(args, "--dir"); at >= 0 {
			args[at+1] = filepath.Join(t.TempDir(), args[at+1])
		}
		if code, stdout, stderr := migrateLine(t, nil, args...); code != 0 || stdout == "" {
			t.Errorf("%s: exit code %d\n%s", strings.TrimSpace(line), code, stderr)
		}
	}
	if ran < len(format.Names()) {
		t.Errorf("%d command lines for %d formats", ran, len(format.Names()))
	}
}
