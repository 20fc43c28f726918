package relay_test

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// roundsOfRetention is how often the table was looked through.
func (r *running) roundsOfRetention() float64 {
	return gather(r.t, r.registry)["outrider_retention_rounds_total"]
}

// Only what every relay has published is deleted, when it is old enough.
func TestRetention(t *testing.T) {
	for _, major := range []int{14, 18} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, major)
			cfg := w.config()
			cfg.Retention = 4 * time.Second
			w.exec(`INSERT INTO outbox.relays (slot, contract, system_id, timeline, phase, published)
SELECT 'other', 1, system_id, timeline, 'streaming', pg_current_snapshot() FROM (SELECT system_identifier::text AS system_id, 1 AS timeline FROM pg_control_system()) x`)
			w.many(1, 3000)
			r := w.start(cfg, &memory{})
			r.awaitPhase(w, "streaming")
			await(t, func() error { // the row of a relay without a slot is told, and holds everything
				for _, c := range r.Status().Conditions {
					if c.Reason == "retention_blocked" && strings.Contains(c.Hint, "outrider relays remove") {
						return nil
					}
				}
				return fmt.Errorf("conditions %+v", r.Status().Conditions)
			})
			await(t, func() error {
				if w.text(`SELECT bool_and(created_at < now() - interval '7 s')::text FROM outbox.events`) != "true" {
					return fmt.Errorf("not old yet")
				}
				return nil
			})
			if n := w.text(`SELECT count(*)::text FROM outbox.events`); n != "3000" {
				t.Fatalf("%s rows left, although another relay has not published them", n)
			}
			// A mark of another server sees other transactions, whatever their numbers.
			w.exec(`UPDATE outbox.relays SET system_id = '1' || system_id, published = pg_current_snapshot() WHERE slot = 'other'`)
			w.exec(`SELECT pg_create_physical_replication_slot('other')`)
			rounds := r.roundsOfRetention()
			await(t, func() error {
				if r.roundsOfRetention() < rounds+2 {
					return fmt.Errorf("no round since")
				}
				return nil
			})
			if n := w.text(`SELECT count(*)::text FROM outbox.events`); n != "3000" {
				t.Fatalf("%s rows left, although the other mark was taken on another server", n)
			}
			w.exec(`DELETE FROM outbox.relays WHERE slot = 'other'`)
			w.many(3001, 1)
			await(t, func() error {
				if n := w.text(`SELECT count(*)::text FROM outbox.events WHERE created_at < now() - interval '7 s'`); n != "0" {
					return fmt.Errorf("%s old rows left", n)
				}
				return nil
			})
			if n := len(r.sink.values()); n != 3001 {
				t.Errorf("%d rows arrived", n)
			}
		})
	}
}
