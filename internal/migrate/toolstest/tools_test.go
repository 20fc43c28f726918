package toolstest

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/outrider-cdc/outrider/internal/harness/postgres"
	"github.com/outrider-cdc/outrider/internal/migrate"
	"github.com/outrider-cdc/outrider/internal/migrate/format"
	"github.com/outrider-cdc/outrider/outbox/migrations"
)

// tool drives a migration tool.
type tool interface {
	// up applies what is there, and the project's own migration with it.
	up(t *testing.T)
	// down takes all of it back, the project's own migration first.
	down(t *testing.T)
}

// project is a database, and a folder with migrations of a tool for it.
type project struct {
	*pgx.Conn
	url string
	dir string
}

// hostile is what every tool could take for something of its own: a quote, a
// parameter of two kinds, a placeholder, an escape, a semicolon.
const hostile = `r"%s %(n)s :x ${y} 'z'; $do$ \q --`

// ofTheProject is the number of the migration that follows ours. It makes a
// table that is named without a schema, in the same run.
const (
	ofTheProject = 5000
	upOfProject  = "CREATE TABLE mine (a int);"
	downProject  = "DROP TABLE mine;"
)

func TestTools(t *testing.T) {
	tools := map[string]func(*testing.T, project) tool{
		"goose":          newGoose,
		"golang-migrate": newGolangMigrate,
		"flyway":         newFlyway,
		"liquibase":      newLiquibase,
		"alembic":        newAlembic,
		"django":         newDjango,
	}
	server := postgres.Start(t, 0)
	admin := connect(t, server.URL())
	suffix := rand.Text()[:6]
	app, owner, runner := hostile+suffix, `o"`+hostile+suffix, "runner_"+strings.ToLower(suffix)
	for _, sql := range []string{
		"CREATE ROLE " + quote(app), "CREATE ROLE " + quote(owner), "CREATE ROLE " + runner + " LOGIN PASSWORD 'p'",
		"GRANT " + quote(owner) + " TO " + runner,
	} {
		must(t, admin, sql)
	}
	for name, open := range tools {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newProject(t, server, owner, runner)
			write(t, p, format.Options{
				Format: name, Owner: owner, Roles: []migrations.Role{{Privilege: migrations.AppRole, Name: app}},
			})
			tool := open(t, p)
			for range 2 {
				tool.up(t)
				inPlace(t, p, app, owner, runner)
				tool.up(t) // nothing is left to do
				tool.down(t)
				nothingLeft(t, p)
			}
			status(t, p, false)
		})
	}
}

// inPlace looks at the database as Outrider does, and as those who use it do.
func inPlace(t *testing.T, p project, app, owner, runner string) {
	t.Helper()
	status(t, p, true)
	const owners = `SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = to_regclass($1)`
	if got := get[string](t, p.Conn, owners, "outbox.events"); got != owner {
		t.Errorf("owner of outbox.events is %q, want %q", got, owner)
	}
	if got := get[string](t, p.Conn, owners, "public.mine"); got != runner {
		t.Errorf("owner of the project's table is %q, want %q: the role was not put back", got, runner)
	}
	tx, err := p.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(t.Context()) }()
	if _, err := tx.Exec(t.Context(), "SET LOCAL ROLE "+quote(app)+`; SET LOCAL outbox.headers = '{"a": "b"}'`); err != nil {
		t.Fatal(err)
	}
	var id string
	if err := tx.QueryRow(t.Context(), `INSERT INTO outbox.events (id, topic, payload) VALUES (NULL, 't', '{}') RETURNING id::text`).Scan(&id); err != nil {
		t.Errorf("as the application: %v", err)
	}
}

// status asks as "outrider migrate status" does.
func status(t *testing.T, p project, want bool) {
	t.Helper()
	s, err := migrate.Check(t.Context(), p.Conn, migrations.Names{})
	if err != nil {
		t.Fatal(err)
	}
	if s.UpToDate() != want {
		t.Errorf("up to date: %t, want %t\n%s", s.UpToDate(), want, s)
	}
	for _, step := range s.Steps {
		if state := step.State; !step.ForRole() && (state == migrate.Applied) != want {
			t.Errorf("%s is %s", step, state)
		}
	}
}

func nothingLeft(t *testing.T, p project) {
	t.Helper()
	const left = `SELECT concat_ws(', ', to_regnamespace('outbox'), to_regclass('public.mine'), (SELECT string_agg(pubname, ' ') FROM pg_publication),
 (SELECT string_agg(grantee::regrole::text || ' ' || privilege_type, ' ') FROM pg_namespace, aclexplode(nspacl) WHERE nspname = 'outbox'))`
	if got := get[string](t, p.Conn, left); got != "" {
		t.Errorf("left after down: %s", got)
	}
}

func newProject(t *testing.T, s *postgres.Server, owner, runner string) project {
	t.Helper()
	admin := connect(t, s.URL())
	name := "t_" + strings.ToLower(rand.Text()[:12])
	must(t, admin, "CREATE DATABASE "+name)
	t.Cleanup(func() { must(t, admin, "DROP DATABASE "+name+" WITH (FORCE)") })
	must(t, admin, fmt.Sprintf("GRANT CREATE ON DATABASE %s TO %s, %s", name, quote(owner), runner))
	conn := connect(t, s.DatabaseURL(name))
	must(t, conn, "GRANT ALL ON SCHEMA public TO "+runner)
	cfg := conn.Config()
	url := fmt.Sprintf("postgres://%s:p@%s:%d/%s", runner, cfg.Host, cfg.Port, name)
	return project{Conn: conn, url: url, dir: t.TempDir()}
}

// write goes the way of --dir.
func write(t *testing.T, p project, o format.Options) {
	t.Helper()
	files, err := format.Folder(o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := format.Write(filepath.Join(p.dir, "migrations"), files); err != nil {
		t.Fatal(err)
	}
}

// add puts a file of the project itself beside what was printed.
func (p project) add(t *testing.T, path, text string) {
	t.Helper()
	path = filepath.Join(p.dir, filepath.FromSlash(path))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func must(t *testing.T, conn *pgx.Conn, sql string) {
	t.Helper()
	if _, err := conn.Exec(context.Background(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func get[T any](t *testing.T, conn *pgx.Conn, sql string, args ...any) T {
	t.Helper()
	var v T
	if err := conn.QueryRow(t.Context(), sql, args...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

func quote(name string) string { return pgx.Identifier{name}.Sanitize() }
