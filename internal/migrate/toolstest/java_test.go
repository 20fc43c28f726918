package toolstest

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/outrider-cdc/outrider/internal/harness"
	"github.com/outrider-cdc/outrider/internal/harness/download"
	"github.com/outrider-cdc/outrider/internal/harness/postgres"
)

// Versions of the tools that run in Java.
const (
	flywayVersion    = "13.12.0"
	liquibaseVersion = "5.0.4"
	jdbcVersion      = "42.7.14"
)

// javaTool is a process of testdata/Tools.java.
type javaTool struct {
	commands io.Writer
	answers  *bufio.Scanner
	log      *bytes.Buffer
}

func startJava(t *testing.T, name string, p project) *javaTool {
	t.Helper()
	java, err := exec.LookPath("java")
	if err != nil {
		harness.Missing(t, fmt.Errorf("%w (apt-get install default-jdk-headless)", err))
	}
	jars := filepath.Join(download.Cache(false), fmt.Sprintf("migration-tools-%s-%s-%s", flywayVersion, liquibaseVersion, jdbcVersion))
	err = download.Once(t.Context(), jars, func(tmp string) error {
		return download.MavenProject(t.Context(), tmp, "org.flywaydb:flyway-database-postgresql:"+flywayVersion,
			"org.liquibase:liquibase-core:"+liquibaseVersion, "org.postgresql:postgresql:"+jdbcVersion)
	})
	if err != nil {
		harness.Missing(t, fmt.Errorf("flyway and liquibase: %w (apt-get install maven, and let it reach its registry once)", err))
	}
	cfg := p.Config()
	cmd := exec.CommandContext(t.Context(), java, "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx256m", "-cp", filepath.Join(jars, "*"),
		filepath.Join("testdata", "Tools.java"), name, fmt.Sprintf("jdbc:postgresql://%s:%d/%s", cfg.Host, cfg.Port, cfg.Database), user(p.url), "p", p.dir)
	j := &javaTool{log: &bytes.Buffer{}}
	cmd.Stderr = j.log
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	j.commands, j.answers = in, bufio.NewScanner(out)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	return j
}

// run fails the test unless the answer is ok.
func (j *javaTool) run(t *testing.T, command string) {
	t.Helper()
	if answer := j.ask(t, command); !strings.HasPrefix(answer, "ok") {
		t.Fatalf("%s: %s\n%s", command, answer, j.log)
	}
}

func (j *javaTool) ask(t *testing.T, command string) (answer string) {
	t.Helper()
	if _, err := fmt.Fprintln(j.commands, command); err != nil {
		t.Fatalf("%s: %v\n%s", command, err, j.log)
	}
	if !j.answers.Scan() {
		t.Fatalf("%s: no answer\n%s", command, j.log)
	}
	return j.answers.Text()
}

type flywayTool struct {
	*javaTool
	project
	undo *pgx.Conn
}

func newFlyway(t *testing.T, p project) tool {
	p.add(t, fmt.Sprintf("migrations/V%d__mine.sql", ofTheProject), upOfProject)
	p.add(t, fmt.Sprintf("migrations/U%d__mine.sql", ofTheProject), downProject)
	return flywayTool{startJava(t, "flyway", p), p, postgres.Connect(t, p.url)}
}

func (f flywayTool) up(t *testing.T) {
	t.Helper()
	f.run(t, "migrate")
}

// down is what one does with the free edition: run the undo files, newest first,
// and take the lines out of the history.
func (f flywayTool) down(t *testing.T) {
	t.Helper()
	if answer := f.ask(t, "undo"); !strings.HasPrefix(answer, "failed") {
		t.Errorf("flyway has undo now (%s): test it", answer)
	}
	files, err := filepath.Glob(filepath.Join(f.dir, "migrations", "U*.sql"))
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(files, func(a, b string) int { return flywayNumber(t, b) - flywayNumber(t, a) })
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		must(t, f.undo, string(text))
		must(t, f.undo, fmt.Sprintf("DELETE FROM flyway_schema_history WHERE version = '%d'", flywayNumber(t, file)))
	}
}

func flywayNumber(t *testing.T, file string) (n int) {
	t.Helper()
	if _, err := fmt.Sscanf(filepath.Base(file), "U%d__", &n); err != nil {
		t.Fatal(err)
	}
	return n
}

type liquibaseTool struct {
	*javaTool
	project
}

func newLiquibase(t *testing.T, p project) tool {
	p.add(t, "changelog.yaml", "databaseChangeLog:\n  - includeAll:\n      path: migrations/\n")
	p.add(t, fmt.Sprintf("migrations/%d_mine.sql", ofTheProject),
		"--liquibase formatted sql\n\n--changeset us:mine\n"+upOfProject+"\n--rollback "+downProject+"\n")
	return liquibaseTool{startJava(t, "liquibase", p), p}
}

func (l liquibaseTool) up(t *testing.T) {
	t.Helper()
	l.run(t, "update")
}

func (l liquibaseTool) down(t *testing.T) {
	t.Helper()
	applied := get[int](t, l.Conn, "SELECT count(*)::int FROM databasechangelog")
	l.run(t, fmt.Sprintf("rollbackCount %d", applied))
}
