package relay_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/outrider-cdc/outrider/relay"
)

// halted waits for that halt and returns what its hint says to set.
func (r *running) halted(reason string) (token string) {
	r.t.Helper()
	s := r.awaitRole(relay.RoleHalted, reason)
	found := regexp.MustCompile(`OUTRIDER_ACCEPT_GAP=(\w+)`).FindStringSubmatch(s.Hint)
	if found == nil {
		r.t.Fatalf("no answer is named: %q", s.Hint)
	}
	return found[1]
}

// Rows of a table that keeps none are gone with the slot: somebody has to say
// so, about this loss and no other.
func TestLostSlotOfATableThatKeepsNoRows(t *testing.T) {
	for _, major := range []int{14, 18} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, major)
			w.exec(`UPDATE outbox.settings SET value = 'self-delete' WHERE name = 'mode'`)
			w.exec(`CREATE FUNCTION vanish() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN DELETE FROM outbox.events WHERE seq = NEW.seq; RETURN NULL; END'`)
			w.exec(`CREATE TRIGGER vanish AFTER INSERT ON outbox.events FOR EACH ROW EXECUTE FUNCTION vanish()`)
			cfg := w.config()
			r := w.start(cfg, &memory{})
			r.awaitRole(relay.RoleLeader, "")
			w.write(1)
			r.awaitValues("1")
			for round, gone := range []int{2, 12} {
				r.stop()
				w.write(gone)
				w.exec(`SELECT pg_drop_replication_slot('outrider_test')`)
				old := cfg.AcceptGap
				r = w.start(cfg, r.sink)
				token := r.halted("slot_missing")
				if token == old {
					t.Fatalf("round %d: the answer to the last loss is the answer to this one", round)
				}
				r.stop()
				cfg.AcceptGap = token
				r = w.start(cfg, r.sink)
				r.awaitRole(relay.RoleLeader, "")
				r.awaitPhase(w, "streaming")
				w.write(gone + 1)
				r.awaitValues([]string{"1 3", "1 3 13"}[round])
			}
		})
	}
}

// A slot that another tool has made is taken over only when somebody says how.
func TestAdoptSlot(t *testing.T) {
	for _, c := range []struct{ how, want string }{
		{"stream", "2 3"},     // 1 was committed before the slot: the other tool has published it
		{"backfill", "1 2 3"}, // everything that the table holds
	} {
		for _, major := range []int{14, 18} {
			t.Run(fmt.Sprint(c.how, major), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, major)
				w.write(1)
				w.exec(`SELECT pg_create_logical_replication_slot('outrider_test', 'pgoutput')`)
				w.write(2)
				cfg := w.config()
				r := w.start(cfg, &memory{})
				s := r.awaitRole(relay.RoleHalted, "slot_without_row")
				if !strings.Contains(s.Hint, "OUTRIDER_ADOPT_SLOT="+c.how) {
					t.Errorf("the hint does not name %s: %q", c.how, s.Hint)
				}
				r.stop()
				cfg.AdoptSlot = c.how
				r = w.start(cfg, r.sink)
				r.awaitRole(relay.RoleLeader, "")
				r.awaitPhase(w, "streaming")
				w.write(3)
				r.awaitValues(c.want)
				r.awaitPublished(w)
				r.stop()
				w.exec(`SELECT pg_drop_replication_slot('outrider_test')`)
				r = w.start(cfg, r.sink) // the answer is no answer to another question
				w.write(4)
				r.awaitValues(c.want, "4")
			})
		}
	}
}

// partitioned makes a table of ours by hand, with a partition of payloads up to
// 100 and one of those above.
const partitioned = `CREATE TABLE public.orders (LIKE outbox.events INCLUDING DEFAULTS, part int NOT NULL) PARTITION BY RANGE (part);
CREATE TABLE public.low PARTITION OF public.orders FOR VALUES FROM (0) TO (100);
CREATE TABLE public.high PARTITION OF public.orders DEFAULT;
CREATE PUBLICATION orders FOR TABLE public.orders WITH (publish = 'insert', publish_via_partition_root = true)`

func (w *world) part(ns ...int) {
	w.t.Helper()
	for _, n := range ns {
		w.exec(`INSERT INTO public.orders (seq, tx, part, topic, key, payload) VALUES ($1::int, pg_current_xact_id(), $1::int, 't', 'k', to_json($1::int))`, n)
	}
}

// A partition goes while rows of it are still in the slot, and only there.
func TestPartitionGoes(t *testing.T) {
	for name, sql := range map[string]string{
		"detached": `ALTER TABLE public.orders DETACH PARTITION public.low`,
		"dropped":  `DROP TABLE public.low`,
	} {
		for _, major := range []int{14, 18} {
			t.Run(fmt.Sprint(name, major), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, major)
				w.execScript(partitioned)
				cfg := w.config()
				cfg.Table, cfg.Publication, cfg.TableKeepsRows = "public.orders", "orders", true
				r := w.start(cfg, &memory{})
				r.awaitRole(relay.RoleLeader, "")
				w.part(1, 101)
				r.awaitValues("1", "101")
				r.stop()
				w.part(2, 102)
				w.exec(sql)
				w.part(103)
				r = w.start(cfg, r.sink)
				r.awaitValues("1", "101", "2", "102", "103")
				w.part(104) // and under a living relay
				w.exec(`DROP TABLE public.high`)
				r.awaitValues("1", "101", "2", "102", "103", "104")
			})
		}
	}
}
