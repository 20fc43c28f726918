package relay_test

import (
	"errors"
	"fmt"
	"regexp"
	"testing"
	"time"
)

// A table becomes partitioned under a relay and its writers, partitions go as
// they are published, and a slot that is lost then is recovered from those left.
func TestPartitionsUnderTheRelay(t *testing.T) {
	for _, major := range []int{14, 18} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, major)
			w.exec(`ALTER DATABASE postgres SET log_lock_waits = on`)
			cfg := w.config()
			cfg.Retention = 3 * time.Second
			sink := &memory{}
			r := w.start(cfg, sink)
			r.awaitPhase(w, "streaming")
			writers := startCounted(w, sink)
			writers.arrive()
			w.exec(`SELECT outbox.partition_events(every => '1 minute', ahead => 2)`)
			writers.arrive()
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
			writers.arrive()
			r.stop()
			w.exec(`SELECT pg_drop_replication_slot('outrider_test')`)
			w.start(cfg, sink)
			writers.arrive()
			writers.end()
			// Postgres names who waits for a lock longer than deadlock_timeout, 1 s.
			if waits := regexp.MustCompile(`still waiting for \w+ on relation.*`).FindAllString(w.pg.Log(), -1); waits != nil {
				t.Errorf("writers waited longer than 1 s: %q", waits)
			}
		})
	}
}
