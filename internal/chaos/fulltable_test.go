package chaos_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/outrider-cdc/outrider/internal/chaos"
	"github.com/outrider-cdc/outrider/internal/harness/postgres"
)

// A relay that starts for the first time finds a table full of rows, and
// writers that go on. Nobody vacuums well under an old snapshot: none of the
// relay's may last longer than it takes to read a chunk, however long the rows
// take on their way to Kafka.
//
// TEST_CHAOS_FULL is how many rows the table holds.
func TestFirstStartOnAFullTable(t *testing.T) {
	rows := number(t, "TEST_CHAOS_FULL", 10_000)
	ctx, cancel := context.WithTimeout(t.Context(), limit(rows))
	defer cancel()
	s, err := chaos.OpenStage(ctx, chaos.StageConfig{
		Server: postgres.Start(t, number(t, "TEST_CHAOS_POSTGRES", 18), "max_prepared_transactions=20"), Cluster: broker.Cluster(t),
		Binary: binary(t), Dir: t.TempDir(), Seed: uint64(time.Now().UnixNano()),
		Load: chaos.WorkloadConfig{Prepared: true, LargeEvery: 5000}, Budget: budget, Timeout: 5 * time.Second, Step: 10 * step, Log: discard(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	r := &run{Stage: s, t: t, ctx: ctx, relay: s.AddRelay()}
	s.Write(ctx)
	r.must(s.Load.WaitCommitted(ctx, rows))
	t.Logf("%d rows are in the table before the first start", s.Load.Committed())
	oldest := make(chan time.Duration, 1)
	watching, stop := context.WithCancel(ctx)
	go func() { oldest <- oldestSnapshot(watching, t, s.URL()) }()
	r.started = time.Now()
	_, err = s.Launch(ctx, r.relay, 0)
	r.must(err)
	r.must(s.Reader.WaitRows(ctx, rows))
	t.Logf("as many are on Kafka after %s", time.Since(r.started).Round(time.Millisecond))
	for phase := ""; phase != "streaming"; {
		db, err := s.DB(ctx)
		r.must(err)
		r.must(db.QueryRow(ctx, `SELECT phase FROM outbox.relays`).Scan(&phase))
	}
	took := time.Since(r.started)
	stop()
	longest := <-oldest
	t.Logf("streaming after %s; the oldest snapshot of the relay was %s old", took.Round(time.Millisecond), longest)
	if longest > max(3*time.Second, took/4) {
		t.Errorf("the relay held a snapshot for %s", longest)
	}
	r.end()
}

// oldestSnapshot looks at the relay's ordinary connections until ctx ends.
func oldestSnapshot(ctx context.Context, t *testing.T, url string) (oldest time.Duration) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Error(err)
		return 0
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	for ctx.Err() == nil {
		var age time.Duration
		err := conn.QueryRow(ctx, `SELECT coalesce(max(clock_timestamp() - xact_start), '0') FROM pg_stat_activity
WHERE application_name LIKE 'outrider/%' AND backend_type = 'client backend' AND backend_xmin IS NOT NULL`).Scan(&age)
		if err == nil {
			oldest = max(oldest, age)
		}
	}
	return oldest
}
