package chaos_test

import (
	"context"
	"testing"
	"time"

	"github.com/outrider-cdc/outrider/internal/chaos"
	"github.com/outrider-cdc/outrider/internal/harness/kafka"
	"github.com/outrider-cdc/outrider/internal/harness/postgres"
)

// The only broker is killed under traffic and stays away. The budget fills; the
// relay goes on holding its slot on the same connection, within its memory; the
// database can be stopped in the middle of it. Then the broker comes back, and
// nothing is missing.
//
// TEST_CHAOS_OUTAGE is how many seconds the broker is away.
func TestBrokerAway(t *testing.T) {
	outage := time.Duration(number(t, "TEST_CHAOS_OUTAGE", 15)) * time.Second
	cluster := kafka.Start(t, 1)
	server := postgres.Start(t, 18)
	plain, err := chaos.Build(t.Context(), t.TempDir(), false) // the race detector multiplies memory
	if err != nil {
		t.Fatal(err)
	}
	r := newRunOn(t, cluster, server, 4*time.Minute+4*outage, chaos.WorkloadConfig{Rate: 2000}, plain)
	if err := r.Reader.WaitRows(r.ctx, 1000); err != nil {
		t.Fatal(err)
	}
	before := r.walsender()

	if err := cluster.Kill(1); err != nil {
		t.Fatal(err)
	}
	gone := time.Now()
	r.awaitFull(20 * time.Second)
	t.Logf("budget full %s after the broker was killed", time.Since(gone).Round(time.Millisecond))
	<-time.After(outage - time.Since(gone))
	if after := r.walsender(); after != before {
		t.Errorf("walsender was %d and is %d after %s without the broker", before, after, outage)
	}
	now, peak, err := r.relay.Memory()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("resident memory %d MiB, at most %d MiB, budget %d MiB", now>>20, peak>>20, budget>>20)
	if peak > budget+constant {
		t.Errorf("resident memory was %d MiB with a budget of %d MiB", peak>>20, budget>>20)
	}
	r.stopServer(server) // budget full, and megabytes of WAL unread

	if err := cluster.StartNode(r.ctx, 1); err != nil {
		t.Fatal(err)
	}
	committed := r.Load.Committed()
	if err := r.Load.WaitCommitted(r.ctx, committed+1000); err != nil {
		t.Fatal(err)
	}
	r.end()
}

// The same with the socket drained: everything that was committed is in the
// relay's hands, and the walsender waits for its confirmation to go down.
func TestServerStopsWhileTheBrokerIsAway(t *testing.T) {
	cluster := kafka.Start(t, 1)
	server := postgres.Start(t, 15)
	r := newRunOn(t, cluster, server, 4*time.Minute, chaos.WorkloadConfig{Rows: 300})
	if err := r.Reader.WaitRows(r.ctx, 300); err != nil {
		t.Fatal(err)
	}
	if err := cluster.Kill(1); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		r.must(r.Exec(r.ctx, `INSERT INTO outbox.events (topic, key, payload) SELECT topic, 'outage', '1' FROM outbox.events LIMIT 1`))
	}
	until(r.ctx, t, "the relay has read everything", func() bool {
		s, err := r.relay.Status(r.ctx)
		return err == nil && s.InFlightRows == 5
	})
	r.stopServer(server)
	if err := cluster.StartNode(r.ctx, 1); err != nil {
		t.Fatal(err)
	}
	if err := r.Reader.WaitRows(r.ctx, 305); err != nil {
		t.Errorf("%d rows arrived: %v", r.Reader.Distinct(), err)
	}
}

// constant is what a relay may need beside its budget: binary, runtime, client.
const constant = 48 << 20

// awaitFull waits until the relay has used up its budget.
func (r *run) awaitFull(within time.Duration) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.ctx, within)
	defer cancel()
	until(ctx, r.t, "the budget is full", func() bool {
		s, err := r.relay.Status(ctx)
		return err == nil && s.BudgetFull
	})
}

// stopServer is a fast stop that must end by itself, and the start after it.
func (r *run) stopServer(server *postgres.Server) {
	r.t.Helper()
	began := time.Now()
	ctx, cancel := context.WithTimeout(r.ctx, 10*time.Second)
	defer cancel()
	if err := server.Stop(ctx, postgres.Fast); err != nil {
		r.t.Fatalf("fast stop with the broker away: %v", err)
	}
	r.t.Logf("fast stop took %s", time.Since(began).Round(time.Millisecond))
	if err := server.Start(r.ctx); err != nil {
		r.t.Fatal(err)
	}
}
