package relay_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/outrider-cdc/outrider/relay"
)

// stuckKey holds the messages of one key, as a partition without a leader does.
type stuckKey struct{ held, rest *memory }

func (s stuckKey) Begin(ctx context.Context, source relay.Source) (relay.Checkpoint, error) {
	if _, err := s.held.Begin(ctx, source); err != nil {
		return relay.Checkpoint{}, err
	}
	return s.rest.Begin(ctx, source)
}

func (s stuckKey) Publish(m *relay.Message) {
	if string(m.Key) == "stuck" {
		s.held.Publish(m)
		return
	}
	s.rest.Publish(m)
}

func (s stuckKey) Close() error { return nil }

// What flows past a row that is stuck is sent again after a crash: there is a
// limit to it, and reading goes on when the row has left.
func TestStopsReadingWhenTooFarAhead(t *testing.T) {
	w := newWorld(t, 18)
	cfg := w.config()
	cfg.MaxAhead = 100
	sink := stuckKey{&memory{}, &memory{}}
	sink.held.hold(true)
	r := w.startWith(cfg, sink, sink.rest)
	r.awaitRole(relay.RoleLeader, "")
	w.exec(`INSERT INTO outbox.events (topic, key, payload) VALUES ('t', 'stuck', '0')`)
	for from := 1; from < 1000; from += 10 {
		w.many(from, 10)
	}
	await(t, func() error {
		if n := len(sink.rest.values()); n < 100 {
			return fmt.Errorf("%d arrived", n)
		}
		return nil
	})
	w.many(1001, 10)
	await(t, func() error { // statuses go on, and nothing is read: the walsender sits in its send or waits
		if w.text(`SELECT (reply_time > clock_timestamp() - interval '1 s')::text FROM pg_stat_replication`) != "true" {
			return errors.New("no status")
		}
		return nil
	})
	if n := len(sink.rest.values()); n > 116 {
		t.Errorf("%d rows were delivered past the one that is stuck", n)
	}
	sink.held.hold(false)
	await(t, func() error {
		if n := len(sink.rest.values()); n != 1010 {
			return fmt.Errorf("%d arrived", n)
		}
		return nil
	})
}
