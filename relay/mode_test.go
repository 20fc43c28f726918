package relay_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-cdc/outrider/relay"
)

func (w *world) setMode(name string) {
	w.t.Helper()
	w.exec(`SELECT outbox.set_mode($1)`, name)
}

// awaitContract waits until the relay that leads has that contract.
func (w *world) awaitContract(want string) {
	w.t.Helper()
	await(w.t, func() error {
		if got := w.text(`SELECT string_agg(contract::text, ' ') FROM outbox.relays`); got != want {
			return fmt.Errorf("contract %s", got)
		}
		return nil
	})
}

// Rows that stay, rows that are deleted at once and messages come in one commit
// order, also while the mode changes under the writers and sessions are cut.
func TestModesInOneCommitOrder(t *testing.T) {
	for _, major := range []int{14, 18} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, major)
			r := w.start(w.config(), &memory{})
			r.awaitPhase(w, "streaming")
			writers := startCounted(w, r.sink)
			writers.arrive() // so that each mode is used
			for _, step := range []struct{ mode, contract string }{{"self-delete", "1"}, {"stream", "2"}, {"append", "2"}, {"stream", "2"}, {"self-delete", "2"}, {"stream", "2"}} {
				w.setMode(step.mode)
				writers.arrive()
				w.awaitContract(step.contract)
				writers.arrive()
				w.exec(`SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active`)
				writers.arrive()
			}
			writers.end()
		})
	}
}

// The same event is the same on Kafka, whatever carries it; and nothing is stored.
func TestStreamedAsFromTheTable(t *testing.T) {
	for _, major := range []int{14, 16, 18} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, major)
			w.setMode("stream")
			r := w.start(w.config(), &memory{})
			r.awaitPhase(w, "streaming")
			w.exec(`SET outbox.traceparent = '00-1'`)
			const rows = ` VALUES ('00000000-0000-7000-8000-000000000001', 't', 'k', 'T', '{"b":1,  "a":1.10, "b":"ä"}', NULL, '{"z": null, "n": 1.10}'),
 ('00000000-0000-7000-8000-000000000002', 't', '', NULL, NULL, '\x00ff', NULL), ('00000000-0000-7000-8000-000000000003', 't', NULL, '', NULL, NULL, '{}'),
 ('00000000-0000-7000-8000-000000000004', 't', 'k', NULL, 'null', NULL, NULL), ('00000000-0000-7000-8000-000000000005', 't', 'k', NULL, NULL, '', NULL)`
			for _, into := range []string{"stream", "events"} {
				w.exec(`INSERT INTO outbox.` + into + ` (id, topic, key, type, payload, payload_bytes, headers)` + rows)
			}
			await(t, func() error {
				if n := len(r.sink.events()); n < 10 {
					return fmt.Errorf("%d of 10", n)
				}
				return nil
			})
			got := r.sink.events()
			for i := range got { // what tells where an event was
				got[i].headers = strings.Join(strings.Split(got[i].headers, " ")[:strings.Count(got[i].headers, " ")-2], " ")
			}
			if diff := cmp.Diff(got[5:], got[:5], cmp.AllowUnexported(event{})); diff != "" {
				t.Errorf("-table +stream:\n%s", diff)
			}
			if n := w.text(`SELECT (SELECT count(*) FROM outbox.events) || ' ' || (SELECT count(*) FROM outbox.stream)`); n != "0 0" {
				t.Errorf("%s rows are stored", n)
			}
		})
	}
}

// Only what the view emits is an event; what else stands under its prefix is
// refused as a row is, and lost in no case.
func TestForeignMessages(t *testing.T) {
	w := newWorld(t, 18)
	w.setMode("stream")
	cfg := w.config()
	cfg.Poison = relay.PoisonSkip
	r := w.start(cfg, &memory{})
	r.awaitPhase(w, "streaming")
	w.exec(`SELECT pg_logical_emit_message(true, 'outrider.other', 'x'), pg_logical_emit_message(true, 'outrider', 'x'), pg_logical_emit_message(false, 'outrider.outbox', 'x')`)
	for _, content := range []string{``, `x`, `\x01`, `\x010007`, `\x0100016e`, `\x0100076e6e6e6e6e6e6e`, `\x010000`, `\x01ffff`} {
		w.exec(`SELECT pg_logical_emit_message(true, 'outrider.outbox', $1::text::bytea)`, content)
	}
	w.exec(`INSERT INTO outbox.stream (topic, payload) VALUES ('t', '7')`)
	r.awaitValues("7")
	if n := w.text(`SELECT count(*)::text FROM outbox.dead WHERE state = 'skipped' AND reason LIKE '%logical message%'`); n != "8" {
		t.Errorf("%s of 8 are kept", n)
	}
	if got := w.text(`SELECT string_agg(encode(value, 'hex'), ' ' ORDER BY position) FROM outbox.dead`); got != " 78 01 010007 0100016e 0100076e6e6e6e6e6e6e 010000 01ffff" {
		t.Errorf("kept: %q", got)
	}
}

