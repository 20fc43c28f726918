package relay_test

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/outrider-cdc/outrider/internal/harness/postgres"
	"github.com/outrider-cdc/outrider/relay"
)

// A consumer that looks for the row as soon as it has the event finds it, under
// writers that commit as fast as they can. Without the gate it does not always:
// the same run counts that, too, and with a synchronous standby, for which
// every commit waits, there must be some, or the test could not fail.
//
// TEST_GATE_EVENTS is how many events each run has.
func TestNoEventBeforeItsRow(t *testing.T) {
	events := 20_000
	if text := os.Getenv("TEST_GATE_EVENTS"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatalf("TEST_GATE_EVENTS=%q: %v", text, err)
		}
		events = n
	}
	for name, standby := range map[string]bool{"alone": false, "with a synchronous standby": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 18)
			if standby {
				w.pg.StartStandby(t, "phys")
				w.syncNames("phys")
			}
			if missed := w.race(relay.GateVisible, events); missed > 0 {
				t.Errorf("%d of %d events came before their rows, with the gate", missed, events)
			}
			if missed := w.race(relay.GateNone, events/4); missed == 0 && standby {
				t.Error("without the gate, too, every event came after its row: the test shows nothing")
			}
		})
	}
}

const (
	racers   = 4
	checkers = 2
)

// race writes events from several connections through a relay, and returns how
// many were on their way to a consumer before their rows could be read.
func (w *world) race(gate string, events int) (missed int64) {
	w.t.Helper()
	cfg := w.config()
	cfg.Gate = gate
	sink := &checking{memory: &memory{}, arrived: make(chan string, events)}
	var looking sync.WaitGroup
	for range checkers {
		db := postgres.Connect(w.t, w.pg.URL())
		looking.Go(func() { sink.check(w.t, db) })
	}
	r := w.startWith(cfg, sink, sink.memory)
	r.awaitRole(relay.RoleLeader, "")
	began := time.Now()
	var writing sync.WaitGroup
	for i := range racers {
		db := postgres.Connect(w.t, w.pg.URL())
		writing.Go(func() {
			for n := i; n < events; n += racers {
				if _, err := db.Exec(w.t.Context(), `INSERT INTO outbox.events (topic, key, payload) VALUES ('t', 'k', '1')`); err != nil {
					w.t.Errorf("write: %v", err)
					return
				}
			}
		})
	}
	writing.Wait()
	await(w.t, func() error {
		if n := sink.checked.Load(); n < int64(events) {
			return fmt.Errorf("%d of %d events, status %+v", n, events, r.Status())
		}
		return nil
	})
	took := time.Since(began)
	r.stop()
	close(sink.arrived)
	looking.Wait()
	if sink.checked.Load() != int64(events) {
		w.t.Errorf("%d events, want %d", sink.checked.Load(), events)
	}
	w.t.Logf("gate %s: %d of %d events came before their rows, %.0f events/s", gate, sink.missed.Load(), events, float64(events)/took.Seconds())
	return sink.missed.Load()
}

// checking is a sink whose consumers look for each row in the table at once.
type checking struct {
	*memory
	arrived         chan string
	checked, missed atomic.Int64
}

func (c *checking) Publish(m *relay.Message) {
	c.arrived <- string(m.ID) // it has room for all
	m.Settle(nil)
}

func (c *checking) check(t *testing.T, db *pgx.Conn) {
	for id := range c.arrived {
		var there bool
		if err := db.QueryRow(context.Background(), `SELECT EXISTS (SELECT FROM outbox.events WHERE id = $1)`, id).Scan(&there); err != nil {
			t.Errorf("look for a row: %v", err)
			return
		}
		if !there {
			c.missed.Add(1)
		}
		c.checked.Add(1)
	}
}
