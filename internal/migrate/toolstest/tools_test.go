package toolstest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
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
		"prisma":         newPrismaLike,
	}
	after := map[string]string{"alembic": "outrider_004", "django": "0004_outbox_relays"}
	s := start(t)
	for name, open := range tools {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := s.options(name)
			o.To = 4
			p := s.project(t)
			p.folder(t, o)
			o.From, o.To, o.After = 5, 0, after[name] // as after an upgrade of Outrider
			p.folder(t, o)
			s.upAndDown(t, p, open(t, p))
		})
	}
	for name, open := range map[string]func(*testing.T, project) tool{"goose": newGoose, "liquibase": newLiquibase} {
		t.Run(name+" from one file", func(t *testing.T) {
			t.Parallel()
			text, err := format.One(s.options(name))
			if err != nil {
				t.Fatal(err)
			}
			p := s.project(t)
			p.add(t, "migrations/00100_outbox.sql", text)
			s.upAndDown(t, p, open(t, p))
		})
	}
}

// server has four roles: a writer of events, one for every other kind, the owner
// of the tables, and the one that runs the tool, which may become the owner and
// owns nothing of ours.
type server struct {
	*postgres.Server
	app, other, owner, runner string
}

func start(t *testing.T) server {
	t.Helper()
	s := server{postgres.Start(t, 0), "a" + hostile, "r" + hostile, "o" + hostile, "runner"}
	admin := postgres.Connect(t, s.URL())
	must(t, admin, "CREATE ROLE "+quote(s.app))
	must(t, admin, "CREATE ROLE "+quote(s.other))
	must(t, admin, "CREATE ROLE "+quote(s.owner))
	must(t, admin, "CREATE ROLE "+s.runner+" LOGIN PASSWORD 'p'")
	must(t, admin, "GRANT "+quote(s.owner)+" TO "+s.runner)
	return s
}

// options grants to one role of each kind that there is.
func (s server) options(name string) format.Options {
	o := format.Options{Format: name, Owner: s.owner}
	for _, m := range migrations.All() {
		r := migrations.Role{Privilege: m.Privilege, Name: s.app}
		if m.ForRole() && m.Privilege != migrations.AppRole {
			r.Name = s.other
		}
		if m.ForRole() && !slices.Contains(o.Roles, r) {
			o.Roles = append(o.Roles, r)
		}
	}
	return o
}

func (s server) upAndDown(t *testing.T, p project, tool tool) {
	t.Helper()
	status(t, p, false)
	tool.up(t)
	s.inPlace(t, p)
	tool.up(t) // nothing is left to do
	tool.down(t)
	nothingLeft(t, p)
	status(t, p, false)
	tool.up(t)
	s.inPlace(t, p)
}

// inPlace looks at the database as Outrider does, and as those who use it do.
func (s server) inPlace(t *testing.T, p project) {
	t.Helper()
	status(t, p, true)
	for sql, problem := range map[string]string{
		"ALTER TABLE outbox.dead DROP COLUMN committed_at":                                                    `gone: COLUMN "outbox".dead.committed_at`,
		"ALTER TABLE outbox.events DROP CONSTRAINT row_size":                                                  `gone: CONSTRAINT row_size ON "outbox".events`,
		"ALTER TABLE outbox.events DISABLE TRIGGER own_tx":                                                    `altered: TRIGGER own_tx ON "outbox".events: is not enabled ALWAYS`,
		"CREATE OR REPLACE FUNCTION outbox.uuid_v7() RETURNS uuid LANGUAGE sql AS 'SELECT gen_random_uuid()'": `altered: FUNCTION "outbox".uuid_v7(): has another body`,
	} {
		drift(t, p, sql, problem)
	}
	const owners = `SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = to_regclass($1)`
	if got := get[string](t, p.Conn, owners, "outbox.events"); got != s.owner {
		t.Errorf("owner of outbox.events is %q, want %q", got, s.owner)
	}
	if got := get[string](t, p.Conn, owners, "public.mine"); got != s.runner {
		t.Errorf("owner of the project's table is %q, want %q: the role was not put back", got, s.runner)
	}
	tx, err := p.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(t.Context()) }()
	if _, err := tx.Exec(t.Context(), "SET LOCAL ROLE "+quote(s.app)+`; SET LOCAL outbox.headers = '{"a": "b"}'`); err != nil {
		t.Fatal(err)
	}
	var id string
	if err := tx.QueryRow(t.Context(), `INSERT INTO outbox.events (id, topic, payload) VALUES (NULL, 't', '{}') RETURNING id::text`).Scan(&id); err != nil {
		t.Errorf("as the application: %v", err)
	}
}

// drift damages what the tool made, in a transaction that is rolled back.
func drift(t *testing.T, p project, sql, problem string) {
	t.Helper()
	tx, err := p.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(t.Context()) }()
	must(t, p.Conn, sql)
	s, err := migrate.Check(t.Context(), p.Conn, migrations.Names{})
	if err != nil {
		t.Fatal(err)
	}
	if s.UpToDate() || !strings.Contains(s.String(), problem) {
		t.Errorf("after %s:\n%s", sql, s)
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

func (s server) project(t *testing.T) project {
	t.Helper()
	admin := postgres.Connect(t, s.URL())
	name, own := s.NewDatabase(t)
	must(t, admin, fmt.Sprintf("GRANT CREATE ON DATABASE %s TO %s, %s", name, quote(s.owner), s.runner))
	conn := postgres.Connect(t, own)
	must(t, conn, "GRANT ALL ON SCHEMA public TO "+s.runner)
	cfg := conn.Config()
	url := fmt.Sprintf("postgres://%s:p@%s:%d/%s", s.runner, cfg.Host, cfg.Port, name)
	return project{Conn: conn, url: url, dir: t.TempDir()}
}

// folder goes the way of --dir.
func (p project) folder(t *testing.T, o format.Options) {
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

// user is the role in the URL of a project.
func user(url string) string {
	name, _, _ := strings.Cut(strings.TrimPrefix(url, "postgres://"), ":")
	return name
}
