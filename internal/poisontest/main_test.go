package poisontest_test

import (
	"context"
	"errors"
	"os"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/outrider-cdc/outrider/internal/chaos"
	"github.com/outrider-cdc/outrider/internal/harness"
	"github.com/outrider-cdc/outrider/internal/harness/kafka"
	"github.com/outrider-cdc/outrider/internal/harness/postgres"
)

// All tests share one broker and one database server; each has a database, a
// slot and topics of its own. The broker obeys access rules, and lets everybody
// do what no rule speaks of.
var (
	broker = kafka.Shared{Options: kafka.Options{Properties: []string{
		"authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
		"allow.everyone.if.no.acl.found=true",
	}}}
	database server
	built    program
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(built.removing(database.closing(broker.Closing(m))))
}

// runner is tests with something around them.
type runner func() int

// Run implements kafka.Runner.
func (r runner) Run() int { return r() }

// server is Postgres, started by the first test that wants it.
type server struct {
	once sync.Once
	pg   *postgres.Server
	err  error
}

func (s *server) get(t *testing.T) *postgres.Server {
	t.Helper()
	s.once.Do(func() {
		s.pg, s.err = postgres.Open(context.WithoutCancel(t.Context()), postgres.Options{
			Settings: []string{"max_replication_slots=100", "max_wal_senders=100", "max_connections=200"},
		})
	})
	if errors.Is(s.err, postgres.ErrNoBuild) || errors.Is(s.err, postgres.ErrShared) {
		harness.Missing(t, s.err)
	}
	if s.err != nil {
		t.Fatal(s.err)
	}
	return s.pg
}

func (s *server) closing(m kafka.Runner) kafka.Runner {
	return runner(func() int {
		code := m.Run()
		if s.pg != nil && s.pg.Close() != nil && code == 0 {
			return 1
		}
		return code
	})
}

// program is the binary, built by the first test that wants it.
type program struct {
	once sync.Once
	dir  string
	path string
	err  error
}

func (p *program) get(t *testing.T) string {
	t.Helper()
	p.once.Do(func() {
		//nolint:usetesting // the binary outlives the first test that wants it
		if p.dir, p.err = os.MkdirTemp("", "outrider-poison-"); p.err == nil {
			p.path, p.err = chaos.Build(context.WithoutCancel(t.Context()), p.dir, true)
		}
	})
	if p.err != nil {
		t.Fatal(p.err)
	}
	return p.path
}

func (p *program) removing(m kafka.Runner) kafka.Runner {
	return runner(func() int {
		code := m.Run()
		if p.dir != "" && os.RemoveAll(p.dir) != nil && code == 0 {
			return 1
		}
		return code
	})
}
