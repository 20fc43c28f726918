package chaos_test

import (
	"bytes"
	"context"
	"errors"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/outrider-cdc/outrider/relay"
)

// brokenSink stands between a real relay and a real sink, and breaks one promise.
type brokenSink struct {
	relay.Sink
	harm   func(b *brokenSink, m *relay.Message)
	behind *kgo.Client // sends behind the real sink's back

	published int
	harmed    bool
	held      *relay.Message // kept back until the next one of its key
	seen      map[string]*kgo.Record

	mu     sync.Mutex
	hidden []*kgo.Record // sent by flush
}

var _ relay.Sink = (*brokenSink)(nil)

var errHeld = errors.New("kept back by a broken sink")

// Begin implements relay.Sink.
func (b *brokenSink) Begin(ctx context.Context, s relay.Source) (relay.Checkpoint, error) {
	b.release()
	return b.Sink.Begin(ctx, s)
}

// Publish implements relay.Sink.
func (b *brokenSink) Publish(m *relay.Message) {
	b.published++
	b.harm(b, m)
}

// Close implements relay.Sink.
func (b *brokenSink) Close() error {
	b.release()
	return b.Sink.Close()
}

func (b *brokenSink) release() {
	if b.held != nil {
		b.held.Settle(errHeld)
		b.held = nil
	}
}

// hide keeps a copy of m for flush.
func (b *brokenSink) hide(m *relay.Message) *kgo.Record {
	rec := recordOf(m)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.hidden = append(b.hidden, rec)
	return rec
}

// recordOf is a copy of m.
func recordOf(m *relay.Message) *kgo.Record {
	rec := &kgo.Record{Topic: m.Topic, Key: bytes.Clone(m.Key), Value: bytes.Clone(m.Value), Timestamp: m.CommittedAt}
	for key, value := range m.Headers() {
		rec.Headers = append(rec.Headers, kgo.RecordHeader{Key: key, Value: bytes.Clone(value)})
	}
	return rec
}

// flush sends what was hidden, in order.
func (b *brokenSink) flush(ctx context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.behind.ProduceSync(ctx, b.hidden...).FirstErr()
}

// victim reports whether m is the one to be harmed: one with a key in the middle of the run.
func (b *brokenSink) victim(m *relay.Message) bool {
	if b.harmed || b.published <= 300 || m.Key == nil {
		return false
	}
	b.harmed = true
	return true
}

func keepsPromises(b *brokenSink, m *relay.Message) { b.Sink.Publish(m) }

func drops(b *brokenSink, m *relay.Message) {
	if b.victim(m) {
		m.Settle(nil)
		return
	}
	b.Sink.Publish(m)
}

func swaps(b *brokenSink, m *relay.Message) {
	switch {
	case b.victim(m):
		b.held = m
	case b.held != nil && m.Key != nil && b.held.Topic == m.Topic && bytes.Equal(b.held.Key, m.Key):
		b.Sink.Publish(m)
		b.Sink.Publish(b.held)
		b.held = nil
	default:
		b.Sink.Publish(m)
	}
}

// repeats sends a row again at the end: a duplicate, and the last value of its
// key is an old one, as it is a row whose key has come once more.
func repeats(b *brokenSink, m *relay.Message) {
	if !b.harmed && b.published > 300 && m.Key != nil {
		key := m.Topic + " " + string(m.Key)
		if earlier, again := b.seen[key]; again {
			b.harmed, b.hidden = true, []*kgo.Record{earlier}
		} else {
			b.seen[key] = recordOf(m)
		}
	}
	b.Sink.Publish(m)
}

func corrupts(b *brokenSink, m *relay.Message) {
	if b.victim(m) {
		rec := b.hide(m)
		rec.Value = append(rec.Value, ' ')
		m.Settle(nil)
		return
	}
	b.Sink.Publish(m)
}

// confirmsEarly settles everything at once and sends it at the very end.
func confirmsEarly(b *brokenSink, m *relay.Message) {
	b.hide(m)
	m.Settle(nil)
}
