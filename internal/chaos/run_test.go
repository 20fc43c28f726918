package chaos_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/outrider-cdc/outrider/internal/chaos"
	"github.com/outrider-cdc/outrider/internal/harness/kafka"
	"github.com/outrider-cdc/outrider/internal/harness/postgres"
)

const (
	slot   = "outrider_chaos"
	budget = 8 << 20 // bytes in flight
	// step is how long a run waits for any one thing to happen.
	step = 90 * time.Second
)

// run is a stage whose errors fail the test.
type run struct {
	*chaos.Stage
	t       *testing.T
	ctx     context.Context // ends with the test, or when the run takes too long
	relay   *chaos.Player
	started time.Time
}

// newRun starts a relay that has its slot, and then the writers, which go on
// until end.
func newRun(t *testing.T, major int, limit time.Duration, settings ...string) *run {
	t.Helper()
	return newRunOn(t, broker.Cluster(t), postgres.Start(t, major, settings...), limit, chaos.WorkloadConfig{Prepared: len(settings) > 0})
}

// newRunOn is newRun on servers that the caller may do things to, and with
// another binary of the relay if one is named.
func newRunOn(t *testing.T, cluster *kafka.Cluster, server *postgres.Server, limit time.Duration, load chaos.WorkloadConfig, with ...string) *run {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d, Postgres %d", seed, server.Major())
	load.LargeEvery = 5000
	s, err := chaos.OpenStage(ctx, chaos.StageConfig{
		Server: server, Cluster: cluster, Binary: first(append(with, binary(t))), Dir: t.TempDir(), Seed: seed,
		Load: load, Budget: budget, Timeout: 5 * time.Second, Step: step, Log: discard(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	r := &run{Stage: s, t: t, ctx: ctx}
	r.relay = s.AddRelay()
	t.Cleanup(func() {
		if t.Failed() && r.relay.Process != nil {
			t.Logf("end of the relay's log:\n%s", r.relay.LogTail(8000))
		}
	})
	_, err = s.Launch(ctx, r.relay, 0)
	r.must(err)
	r.started = time.Now()
	s.Write(ctx)
	return r
}

func (r *run) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// walsender is the pid of the server process that has the slot, 0 if none has.
func (r *run) walsender() int {
	r.t.Helper()
	pid, err := r.Walsender(r.ctx)
	r.must(err)
	return pid
}

// suffer lets a fault of the table strike.
func (r *run) suffer(name string) {
	r.t.Helper()
	for _, f := range chaos.Faults() {
		if f.Name == name {
			evidence, err := f.Strike(r.ctx, r.Stage)
			r.must(err)
			r.t.Logf("%s: %s", name, evidence)
			return
		}
	}
	r.t.Fatalf("there is no fault %s", name)
}

// kill ends the relay with SIGKILL while rows are on their way, and starts it again.
func (r *run) kill() { r.suffer("relay-killed") }

// cut terminates the walsender while the relay has rows in hand.
func (r *run) cut() { r.suffer("walsender-killed") }

// end lets the writers end, waits for the last row, stops the relay and judges.
func (r *run) end() chaos.Report {
	r.t.Helper()
	report, err := r.End(r.ctx)
	if err != nil {
		r.t.Error(err) // the report says more
	}
	out := r.Load.Outcome()
	r.t.Logf("%s; %.0f rows/s; %+v", report, float64(len(out.Committed))/time.Since(r.started).Seconds(), out.Evidence)
	if err := report.Err(); err != nil {
		r.t.Error(err)
	}
	return report
}

// discard is a log for what tests do not look at.
func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

func first(s []string) string { return s[0] }