// As long as a progress row is of a relay that does not ask for messages, events
// go through the table. A relay that does not know them does not follow.
func TestStreamWithADeafRelay(t *testing.T) {
	w := newWorld(t, 18)
	r := w.start(w.config(), &memory{})
	r.awaitPhase(w, "streaming")
	r.stop()
	w.setMode("stream")
	inserted := func() int {
		n := 0
		_, err := fmt.Sscan(w.text(`SELECT pg_stat_get_xact_tuples_inserted('outbox.events'::regclass)::text`), &n)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := inserted()
	tx, err := w.db.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w.exec(`INSERT INTO outbox.stream (topic, payload) VALUES ('t', '1')`)
	if n := inserted() - before; n != 1 {
		t.Errorf("%d rows went through the table", n)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	r = w.start(w.config(), &memory{})
	r.awaitValues("1")
	w.awaitContract("2")
	if tx, err = w.db.Begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	before = inserted()
	w.exec(`INSERT INTO outbox.stream (topic, payload) VALUES ('t', '2')`)
	if n := inserted() - before; n != 0 {
		t.Errorf("%d rows went through the table", n)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.awaitValues("1", "2")
}

// What was written before everything was kept is in no table: a slot that is
// lost then is a gap. After it, the table has all.
func TestSlotLostAfterAChangeOfMode(t *testing.T) {
	w := newWorld(t, 18)
	w.setMode("stream")
	sink := &memory{}
	r := w.start(w.config(), sink)
	r.awaitPhase(w, "streaming")
	sink.hold(true)
	w.exec(`SELECT outbox.publish('t', 'k', '1')`)
	w.setMode("append")
	w.exec(`SELECT outbox.publish('t', 'k', '2')`)
	await(t, func() error {
		if n := r.Status().InFlightRows; n != 2 {
			return fmt.Errorf("%d in flight", n)
		}
		return nil
	})
	r.stop()
	w.exec(`SELECT pg_drop_replication_slot('outrider_test')`)
	r = w.start(w.config(), &memory{})
	s := r.awaitRole(relay.RoleHalted, "slot_missing")
	if !strings.Contains(s.Error, "keeps no rows") {
		t.Errorf("error %s", s.Error)
	}
	r.stop()
	cfg := w.config()
	cfg.AcceptGap = strings.TrimSpace(strings.Split(s.Hint, "OUTRIDER_ACCEPT_GAP=")[1])
	r = w.start(cfg, &memory{})
	r.awaitPhase(w, "streaming")
	w.exec(`SELECT outbox.publish('t', 'k', '3')`)
	await(t, func() error {
		if got := r.sink.values(); len(got) == 0 || got[len(got)-1] != "3" {
			return fmt.Errorf("arrived: %v", got)
		}
		return nil
	})
	r.stop()
	w.exec(`SELECT outbox.publish('t', 'k', '4')`)
	w.exec(`SELECT pg_drop_replication_slot('outrider_test')`)
	r = w.start(w.config(), &memory{})
	await(t, func() error {
		if got := r.sink.values(); len(got) == 0 || got[len(got)-1] != "4" {
			return fmt.Errorf("arrived: %v (%+v)", got, r.Status())
		}
		return nil
	})
}

// Rows of a time when they were kept are deleted like any other.
func TestRetentionAfterAChangeOfMode(t *testing.T) {
	w := newWorld(t, 18)
	cfg := w.config()
	cfg.Retention = time.Second
	w.many(1, 100)
	w.setMode("self-delete")
	r := w.start(cfg, &memory{})
	r.awaitPhase(w, "streaming")
	w.write(101)
	await(t, func() error {
		if n := w.text(`SELECT count(*)::text FROM outbox.events`); n != "0" {
			return fmt.Errorf("%s rows left", n)
		}
		return nil
	})
}
