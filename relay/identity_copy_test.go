package relay_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/outrider-cdc/outrider/internal/harness/postgres"
	"github.com/outrider-cdc/outrider/relay"
)

// header is a header of an event that has arrived.
func (e event) header(name string) string {
	for field := range strings.FieldsSeq(e.headers) {
		if value, is := strings.CutPrefix(field, name+"="); is {
			return value
		}
	}
	return ""
}

// A clone that is started beside production, with a relay of the same
// configuration. Nothing in it says that it is a copy: its relay leads, and
// publishes what is written there. Production's relay and row notice nothing.
func TestCloneBesideProduction(t *testing.T) {
	for _, major := range []int{15, 18} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, major)
			r := w.start(w.config(), &memory{})
			r.awaitPhase(w, "streaming")
			w.write(1)
			r.awaitValues("1")
			r.awaitPublished(w)
			epoch := w.text(`SELECT epoch::text FROM outbox.relays`)
			clone := &world{t: t, pg: w.clone()}
			clone.arrive(clone.pg)
			second := clone.start(clone.config(), &memory{})
			second.awaitPhase(clone, "streaming")
			clone.write(12)
			w.write(2)
			await(t, func() error {
				// The copy's slot may be behind, and bring row 1 again.
				got := slices.DeleteFunc(second.sink.values(), func(v string) bool { return v == "1" })
				if !slices.Equal(got, []string{"12"}) {
					return fmt.Errorf("arrived: %v; status %+v", got, second.Status())
				}
				return nil
			})
			r.awaitValues("1", "2")
			if now := w.text(`SELECT epoch::text FROM outbox.relays`); now != epoch {
				t.Errorf("production's row went from epoch %s to %s", epoch, now)
			}
		})
	}
}

// A database that was set back repeats its positions. By the hint to the
// letter, and a restart, they stand under a source of their own, so that no
// consumer that compares positions takes a new row for an old one.
func TestPositionsOfADatabaseThatWasSetBack(t *testing.T) {
	for _, major := range []int{15, 18} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, major)
			r := w.start(w.config(), &memory{})
			r.awaitPhase(w, "streaming")
			w.write(1)
			r.awaitValues("1")
			r.awaitPublished(w)
			r.stop()
			clone := w.clone()
			cfg := w.config()
			cfg.DatabaseURL = either(w.pg, clone)
			r = w.start(cfg, r.sink)
			r.awaitRole(relay.RoleLeader, "")
			for from := 2; from < 600; from += 100 { // positions run far ahead of the copy
				w.many(from, 100)
			}
			r.awaitValues(upTo(1, 601)...)
			r.awaitPublished(w)
			w.goTo(clone)
			s := r.awaitRole(relay.RoleHalted, "database_rewound")
			_, onPurpose, _ := strings.Cut(s.Hint, "\nor: ")
			w.follow(onPurpose, &cfg)
			r.stop() // a restart, as the hint says
			r = w.start(cfg, r.sink)
			r.awaitRole(relay.RoleLeader, "")
			w.many(1001, 100)
			r.awaitFirsts(append(upTo(1, 601), upTo(1001, 100)...)...)
			highest := map[string]string{} // by source
			for _, e := range r.sink.events() {
				source, position := e.header(relay.HeaderSource), e.header(relay.HeaderPosition)
				if source == "" || position == "" {
					t.Fatalf("headers of %s: %s", e.value, e.headers)
				}
				if len(e.value) == len("1001") && position <= highest[source] {
					t.Fatalf("row %s was written after the database was set back, and stands at %s of %s, where %s was before", e.value, position, source, highest[source])
				}
				highest[source] = max(highest[source], position)
			}
		})
	}
}

// A standby that is behind and has no slot is promoted: what only the old
// primary had is on Kafka and stays there; what the new one commits under the
// transaction ids of those rows all comes.
func TestPhantoms(t *testing.T) {
	for _, major := range []int{14, 18} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, major)
			standby := w.pg.StartStandby(t, "phys")
			cfg := w.config()
			cfg.DatabaseURL = either(w.pg, standby)
			r := w.start(cfg, &memory{})
			r.awaitPhase(w, "streaming")
			w.write(1)
			r.awaitValues("1")
			r.awaitPublished(w)
			w.awaitReplay("phys")
			on := &world{t: t, pg: standby, db: postgres.Connect(t, standby.URL())}
			on.exec(`ALTER SYSTEM SET primary_conninfo = ''`)
			on.exec(`SELECT pg_reload_conf()`)
			await(t, func() error {
				if on.text(`SELECT count(*)::text FROM pg_stat_wal_receiver`) != "0" {
					return fmt.Errorf("the standby still receives")
				}
				return nil
			})
			before := append([]string{"1"}, upTo(101, 50)...)
			for _, v := range before[1:] {
				w.exec(`INSERT INTO outbox.events (topic, key, payload) VALUES ('t', 'k', $1)`, v)
			}
			r.awaitValues(before...)
			r.awaitPublished(w)
			phantoms := w.text(`SELECT max(tx::text::bigint)::text FROM outbox.events`)
			old := w.pg
			if err := old.Crash(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := standby.Promote(t.Context()); err != nil {
				t.Fatal(err)
			}
			w.arrive(standby)
			w.write(2)
			if w.text(`SELECT (max(tx::text::bigint) <= $1::bigint)::text FROM outbox.events`, phantoms) != "true" {
				t.Fatalf("the new row is of a transaction after %s, where the phantoms end: the test shows nothing", phantoms)
			}
			r.awaitTimeline(2)
			w.write(3)
			r.awaitFirsts(append(slices.Clone(before), "2", "3")...)
			w.goTo(old) // it comes back with the phantoms, its slot, and a row of its own
			w.write(999)
			r.awaitRole(relay.RoleWaiting, "timeline")
			w.goTo(standby)
			r.awaitTimeline(2)
			w.write(4)
			r.awaitFirsts(append(slices.Clone(before), "2", "3", "4")...)
		})
	}
}

// A forged transaction id is corrected also where triggers are told to keep
// still, so that a recovery, which goes by it, finds the row.
func TestForgedTransactionIDIsRecovered(t *testing.T) {
	for _, major := range []int{14, 18} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, major)
			cfg := w.config()
			r := w.start(cfg, &memory{})
			r.awaitPhase(w, "streaming")
			w.write(1)
			r.awaitValues("1")
			r.awaitPublished(w)
			r.stop()
			for i, tx := range []string{"3", "9000000000000"} { // long published; of the far future
				w.exec(`SET session_replication_role = replica`)
				w.exec(`INSERT INTO outbox.events (topic, key, payload, tx) VALUES ('t', 'k', $1, $2::text::xid8)`, fmt.Sprint(i+2), tx)
				w.exec(`RESET session_replication_role`)
			}
			if n := w.text(`SELECT count(*)::text FROM outbox.events WHERE tx::text::bigint % (1::bigint << 32) <> xmin::text::bigint`); n != "0" {
				t.Errorf("%s rows have a transaction id that is not their writer's", n)
			}
			w.execScript(`SELECT pg_drop_replication_slot('outrider_test')`)
			r = w.start(cfg, r.sink)
			r.awaitValues("1", "2", "3")
		})
	}
}
