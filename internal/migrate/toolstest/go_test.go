package toolstest

import (
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	gomigrate "github.com/golang-migrate/migrate/v4"
	migratepgx "github.com/golang-migrate/migrate/v4/database/pgx/v5"
	"github.com/golang-migrate/migrate/v4/source/iofs"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver that both tools use
	"github.com/pressly/goose/v3"
)

type gooseTool struct{ *goose.Provider }

func newGoose(t *testing.T, p project) tool {
	p.add(t, fmt.Sprintf("migrations/%d_mine.sql", ofTheProject), "-- +goose Up\n"+upOfProject+"\n-- +goose Down\n"+downProject+"\n")
	provider, err := goose.NewProvider(goose.DialectPostgres, open(t, p), os.DirFS(filepath.Join(p.dir, "migrations")))
	if err != nil {
		t.Fatal(err)
	}
	return gooseTool{provider}
}

func (g gooseTool) up(t *testing.T) {
	t.Helper()
	if _, err := g.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func (g gooseTool) down(t *testing.T) {
	t.Helper()
	if _, err := g.DownTo(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
}

type golangMigrateTool struct{ *gomigrate.Migrate }

func newGolangMigrate(t *testing.T, p project) tool {
	p.add(t, fmt.Sprintf("migrations/%d_mine.up.sql", ofTheProject), upOfProject)
	p.add(t, fmt.Sprintf("migrations/%d_mine.down.sql", ofTheProject), downProject)
	files, err := iofs.New(os.DirFS(p.dir), "migrations")
	if err != nil {
		t.Fatal(err)
	}
	driver, err := migratepgx.WithInstance(open(t, p), &migratepgx.Config{})
	if err != nil {
		t.Fatal(err)
	}
	m, err := gomigrate.NewWithInstance("iofs", files, "pgx5", driver)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = m.Close() })
	return golangMigrateTool{m}
}

func (m golangMigrateTool) up(t *testing.T) {
	t.Helper()
	if err := m.Up(); err != nil && !errors.Is(err, gomigrate.ErrNoChange) {
		t.Fatal(err)
	}
}

func (m golangMigrateTool) down(t *testing.T) {
	t.Helper()
	if err := m.Down(); err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, p project) *sql.DB {
	t.Helper()
	db, err := sql.Open("pgx", p.url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}
