package relay_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A table becomes partitioned under a relay and its writers, partitions go as
// they are published, and a slot that is lost then is recovered from those left.
func TestPartitionsUnderTheRelay(t *testing.T) {
	for _, major := range []int{14, 18} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, major)
			w.exec(`CREATE TABLE counters (key int PRIMARY KEY, n int NOT NULL); INSERT INTO counters SELECT k, 0 FROM generate_series(0, 4) k`)
			cfg := w.config()
			cfg.Retention = 3 * time.Second
			sink := &memory{}
			r := w.start(cfg, sink)
			r.awaitPhase(w, "streaming")
			writing, stop := context.WithCancel(t.Context())
			var writers sync.WaitGroup
			errs := make([]error, 4)
			for i := range errs {
				db := connect(t, w.pg.URL())
				writers.Go(func() { errs[i] = writeCounted(writing, db, uint64(i)) })
			}
			arrive := func() {
				t.Helper()
				n := len(sink.events())
				await(t, func() error {
					if got := len(sink.events()); got < n+300 {
						return fmt.Errorf("%d of 300 came", got-n)
					}
					return nil
				})
			}
			arrive()
			w.exec(`SELECT outbox.partition_events(every => '1 minute', ahead => 2)`)
			arrive()
			// What is over by now is in the first partition; its end is moved, not the clock.
			await(t, func() error {
				_, err := w.db.Exec(t.Context(), `BEGIN; SELECT outbox.lock_events(); ALTER TABLE outbox.events DETACH PARTITION outbox.events_first;
DO $$ DECLARE ends timestamptz := (SELECT max(created_at) + interval '1 microsecond' FROM outbox.events_first); BEGIN
 EXECUTE format('ALTER TABLE outbox.events ATTACH PARTITION outbox.events_first FOR VALUES FROM (MINVALUE) TO (%L)', ends); END $$; COMMIT`)
				if err != nil {
					_, _ = w.db.Exec(t.Context(), `ROLLBACK`)
				}
				return err
			})
			await(t, func() error {
				if left := w.text(`SELECT to_regclass('outbox.events_first')::text`); left != "" {
					return errors.New("the first partition is there")
				}
				return nil
			})
			arrive()
			r.stop()
			w.exec(`SELECT pg_drop_replication_slot('outrider_test')`)
			r = w.start(cfg, sink)
			arrive()
			stop()
			writers.Wait()
			if err := errors.Join(errs...); err != nil {
				t.Fatal(err)
			}
			want := map[string]int{}
			for key := range 5 {
				n := 0
				if _, err := fmt.Sscan(w.text(`SELECT n::text FROM counters WHERE key = $1`, key), &n); err != nil {
					t.Fatal(err)
				}
				want[fmt.Sprint("k", key)] = n
			}
			await(t, func() error {
				if diff := cmp.Diff(want, inKeyOrder(t, sink.events())); diff != "" {
					return fmt.Errorf("%s (%+v)", diff, r.Status())
				}
				return nil
			})
		})
	}
}
