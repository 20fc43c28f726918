package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

// The part retention asks what deleting old rows costs those who write new
// ones. Four writers commit one row after the other, as fast as they can, for
// as long as it takes: once beside a relay that keeps all rows, once beside one
// that deletes a fifth of -rows. The heap is fresh, or has turned over: its
// rows have been deleted and written again, so that neighbours in order of
// insertion lie anywhere.

const (
	heapFresh  = "fresh"
	heapTurned = "turned over"
	turns      = 3
)

// retentionResult is one heap.
type retentionResult struct {
	Heap        string  `json:"heap"`
	Rows        int     `json:"rows_deleted"`
	Seconds     float64 `json:"seconds"` // until the old rows were gone
	Keeping     beside  `json:"writers_beside_a_relay_that_keeps"`
	Deleting    beside  `json:"writers_beside_a_relay_that_deletes"`
	ShareOfRate float64 `json:"rate_deleting_to_keeping"`
}

// beside is what the writers reached.
type beside struct {
	Rate float64 `json:"commits_per_second"`
	latency
}

func (b *bench) retention(ctx context.Context) error {
	for _, heap := range []string{heapFresh, heapTurned} {
		r, err := b.retain(ctx, heap)
		if err != nil {
			return fmt.Errorf("retention, %s heap: %w", heap, err)
		}
		b.say("retention %-11s %d rows gone in %.1f s; writers %.0f/s p99 %.2f ms, without deleting %.0f/s p99 %.2f ms",
			heap, r.Rows, r.Seconds, r.Deleting.Rate, r.Deleting.P99, r.Keeping.Rate, r.Keeping.P99)
		b.results.Retention = append(b.results.Retention, r)
	}
	return nil
}

func (b *bench) retain(ctx context.Context, heap string) (r *retentionResult, err error) {
	ctx, cancel := context.WithTimeout(ctx, runLimit)
	defer cancel()
	rows := b.options.singleRows()
	if heap == heapTurned {
		if err := b.turnOver(ctx, rows); err != nil {
			return nil, err
		}
	}
	if _, err := b.db.load(ctx, partRetention, rows, min(rows, batchSize)); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.db.unload(context.WithoutCancel(ctx))) }()
	if _, err := b.db.Exec(ctx, `ANALYZE outbox.events`); err != nil {
		return nil, err
	}
	var last int64
	if err := b.db.QueryRow(ctx, `SELECT max(seq) FROM outbox.events`).Scan(&last); err != nil {
		return nil, err
	}
	r = &retentionResult{Heap: heap, Rows: rows}
	window := time.Duration(b.options.seconds) * time.Second
	if r.Keeping, err = b.besideRelay(ctx, "0", func(time.Duration) (bool, error) { return true, nil }, window); err != nil {
		return nil, err
	}
	var took time.Duration
	gone := func(elapsed time.Duration) (done bool, err error) {
		// Age alone must not be the limit: rows of the first run are deleted as well.
		err = b.db.QueryRow(ctx, `SELECT NOT EXISTS (SELECT FROM outbox.events WHERE seq <= $1)`, last).Scan(&done)
		took = elapsed
		return done, err
	}
	if r.Deleting, err = b.besideRelay(ctx, "1s", gone, 0); err != nil {
		return nil, err
	}
	r.Seconds, r.ShareOfRate = took.Seconds(), r.Deleting.Rate/r.Keeping.Rate
	return r, nil
}

// turnOver leaves a heap full of holes in random order: each time a random half
// of the rows goes, its space is made free, and new rows take it.
func (b *bench) turnOver(ctx context.Context, rows int) error {
	for range turns {
		for _, sql := range []string{
			fmt.Sprintf(`INSERT INTO outbox.events (topic, key, type, payload) SELECT %s FROM generate_series(1, %d) AS n`, selectRow, rows),
			`DELETE FROM outbox.events WHERE random() < 0.5`, `VACUUM outbox.events`,
		} {
			if _, err := b.db.Exec(ctx, sql); err != nil {
				return fmt.Errorf("turn the heap over: %w", err)
			}
		}
	}
	for _, sql := range []string{`DELETE FROM outbox.events WHERE random() < 0.999`, `VACUUM (TRUNCATE off) outbox.events`, `DELETE FROM outbox.events`} {
		if _, err := b.db.Exec(ctx, sql); err != nil {
			return fmt.Errorf("turn the heap over: %w", err)
		}
	}
	return nil
}

// besideRelay lets the writers commit while a relay runs, for at least so long
// and until done.
func (b *bench) besideRelay(ctx context.Context, retention string, done func(time.Duration) (bool, error), atLeast time.Duration) (w beside, err error) {
	slot := slotName(partRetention, "stdout")
	if err := b.db.makeSlot(ctx, slot); err != nil {
		return w, err
	}
	defer func() { err = errors.Join(err, b.db.leave(context.WithoutCancel(ctx), slot)) }()
	if err := b.db.enroll(ctx, slot); err != nil {
		return w, err
	}
	r, err := b.startRelay(relaySettings{binary: b.binary, slot: slot, sink: sinkStdout, extra: []string{"OUTRIDER_RETENTION=" + retention}})
	if err != nil {
		return w, err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	if _, err := b.db.walsender(ctx, slot, r.ended); err != nil {
		return w, err
	}
	var over atomic.Bool
	var s [writers]samples
	start := time.Now()
	g, writing := errgroup.WithContext(ctx)
	for i := range writers {
		g.Go(func() error { return b.hammer(writing, &s[i], i, &over) })
	}
	watching := poll(writing, 100*time.Millisecond, func() (bool, error) {
		elapsed := time.Since(start)
		if err := r.ended(); err != nil {
			return false, err
		}
		ok, err := done(elapsed)
		return ok && elapsed >= atLeast, err
	})
	over.Store(true)
	if err := errors.Join(g.Wait(), watching); err != nil {
		return w, err
	}
	var all samples
	for i := range s {
		all.all = append(all.all, s[i].all...)
	}
	if l := all.latency(); l != nil {
		w.latency = *l
	}
	w.Rate = float64(w.Count) / time.Since(start).Seconds()
	return w, nil
}

// hammer commits one row after the other until over.
func (b *bench) hammer(ctx context.Context, s *samples, first int, over *atomic.Bool) error {
	conn, err := pgx.Connect(ctx, b.db.url())
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	for n := first; !over.Load(); n += writers {
		began := time.Now()
		if _, err := conn.Exec(ctx, `INSERT INTO outbox.events (topic, key, type, payload) SELECT `+selectRow+` FROM (SELECT $1::int AS n) AS one`, n); err != nil {
			return fmt.Errorf("write: %w", err)
		}
		s.add(time.Since(began))
	}
	return nil
}

func (r *results) retentionTable() string {
	rows := [][]string{{"heap", "rows deleted", "seconds", "commits/s", "p99 ms", "without: commits/s", "p99 ms", "÷ without"}}
	for _, x := range r.Retention {
		rows = append(rows, []string{
			x.Heap, fmt.Sprint(x.Rows), fmt.Sprintf("%.1f", x.Seconds), fmt.Sprintf("%.0f", x.Deleting.Rate), fmt.Sprintf("%.2f", x.Deleting.P99),
			fmt.Sprintf("%.0f", x.Keeping.Rate), fmt.Sprintf("%.2f", x.Keeping.P99), fmt.Sprintf("%.2f", x.ShareOfRate),
		})
	}
	return markdown(rows, 1)
}
