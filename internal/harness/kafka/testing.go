package kafka

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/outrider-cdc/outrider/internal/harness"
)

// Start starts a cluster of that many nodes for one test: it is closed with the
// test, and its logs' ends are shown if the test failed. Without Java or jars
// the test is skipped or fails, see [harness.Missing]; so it is if the cluster
// is to be special and the environment names a shared one.
func Start(tb testing.TB, nodes int, properties ...string) *Cluster {
	tb.Helper()
	return StartWith(tb, Options{Nodes: nodes, Properties: properties})
}

// StartWith is [Start] with all options.
func StartWith(tb testing.TB, o Options) *Cluster {
	tb.Helper()
	c, err := Open(tb.Context(), o)
	check(tb, err)
	tb.Cleanup(func() {
		if tb.Failed() {
			for id := range c.Nodes() {
				tb.Logf("end of the log of node %d:\n%s", id+1, tail(c.Log(id+1), 40))
			}
		}
		if err := c.Close(); err != nil {
			tb.Error(err)
		}
	})
	return c
}

func check(tb testing.TB, err error) {
	tb.Helper()
	if errors.Is(err, ErrNoBuild) || errors.Is(err, ErrShared) {
		harness.Missing(tb, err)
	}
	if err != nil {
		tb.Fatal(err)
	}
}

// Private ends the test, as [harness.Missing] does, unless c is a cluster of our
// own whose nodes can be killed.
func (c *Cluster) Private(tb testing.TB) {
	tb.Helper()
	if c.shared != nil {
		harness.Missing(tb, ErrShared)
	}
}

// Shared is one cluster for all tests of a binary, started by the first that
// asks for it. Each test has topics of its own, see [Cluster.Topic], and leaves
// the nodes alone. The zero value is one node. A Shared is a variable of the
// test package, and its TestMain runs [Shared.Closing].
type Shared struct {
	Options Options

	once    sync.Once
	cluster *Cluster
	err     error
}

// Cluster returns the cluster, or ends the test as [Start] does. Not tb but the
// test binary bounds the cluster's life.
func (s *Shared) Cluster(tb testing.TB) *Cluster {
	tb.Helper()
	s.once.Do(func() { s.cluster, s.err = Open(context.WithoutCancel(tb.Context()), s.Options) })
	check(tb, s.err)
	return s.cluster
}

// Runner is what [testing.M] and goleak's TestMain have in common.
type Runner interface{ Run() int }

// Closing wraps m so that the cluster is closed after the last test:
//
//	func TestMain(m *testing.M) { os.Exit(broker.Closing(m).Run()) }
//
// or, with a check for goroutines that are left, which must come after it:
//
//	func TestMain(m *testing.M) { goleak.VerifyTestMain(broker.Closing(m)) }
func (s *Shared) Closing(m Runner) Runner { return closing{s, m} }

type closing struct {
	shared *Shared
	tests  Runner
}

// Run implements Runner.
func (c closing) Run() int {
	code := c.tests.Run()
	if c.shared.cluster == nil {
		return code
	}
	if err := c.shared.cluster.Close(); err != nil && code == 0 {
		return 1
	}
	return code
}
