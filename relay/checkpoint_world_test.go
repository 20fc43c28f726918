package relay_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/outrider-cdc/outrider/relay"
)

// broker is Kafka as far as exactly-once needs it: committed records, the
// checkpoint that was committed with them, and who may still commit. It
// outlives the sinks that write to it.
type broker struct {
	mu         sync.Mutex
	owner      *transactions
	got        []event
	checkpoint relay.Checkpoint
	begun      []relay.Source
}

// transactions is a sink with checkpoints. Each message is a transaction of its
// own, unless the sink holds: then commit decides.
type transactions struct {
	broker *broker
	holds  bool
	held   []*relay.Message
	source relay.Source
}

var _ relay.Transactional = (*transactions)(nil)

// sink is a new process' client.
func (b *broker) sink(holds bool) *transactions { return &transactions{broker: b, holds: holds} }

func (x *transactions) Checkpointed() bool { return true }

func (x *transactions) Checkpoint(context.Context, relay.Source) (relay.Checkpoint, error) {
	x.broker.mu.Lock()
	defer x.broker.mu.Unlock()
	return x.broker.checkpoint, nil
}

func (x *transactions) Begin(_ context.Context, source relay.Source) (relay.Checkpoint, error) {
	b := x.broker
	b.mu.Lock()
	defer b.mu.Unlock()
	b.owner, x.source = x, source
	b.begun = append(b.begun, source)
	x.abort()
	return b.checkpoint, nil
}

func (x *transactions) abort() {
	for _, m := range x.held {
		m.Settle(errors.New("aborted"))
	}
	x.held = nil
}

func (x *transactions) Publish(m *relay.Message) {
	x.broker.mu.Lock()
	defer x.broker.mu.Unlock()
	switch {
	case x.broker.owner != x:
		m.Settle(relay.ErrFenced)
	case x.holds:
		x.held = append(x.held, m)
	default:
		x.record(m)
		m.Settle(nil)
	}
}

// Close is the end of a process, which settles nothing any more.
func (x *transactions) Close() error { return nil }

// record commits m; the caller holds the lock.
func (x *transactions) record(m *relay.Message) {
	var h []string
	for k, v := range m.Headers() {
		h = append(h, k+"="+string(v))
	}
	s := x.source
	x.broker.got = append(x.broker.got, event{m.Topic, string(m.Key), string(m.Value), strings.Join(h, " ")})
	x.broker.checkpoint = relay.Checkpoint{
		Generation: s.Generation, Epoch: s.Epoch, WriteSeq: s.WriteSeq(), Phase: relay.CheckpointStreaming, Position: m.Position, Cursor: m.Cursor,
		LastID: string(m.ID), Options: s.Options, History: s.History, SystemID: s.SystemID, Timeline: s.Timeline,
	}
	if m.Cursor > 0 {
		x.broker.checkpoint.Phase = relay.CheckpointBacklog
	}
}

// commitUnanswered commits the first n messages that are held, and the answer
// is lost: the relay never hears of it, as when it dies at that moment.
func (x *transactions) commitUnanswered(n int) {
	x.broker.mu.Lock()
	defer x.broker.mu.Unlock()
	for _, m := range x.held[:n] {
		x.record(m)
	}
}

// release settles everything with an error, and takes nothing more, so that the relay can end.
func (x *transactions) release() {
	x.broker.mu.Lock()
	defer x.broker.mu.Unlock()
	if x.broker.owner == x {
		x.broker.owner = nil
	}
	x.abort()
}

func (x *transactions) holding() int {
	x.broker.mu.Lock()
	defer x.broker.mu.Unlock()
	return len(x.held)
}

func (b *broker) values() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var v []string
	for _, e := range b.got {
		v = append(v, e.value)
	}
	return v
}

// change is what happens to the topic of checkpoints behind the relay's back.
func (b *broker) change(f func(*relay.Checkpoint)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f(&b.checkpoint)
}

func (b *broker) stored() relay.Checkpoint {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.checkpoint
}

// generations of the records, in order, each once.
func (b *broker) generations() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []string
	for _, e := range b.got {
		source := e.header("outrider-source")
		all = append(all, source[strings.LastIndexByte(source, '.')+1:])
	}
	return slices.Compact(all)
}

// awaitExactly waits until these values are committed, and nothing else.
func (b *broker) awaitExactly(t *testing.T, want ...string) {
	t.Helper()
	await(t, func() error {
		if got := b.values(); !slices.Equal(got, want) {
			return fmt.Errorf("committed: %s; want %s", strings.Join(got, " "), strings.Join(want, " "))
		}
		return nil
	})
}

// exact is a config of exactly-once.
func (w *world) exact() relay.Config {
	cfg := w.config()
	cfg.Delivery = relay.ExactlyOnce
	return cfg
}

// startExact runs a relay over x; "" is exactly-once.
func (w *world) startExact(cfg relay.Config, x *transactions) *running {
	w.t.Helper()
	return w.startWith(cfg, x, &memory{})
}

// crash commits the first n messages that x holds, without an answer, and ends
// the relay. Everything that it learned since is lost.
func (r *running) crash(x *transactions, n int) {
	r.t.Helper()
	x.commitUnanswered(n)
	x.release()
	r.stop()
}

// inOne writes values in one transaction.
func (w *world) inOne(from, to int) (values []string) {
	w.t.Helper()
	w.exec(`INSERT INTO outbox.events (topic, key, payload) SELECT 't', 'k', to_json(n) FROM generate_series($1::int, $2::int) n ORDER BY n`, from, to)
	for n := from; n <= to; n++ {
		values = append(values, strconv.Itoa(n))
	}
	return values
}

func (w *world) generation() string {
	w.t.Helper()
	return w.text(`SELECT generation::text FROM outbox.relays`)
}

// answer commits the first n messages that are held, and settles them.
func (x *transactions) answer(n int) {
	x.broker.mu.Lock()
	defer x.broker.mu.Unlock()
	for _, m := range x.held[:n] {
		x.record(m)
		m.Settle(nil)
	}
	x.held = slices.Delete(x.held, 0, n)
}

// has returns an error unless the query answers true.
func (w *world) has(sql string) error {
	if got := w.text(`SELECT coalesce((` + sql + `)::text, 'none')`); got != "true" {
		return fmt.Errorf("%s: %s", sql, got)
	}
	return nil
}
