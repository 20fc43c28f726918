package chaos_test

import (
	"context"
	"slices"
	"testing"
	"time"
)

// The relay is killed and its connection cut again and again, at random moments
// with rows on their way, under writers with savepoints, rollbacks, COPY,
// tombstones, prepared transactions and payloads at the table's limit.
//
// TEST_CHAOS_ROWS is how many rows are written, TEST_CHAOS_KILLS how often each
// of the two faults strikes, TEST_CHAOS_POSTGRES the major.
func TestKillsIntoRealKafka(t *testing.T) {
	rows := number(t, "TEST_CHAOS_ROWS", 20_000)
	times := number(t, "TEST_CHAOS_KILLS", 3+7*min(rows/200_000, 1))
	r := newRun(t, number(t, "TEST_CHAOS_POSTGRES", 18), limit(rows), "max_prepared_transactions=20")
	faults := slices.Concat(slices.Repeat([]func(){r.kill}, times), slices.Repeat([]func(){r.cut}, times))
	r.Rand.Shuffle(len(faults), func(i, j int) { faults[i], faults[j] = faults[j], faults[i] })
	r.strike(rows, faults)
	if report := r.end(); report.Duplicates.Count == 0 {
		t.Error("no row was sent twice: no kill fell between an acknowledgement and its confirmation")
	}
}

// Only a lost process forgets what Kafka has: a relay that loses its connection
// to Postgres lets the sink finish, and skips those rows when they come again.
func TestLostConnectionRepeatsNothing(t *testing.T) {
	const rows = 8000
	r := newRun(t, 15, limit(rows))
	r.strike(rows, slices.Repeat([]func(){r.cut}, 6))
	if report := r.end(); report.Duplicates.Count > 0 {
		t.Errorf("%d rows were sent twice, first: %v", report.Duplicates.Count, report.Duplicates.Examples)
	}
}

// limit is how long a run may take on a slow machine.
func limit(rows int) time.Duration {
	return 4*time.Minute + time.Duration(rows)*5*time.Millisecond
}

// strike lets each fault happen somewhere in its part of the run, and then
// waits until enough is written.
func (r *run) strike(rows int, faults []func()) {
	r.t.Helper()
	for i, fault := range faults {
		target := (rows*i + r.Rand.IntN(rows)) / len(faults)
		ctx, cancel := context.WithTimeout(r.ctx, step)
		err := r.Reader.WaitRows(ctx, target)
		cancel()
		if err != nil {
			r.t.Fatalf("%d rows did not arrive in time, %d did: %v", target, r.Reader.Distinct(), err)
		}
		fault()
	}
	if err := r.Load.WaitCommitted(r.ctx, rows); err != nil {
		r.t.Fatal(err)
	}
}
