package toolstest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/outrider-cdc/outrider/internal/harness"
	"github.com/outrider-cdc/outrider/internal/harness/download"
	"github.com/outrider-cdc/outrider/internal/harness/postgres"
)

// packages of Python, pinned.
func packages() []string {
	return []string{"alembic==1.20.1", "django==5.2.19", "psycopg[binary]==3.3.9", "sqlalchemy==2.1.9"}
}

// pythonTool runs a command of a project's folder.
type pythonTool struct {
	project
	python, path string
	upArgs       []string
	downArgs     []string
}

func startPython(t *testing.T, p project) pythonTool {
	t.Helper()
	python, path, err := download.Python(t.Context(), packages()...)
	if err != nil {
		harness.Missing(t, err)
	}
	return pythonTool{project: p, python: python, path: path}
}

func (p pythonTool) run(t *testing.T, args []string) {
	t.Helper()
	if _, err := p.output(t, args); err != nil {
		t.Fatal(err)
	}
}

func (p pythonTool) output(t *testing.T, args []string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), p.python, args...)
	cmd.Dir = p.dir
	cfg := p.Config()
	cmd.Env = append(os.Environ(), "PYTHONPATH="+p.path, "PYTHONDONTWRITEBYTECODE=1", "DATABASE_URL="+p.url,
		"DB_HOST="+cfg.Host, fmt.Sprintf("DB_PORT=%d", cfg.Port), "DB_NAME="+cfg.Database, "DB_USER="+user(p.url))
	var log strings.Builder
	cmd.Stderr = &log
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%q: %w\n%s%s", args, err, out, log.String())
	}
	return string(out), nil
}

func (p pythonTool) up(t *testing.T) {
	t.Helper()
	p.run(t, p.upArgs)
}

func (p pythonTool) down(t *testing.T) {
	t.Helper()
	p.run(t, p.downArgs)
}

// alembicEnv is as "alembic init" writes it: all migrations in one transaction.
const alembicEnv = `import os
import sqlalchemy
from alembic import context

engine = sqlalchemy.create_engine(os.environ["DATABASE_URL"].replace("postgres://", "postgresql+psycopg://"))
if context.is_offline_mode():
    context.configure(dialect_name="postgresql", literal_binds=True, dialect_opts={"paramstyle": "named"})
    with context.begin_transaction():
        context.run_migrations()
else:
    with engine.connect() as connection:
        context.configure(connection=connection)
        with context.begin_transaction():
            context.run_migrations()
`

func newAlembic(t *testing.T, p project) tool {
	tool := startPython(t, p)
	printed, err := filepath.Glob(filepath.Join(p.dir, "migrations", "*.py"))
	if err != nil || len(printed) == 0 {
		t.Fatalf("printed %q, %v", printed, err)
	}
	p.add(t, "alembic.ini", "[alembic]\nscript_location = %(here)s\nversion_locations = %(here)s/migrations\n")
	p.add(t, "env.py", alembicEnv)
	last := strings.Join(strings.SplitN(filepath.Base(printed[len(printed)-1]), "_", 3)[:2], "_")
	p.add(t, "migrations/mine.py", fmt.Sprintf("from alembic import op\nrevision = 'mine'\ndown_revision = '%s'\ndef upgrade():\n    op.execute('%s')\ndef downgrade():\n    op.execute('%s')\n",
		last, upOfProject, downProject))
	tool.upArgs = []string{"-m", "alembic", "upgrade", "head"}
	tool.downArgs = []string{"-m", "alembic", "downgrade", "base"}
	return tool
}

// TestAlembicOffline: SQL that Alembic writes for somebody else to run.
func TestAlembicOffline(t *testing.T) {
	t.Parallel()
	s := start(t)
	p := s.project(t)
	p.folder(t, s.options("alembic"))
	tool, ok := newAlembic(t, p).(pythonTool)
	if !ok {
		t.Fatal("not a tool in Python")
	}
	runner := postgres.Connect(t, p.url)
	text, err := tool.output(t, append(tool.upArgs, "--sql"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := runner.PgConn().Exec(t.Context(), text).ReadAll(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	s.inPlace(t, p)
}

const djangoSettings = `import os
INSTALLED_APPS = ["outbox"]
DATABASES = {"default": {"ENGINE": "django.db.backends.postgresql", "HOST": os.environ["DB_HOST"], "PORT": os.environ["DB_PORT"],
    "NAME": os.environ["DB_NAME"], "USER": os.environ["DB_USER"], "PASSWORD": "p"}}
`

func newDjango(t *testing.T, p project) tool {
	tool := startPython(t, p)
	if err := os.Mkdir(filepath.Join(p.dir, "outbox"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(p.dir, "migrations"), filepath.Join(p.dir, "outbox", "migrations")); err != nil {
		t.Fatal(err)
	}
	printed, err := filepath.Glob(filepath.Join(p.dir, "outbox", "migrations", "*.py"))
	if err != nil || len(printed) == 0 {
		t.Fatalf("printed %q, %v", printed, err)
	}
	p.add(t, "outbox/__init__.py", "")
	p.add(t, "outbox/migrations/__init__.py", "")
	p.add(t, "settings.py", djangoSettings)
	p.add(t, fmt.Sprintf("outbox/migrations/%d_mine.py", ofTheProject), fmt.Sprintf(`from django.db import migrations
class Migration(migrations.Migration):
    dependencies = [("outbox", "%s")]
    operations = [migrations.RunSQL("%s", "%s")]
`, strings.TrimSuffix(filepath.Base(printed[len(printed)-1]), ".py"), upOfProject, downProject))
	tool.upArgs = []string{"-m", "django", "migrate", "--settings=settings", "--pythonpath=.", "outbox"}
	tool.downArgs = slices.Concat(tool.upArgs, []string{"zero"})
	return tool
}
