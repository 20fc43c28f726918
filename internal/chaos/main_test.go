package chaos_test

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/outrider-cdc/outrider/internal/chaos"
	"github.com/outrider-cdc/outrider/internal/harness/kafka"
)

var (
	broker kafka.Shared
	built  relayBinary
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(built.removing(broker.Closing(m))) }

// relayBinary is the relay, built by the first test that wants it.
type relayBinary struct {
	once sync.Once
	dir  string
	path string
	err  error
}

// binary returns the relay's binary, built with the race detector.
func binary(t *testing.T) string {
	t.Helper()
	built.once.Do(func() {
		//nolint:usetesting // the binary outlives the first test that wants it
		if built.dir, built.err = os.MkdirTemp("", "outrider-chaos-"); built.err == nil {
			built.path, built.err = chaos.Build(context.WithoutCancel(t.Context()), built.dir, true)
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.path
}

func (b *relayBinary) removing(m kafka.Runner) kafka.Runner { return removing{b, m} }

type removing struct {
	binary *relayBinary
	tests  kafka.Runner
}

// Run implements kafka.Runner.
func (r removing) Run() int {
	code := r.tests.Run()
	if r.binary.dir != "" && os.RemoveAll(r.binary.dir) != nil && code == 0 {
		return 1
	}
	return code
}

func postgresName(major int) string { return fmt.Sprintf("postgres %d", major) }

// number reads a variable that makes a run larger than it is in an ordinary test.
func number(t *testing.T, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("%s=%q is no number above 0", name, text)
	}
	return n
}

// until looks again and again until ok, and fails the test when ctx has ended before.
func until(ctx context.Context, t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("wait until %s: %v", what, context.Cause(ctx))
		}
	}
}
