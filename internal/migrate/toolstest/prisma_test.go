package toolstest

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/outrider-cdc/outrider/internal/harness/postgres"
)

// prismaLike is not Prisma. Its engine comes from no package registry, and the
// one in WebAssembly that its version 6 has beside it cuts scripts at every
// semicolon. This sends what the engine would send: folders in the order of
// their names, each file as one message of the simple query protocol.
type prismaLike struct {
	project
	runner *pgx.Conn
}

func newPrismaLike(t *testing.T, p project) tool {
	p.add(t, fmt.Sprintf("migrations/%014d_mine/migration.sql", ofTheProject), upOfProject)
	p.add(t, fmt.Sprintf("migrations/%014d_mine/down.sql", ofTheProject), downProject)
	runner := postgres.Connect(t, p.url)
	must(t, runner, "CREATE TABLE public.history (name text PRIMARY KEY)")
	return prismaLike{p, runner}
}

func (p prismaLike) files(t *testing.T, name string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(p.dir, "migrations", "*", name))
	if err != nil || len(files) < 2 {
		t.Fatalf("%d files %s, %v", len(files), name, err)
	}
	return files
}

func (p prismaLike) send(t *testing.T, file string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.runner.PgConn().Exec(t.Context(), string(text)).ReadAll(); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}

func (p prismaLike) up(t *testing.T) {
	t.Helper()
	for _, file := range p.files(t, "migration.sql") {
		name := filepath.Base(filepath.Dir(file))
		if get[bool](t, p.runner, "SELECT EXISTS (SELECT FROM public.history WHERE name = $1)", name) {
			continue
		}
		p.send(t, file)
		must(t, p.runner, fmt.Sprintf("INSERT INTO public.history VALUES ('%s')", name))
	}
}

func (p prismaLike) down(t *testing.T) {
	t.Helper()
	for _, file := range slices.Backward(p.files(t, "down.sql")) {
		p.send(t, file)
	}
	must(t, p.runner, "DELETE FROM public.history")
}
