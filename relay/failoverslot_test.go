package relay_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/outrider-cdc/outrider/internal/harness/postgres"
	"github.com/outrider-cdc/outrider/internal/secret"
	"github.com/outrider-cdc/outrider/relay"
)

// copying makes a standby that copies failover slots.
func (w *world) copying(name string) (*postgres.Server, *pgx.Conn) {
	w.t.Helper()
	s := w.pg.StartStandby(w.t, name, "sync_replication_slots=on")
	return s, postgres.Connect(w.t, s.URL())
}

// awaitReady waits until a promotion of the standby would find the slot.
func awaitReady(t *testing.T, standby *pgx.Conn) time.Duration {
	t.Helper()
	start := time.Now()
	await(t, func() error {
		var ready bool
		err := standby.QueryRow(t.Context(), `SELECT count(*) > 0 FROM pg_replication_slots
WHERE slot_name = 'outrider_test' AND synced AND NOT temporary AND invalidation_reason IS NULL`).Scan(&ready)
		if err == nil && !ready {
			err = errors.New("the slot is not ready on the standby")
		}
		return err
	})
	return time.Since(start)
}

// On an idle server nothing moves a new slot but the relay; a little later it is
// as quiet as before.
func TestNewSlotIsSoonReadyOnStandbys(t *testing.T) {
	for _, major := range []int{17, 18} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, major)
			_, standby := w.copying("standby")
			r := w.start(w.config(), &memory{})
			r.awaitPhase(w, "streaming")
			t.Logf("ready after %s", awaitReady(t, standby))
		})
	}
}

// The server withholds rows from the stream until a standby has them. Only a
// warning says so; the cure is printed, and works.
func TestStandbyThatHoldsUpTheStream(t *testing.T) {
	for _, major := range []int{17, 18} {
		for name, slot := range map[string]string{"inactive": "SELECT pg_create_physical_replication_slot('gone')", "unknown": "SELECT 1"} {
			t.Run(fmt.Sprint(major, name), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, major)
				w.exec(slot)
				r := w.start(w.config(), &memory{})
				r.awaitPhase(w, "streaming")
				if name == "unknown" { // the server itself refuses a name that it does not know, unless it has it from elsewhere
					w.exec(`SELECT pg_create_physical_replication_slot('gone')`)
				}
				w.exec(`ALTER SYSTEM SET synchronized_standby_slots = 'gone'`)
				w.exec(`SELECT pg_reload_conf()`)
				await(t, func() error {
					if w.text(`SHOW synchronized_standby_slots`) != "gone" {
						return errors.New("not in force")
					}
					return nil
				})
				if name == "unknown" {
					w.exec(`SELECT pg_drop_replication_slot('gone')`)
				}
				w.write(1)
				var hint string
				await(t, func() error {
					for _, c := range r.Status().Conditions {
						if c.Reason == "standby_slots" {
							hint = c.Hint
							return nil
						}
					}
					return fmt.Errorf("conditions %+v", r.Status().Conditions)
				})
				if n := len(r.sink.values()); n > 0 {
					t.Fatalf("%d rows have arrived", n)
				}
				_, cure, _ := strings.Cut(hint, "come back: ")
				w.execScript(strings.ReplaceAll(cure, "; ", ";\n"))
				r.awaitValues("1")
				await(t, func() error {
					if c := r.Status().Conditions; len(c) > 0 {
						return fmt.Errorf("conditions %+v", c)
					}
					return nil
				})
			})
		}
	}
}

// awaitFirsts waits until exactly these values have arrived for the first time,
// in this order; a copied slot may lie behind, and repeats.
func (r *running) awaitFirsts(want ...string) {
	r.t.Helper()
	await(r.t, func() error {
		seen := map[string]bool{}
		var firsts []string
		for _, v := range r.sink.values() {
			if !seen[v] {
				seen[v] = true
				firsts = append(firsts, v)
			}
		}
		if got := strings.Join(firsts, " "); got != strings.Join(want, " ") {
			return fmt.Errorf("arrived: %s; want %s (status %+v)", got, strings.Join(want, " "), r.Status())
		}
		return nil
	})
}

// awaitReplay waits until that standby has replayed everything.
func (w *world) awaitReplay(name string) {
	w.t.Helper()
	await(w.t, func() error {
		if w.text(`SELECT (count(*) = 1 AND bool_and(replay_lsn >= pg_current_wal_insert_lsn()))::text FROM pg_stat_replication WHERE application_name = $1`, name) != "true" {
			return errors.New("the standby is behind")
		}
		return nil
	})
}

// There and back again: each time the relay goes on with the slot that the
// standby had copied, without recovering anything.
func TestFailoverAndFailback(t *testing.T) {
	for _, major := range []int{17, 18} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, major)
			cfg, sink, next := w.config(), &memory{}, 1
			want := []string{}
			write := func(n int) {
				for range n {
					w.write(next)
					want = append(want, fmt.Sprint(next))
					next++
				}
			}
			r := w.start(cfg, sink)
			r.awaitPhase(w, "streaming")
			for round := range 2 {
				name := fmt.Sprintf("standby%d", round)
				standby, db := w.copying(name)
				w.exec(`ALTER SYSTEM SET synchronized_standby_slots = '` + name + `'`)
				w.exec(`SELECT pg_reload_conf()`)
				write(20)
				r.awaitFirsts(want...)
				awaitReady(t, db)
				r.stop()
				write(20) // in the slot, and nowhere else on the way to the sink
				w.awaitReplay(name)
				generation := w.text(`SELECT generation::text FROM outbox.relays`)
				if err := w.pg.Crash(t.Context()); err != nil {
					t.Fatal(err)
				}
				if err := standby.Promote(t.Context()); err != nil {
					t.Fatal(err)
				}
				w.pg, w.db = standby, db
				cfg.DatabaseURL = secret.New(standby.URL())
				r = w.start(cfg, sink)
				r.awaitRole(relay.RoleLeader, "")
				write(20)
				r.awaitFirsts(want...)
				if after := w.text(`SELECT (generation - 1)::text FROM outbox.relays`); after != generation {
					t.Errorf("generation went from %s to %s + 1: more than the new timeline", generation, after)
				}
				for name, n := range gather(t, r.registry) {
					if strings.HasPrefix(name, "outrider_recoveries_total") && n > 0 {
						t.Errorf("%v times %s", n, name)
					}
				}
			}
		})
	}
}
