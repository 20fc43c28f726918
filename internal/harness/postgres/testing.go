package postgres

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/outrider-cdc/outrider/internal/harness"
)

// Start starts a server of that major (0: any) for one test: it is closed with
// the test, and its log's end is shown if the test failed. Without a build the
// test is skipped or fails, see [harness.Missing]; so it is if settings are
// wanted and the environment names a shared server.
func Start(tb testing.TB, major int, settings ...string) *Server {
	tb.Helper()
	return StartWith(tb, Options{Major: major, Settings: settings})
}

// StartWith is [Start] with all options.
func StartWith(tb testing.TB, o Options) *Server {
	tb.Helper()
	s, err := Open(tb.Context(), o)
	if errors.Is(err, ErrNoBuild) || errors.Is(err, ErrShared) {
		harness.Missing(tb, err)
	}
	if err != nil {
		tb.Fatal(err)
	}
	closeAfter(tb, s, "server")
	return s
}

// Private ends the test, as [harness.Missing] does, unless s is a server of our
// own that can be crashed, configured and so on.
func (s *Server) Private(tb testing.TB) {
	tb.Helper()
	if s.shared != nil {
		harness.Missing(tb, ErrShared)
	}
}

// Connect is a connection for one test.
func Connect(tb testing.TB, url string) *pgx.Conn {
	tb.Helper()
	conn, err := pgx.Connect(tb.Context(), url)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = conn.Close(ctx)
	})
	return conn
}

// NewDatabase makes a database for one test, with which it goes, whoever is
// connected to it.
func (s *Server) NewDatabase(tb testing.TB) (name, url string) {
	tb.Helper()
	admin := Connect(tb, s.URL())
	name = "m_" + strings.ToLower(rand.Text()[:12])
	if _, err := admin.Exec(tb.Context(), "CREATE DATABASE "+name); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if _, err := admin.Exec(context.Background(), "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			tb.Error(err)
		}
	})
	return name, s.DatabaseURL(name)
}

// StartStandby is [Server.Standby] for one test: the standby is closed with it.
func (s *Server) StartStandby(tb testing.TB, name string, settings ...string) *Server {
	tb.Helper()
	s.Private(tb)
	standby, err := s.Standby(tb.Context(), name, settings...)
	if err != nil {
		tb.Fatal(err)
	}
	closeAfter(tb, standby, name)
	return standby
}

func closeAfter(tb testing.TB, s *Server, name string) {
	tb.Cleanup(func() {
		if tb.Failed() && s.shared == nil {
			tb.Logf("end of the log of %s (Postgres %d):\n%s", name, s.Major(), tail(s.Log(), 40))
		}
		if err := s.Close(); err != nil {
			tb.Errorf("close %s: %v", name, err)
		}
	})
}
