package postgres_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/outrider-cdc/outrider/internal/harness/postgres"
)

// A running server by URL gives each test a database of its own, and nothing
// that belongs to the server.
func TestSharedServer(t *testing.T) {
	host := postgres.Start(t, 0)
	host.Private(t)
	t.Setenv(postgres.Variable(host.Major()), host.URL())
	s, err := postgres.Open(t.Context(), postgres.Options{Major: host.Major()})
	if err != nil {
		t.Fatal(err)
	}
	database := query(t, s.URL(), "SELECT current_database()")
	if !strings.HasPrefix(database, "outrider_test_") || query(t, s.SocketURL(), "SELECT current_database()") != database {
		t.Errorf("the database is %s", database)
	}
	if got := query(t, s.DatabaseURL("postgres"), "SELECT current_database()"); got != "postgres" {
		t.Errorf("the other database is %s", got)
	}
	if s.Port() != host.Port() {
		t.Errorf("port is %d, want %d", s.Port(), host.Port())
	}
	_, standby := s.Standby(t.Context(), "b")
	for name, err := range map[string]error{
		"start": s.Start(t.Context()), "stop": s.Stop(t.Context(), postgres.Fast), "crash": s.Crash(t.Context()),
		"restart": s.Restart(t.Context()), "set": s.Set("jit=on"), "reload": s.Reload(), "standby": standby, "promote": s.Promote(t.Context()),
	} {
		if !errors.Is(err, postgres.ErrShared) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	const left = "SELECT count(*) FROM pg_database WHERE datname LIKE 'outrider_test_%'"
	if got := query(t, host.URL(), left); got != "0" {
		t.Errorf("%s databases are left", got)
	}
	if _, err := postgres.Open(t.Context(), postgres.Options{Major: host.Major(), TLS: true}); !errors.Is(err, postgres.ErrShared) {
		t.Errorf("with options: %v", err)
	}
}

func TestBuildFromEnvironment(t *testing.T) {
	s := postgres.Start(t, 0)
	s.Private(t)
	major := s.Major()
	for _, dir := range []string{s.BinDir(), filepath.Dir(s.BinDir())} {
		t.Setenv(postgres.Variable(major), dir)
		if got := postgres.Start(t, major).BinDir(); got != s.BinDir() {
			t.Errorf("with %s the programs are in %s", dir, got)
		}
	}
	// A wrong value is an error, never another build.
	other := postgres.Majors()[0]
	if other == major {
		other++
	}
	for _, m := range []int{major, other} {
		dir := t.TempDir()
		if m == other {
			dir = s.BinDir() // a build, but of another major
		}
		t.Setenv(postgres.Variable(m), dir)
		if _, err := postgres.Open(t.Context(), postgres.Options{Major: m}); err == nil || !strings.Contains(err.Error(), postgres.Variable(m)) {
			t.Errorf("%s=%s: %v", postgres.Variable(m), dir, err)
		}
	}
}

func TestNoBuild(t *testing.T) {
	if _, err := postgres.Open(t.Context(), postgres.Options{Major: 13}); err == nil || errors.Is(err, postgres.ErrNoBuild) {
		t.Errorf("unsupported major: %v", err)
	}
	// A distribution has one major or two.
	var missing error
	for _, major := range postgres.Majors() {
		s, err := postgres.Open(t.Context(), postgres.Options{Major: major, Distribution: true})
		if err != nil {
			missing = err
			continue
		}
		if _, err := os.Stat(filepath.Join(s.BinDir(), "postgres")); err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if missing != nil && !errors.Is(missing, postgres.ErrNoBuild) || missing != nil && !strings.Contains(missing.Error(), "apt-get install postgresql-") {
		t.Errorf("error is %v", missing)
	}
}
