package relay_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/outrider-cdc/outrider/internal/harness/postgres"
	"github.com/outrider-cdc/outrider/relay"
)

func eachMajor(t *testing.T, f func(t *testing.T, major int)) {
	for _, major := range postgres.Majors() {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			t.Parallel()
			f(t, major)
		})
	}
}

func TestCommittedRowsArriveInCommitOrder(t *testing.T) {
	eachMajor(t, func(t *testing.T, major int) {
		w := newWorld(t, major)
		r := w.start(w.config(), &memory{})
		r.awaitRole(relay.RoleLeader, "")
		w.write(1, 2)
		w.exec(`BEGIN`)
		w.write(3)
		w.exec(`SAVEPOINT a`)
		w.write(90)
		w.exec(`ROLLBACK TO a`)
		w.write(4)
		w.exec(`COMMIT`)
		w.exec(`BEGIN`)
		w.write(91)
		w.exec(`ROLLBACK`)
		// The transaction that commits later comes later, although its row was written first.
		other := postgres.Connect(t, w.pg.URL())
		if _, err := other.Exec(t.Context(), `BEGIN; INSERT INTO outbox.events (topic, key, payload) VALUES ('t', 'k', '6')`); err != nil {
			t.Fatal(err)
		}
		w.write(5)
		if _, err := other.Exec(t.Context(), `COMMIT`); err != nil {
			t.Fatal(err)
		}
		w.write(7)
		r.awaitValues("1", "2", "3", "4", "5", "6", "7")
		r.stop()

		row := w.text(`SELECT confirmed_lsn::text FROM outbox.relays`)
		slot := w.text(`SELECT confirmed_flush_lsn::text FROM pg_replication_slots`)
		if row != slot {
			t.Errorf("after a clean stop the slot is at %s and the row says %s", slot, row)
		}
		if released := w.text(`SELECT released::text FROM outbox.relays`); released != "true" {
			t.Errorf("released is %s after a clean stop", released)
		}
		w.write(8)
		again := w.start(w.config(), &memory{})
		again.awaitValues("8")
	})
}

func TestWhatArrives(t *testing.T) {
	w := newWorld(t, 18)
	r := w.start(w.config(), &memory{})
	r.awaitRole(relay.RoleLeader, "")
	w.exec(`BEGIN`)
	w.exec(`SET LOCAL outbox.traceparent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'`)
	w.exec(`INSERT INTO outbox.events (id, topic, key, type, payload) VALUES ('01234567-89ab-cdef-0123-456789abcdef', 'orders', 'ä', 'OrderPlaced', '{"b":1,  "a":2, "b":3}')`)
	w.exec(`COMMIT`)
	w.exec(`INSERT INTO outbox.events (topic, payload_bytes, headers) VALUES ('orders', '\x00ff', '{"n": 1.10, "z": null}')`)
	w.exec(`INSERT INTO outbox.events (topic, key) VALUES ('orders', 'gone')`)
	await(t, func() error {
		if n := len(r.sink.events()); n != 3 {
			return fmt.Errorf("%d of 3 arrived", n)
		}
		return nil
	})
	got := r.sink.events()
	if e := got[0]; e.topic != "orders" || e.key != "ä" || e.value != `{"b":1,  "a":2, "b":3}` {
		t.Errorf("first event is %+v", e)
	}
	source := fmt.Sprintf("outrider-source=%s.1.outrider_test.1", w.text(`SELECT system_identifier::text FROM pg_control_system()`))
	for _, want := range []string{"id=01234567-89ab-cdef-0123-456789abcdef", "type=OrderPlaced", "traceparent=00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", source, "outrider-committed-at=20"} {
		if !strings.Contains(got[0].headers, want) {
			t.Errorf("headers %q lack %q", got[0].headers, want)
		}
	}
	if e := got[1]; e.value != "\x00\xff" || !strings.Contains(e.headers, "n=1.10 z= ") {
		t.Errorf("second event is %+v", e)
	}
	if e := got[2]; e.key != "gone" || e.value != "" {
		t.Errorf("tombstone is %+v", e)
	}
}
