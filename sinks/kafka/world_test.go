package kafka_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/outrider-cdc/outrider/relay"
	"github.com/outrider-cdc/outrider/sinks/kafka"
	"github.com/outrider-cdc/outrider/sinks/sinktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 30 * time.Second

// fake starts a cluster in this process, with one broker unless opts say otherwise.
func fake(tb testing.TB, opts ...kfake.Opt) *kfake.Cluster {
	tb.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1)}, opts...)...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(c.Close)
	return c
}

func config(brokers ...string) kafka.Config {
	return kafka.Config{
		Brokers: brokers, Compression: "lz4", CreatePartitions: -1, CreateReplication: -1,
		TransactionTimeout: 15 * time.Second, // for busy machines
	}
}

// gate is the network between a sink and its brokers.
type gate struct {
	sent atomic.Int64 // bytes
	// loses decides about each request by its key (the protocol's number of its kind); nil: none is lost.
	loses  atomic.Pointer[func(key int16) loss]
	target atomic.Pointer[string] // where all connections lead; nil: where the sink says

	mu      sync.Mutex
	changed *sync.Cond
	stalled bool // nothing is read
}

// loss is what becomes of a request. Its connection ends with it.
type loss int

const (
	lossNone    loss = iota
	lossRequest      // never arrives
	lossAnswer       // the broker has done it
)

func newGate() *gate {
	g := &gate{}
	g.changed = sync.NewCond(&g.mu)
	return g
}

func (g *gate) stall(on bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.stalled = on
	g.changed.Broadcast()
}

func (g *gate) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if to := g.target.Load(); to != nil {
		address = *to
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &gatedConn{Conn: conn, gate: g}, nil
}

type gatedConn struct {
	net.Conn
	gate   *gate
	closed atomic.Bool
	lost   atomic.Bool // the next answer
}

// Write gets whole requests, or the first chunk of one.
func (c *gatedConn) Write(b []byte) (int, error) {
	if loses := c.gate.loses.Load(); loses != nil && len(b) > 6 {
		switch (*loses)(int16(binary.BigEndian.Uint16(b[4:]))) {
		case lossRequest:
			// A write that failed would be repeated at once: the broker has not seen it.
			return len(b), c.Close()
		case lossAnswer:
			c.lost.Store(true)
		case lossNone:
		}
	}
	n, err := c.Conn.Write(b)
	c.gate.sent.Add(int64(n))
	return n, err
}

func (c *gatedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.lost.Load() {
		_ = c.Close()
		return 0, net.ErrClosed
	}
	c.gate.mu.Lock()
	defer c.gate.mu.Unlock()
	for c.gate.stalled && !c.closed.Load() {
		c.gate.changed.Wait()
	}
	if c.gate.stalled {
		return 0, net.ErrClosed // what came during the stall is lost with the connection
	}
	return n, err
}

func (c *gatedConn) Close() error {
	c.closed.Store(true)
	err := c.Conn.Close()
	c.gate.mu.Lock() // else a reader could look before the close and sleep after the call
	defer c.gate.mu.Unlock()
	c.gate.changed.Broadcast()
	return err
}

// world is a sink and what the tests see of it.
type world struct {
	tb   testing.TB
	sink *kafka.Sink
	gate *gate
	cfg  kafka.Config

	exactlyOnce bool

	mu         sync.Mutex
	conditions []relay.Condition
	reported   chan struct{} // made anew by each report
	next       int
}

func newWorld(tb testing.TB, cfg kafka.Config) *world {
	tb.Helper()
	return newWorldWith(tb, cfg, kafka.Options{})
}

func newWorldWith(tb testing.TB, cfg kafka.Config, opts kafka.Options) *world {
	tb.Helper()
	w := &world{tb: tb, gate: newGate(), cfg: cfg, reported: make(chan struct{}), exactlyOnce: opts.ExactlyOnce}
	opts.ClientID, opts.Dial = "outrider.test", w.gate.dial
	opts.Logger = slog.New(slog.NewTextHandler(tb.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	sink, err := kafka.New(cfg, opts)
	if err != nil {
		tb.Fatal(err)
	}
	w.sink = sink
	tb.Cleanup(func() {
		if err := sink.Close(); err != nil {
			tb.Error(err)
		}
	})
	return w
}

func (w *world) source() relay.Source {
	return relay.Source{SystemID: "1", Timeline: 1, Slot: "outrider_test", Generation: 1, Report: w.report}
}

func (w *world) report(c relay.Condition) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conditions = append(w.conditions, c)
	close(w.reported)
	w.reported = make(chan struct{})
}

// condition waits for a report that fits, among those of the past too, and forgets it and those before it.
func (w *world) condition(reason, topic string, holds bool) relay.Condition {
	w.tb.Helper()
	deadline := time.After(patience)
	for {
		w.mu.Lock()
		for i, c := range w.conditions {
			if c.Reason == reason && c.Topic == topic && c.Since.IsZero() != holds {
				w.conditions = w.conditions[i+1:]
				w.mu.Unlock()
				return c
			}
		}
		reported := w.reported
		w.mu.Unlock()
		select {
		case <-reported:
		case <-deadline:
			w.tb.Fatalf("condition %s of topic %q (%v) was not reported", reason, topic, holds)
		}
	}
}

func (w *world) begin() {
	w.tb.Helper()
	w.beginAs(w.source())
}

func (w *world) beginAs(source relay.Source) {
	w.tb.Helper()
	ctx, cancel := context.WithTimeout(w.tb.Context(), patience)
	defer cancel()
	if _, err := w.sink.Begin(ctx, source); err != nil {
		w.tb.Fatalf("begin: %v", err)
	}
}

// sent is one message under way.
type sent struct {
	tb      testing.TB
	settled chan struct{} // closed when it is
	err     error
}

// wait returns what the message settled with.
func (s *sent) wait() error {
	s.tb.Helper()
	select {
	case <-s.settled:
		return s.err
	case <-time.After(patience):
		s.tb.Fatal("a message was not settled")
		return nil
	}
}

// open reports whether the message is not settled now.
func (s *sent) open() bool {
	select {
	case <-s.settled:
		return false
	default:
		return true
	}
}

func (w *world) publish(topic, key, value string) *sent {
	m := &relay.Message{Topic: topic, Value: []byte(value), CommittedAt: time.Now()}
	if key != "" {
		m.Key = []byte(key)
	}
	return w.publishMessage(m)
}

func (w *world) publishMessage(m *relay.Message) *sent {
	w.next++
	m.ID = []byte("row-" + strconv.Itoa(w.next))
	if m.Position == (relay.Position{}) {
		m.Position.LSN = relay.LSN(w.next)
	}
	s := &sent{tb: w.tb, settled: make(chan struct{})}
	w.sink.Publish(relay.NewMessage(m, nil, func(err error) {
		s.err = err
		close(s.settled)
	}))
	return s
}

// delivered waits for all and fails if one did not settle nil.
func (w *world) delivered(all ...*sent) {
	w.tb.Helper()
	for i, s := range all {
		if err := s.wait(); err != nil {
			w.tb.Fatalf("message %d of %d: %v", i+1, len(all), err)
		}
	}
}

// numbered publishes n messages of one key, with the values 0, 1, 2 …
func (w *world) numbered(topic string, from, n int) []*sent {
	all := make([]*sent, 0, n)
	for i := range n {
		all = append(all, w.publish(topic, "k", strconv.Itoa(from+i)))
	}
	return all
}

// landed reads what is committed of whole topics, past the gate.
func landed(ctx context.Context, brokers []string, topics ...string) ([]*kgo.Record, error) {
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ConsumeTopics(topics...), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(100*time.Millisecond))
	if err != nil {
		return nil, err
	}
	defer client.Close()
	ends, err := kadm.NewClient(client).ListCommittedOffsets(ctx, topics...)
	if err != nil {
		return nil, err
	}
	behind := map[string]int64{} // partitions that are not read to the end
	ends.Each(func(o kadm.ListedOffset) {
		if o.Offset > 0 {
			behind[fmt.Sprint(o.Topic, o.Partition)] = o.Offset
		}
	})
	var records []*kgo.Record
	for len(behind) > 0 {
		fetches := client.PollFetches(ctx)
		if err := errors.Join(fetches.Err(), ctx.Err()); err != nil {
			return nil, fmt.Errorf("%d partitions are not read to the end: %w", len(behind), err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if partition := fmt.Sprint(r.Topic, r.Partition); r.Offset == behind[partition]-1 {
				delete(behind, partition)
			}
			if !r.Attrs.IsControl() {
				records = append(records, r)
			}
		})
	}
	return records, nil
}

// landed is what readers of committed records see of the topics.
func (w *world) landed(ctx context.Context, topics ...string) ([]*kgo.Record, error) {
	if w.exactlyOnce {
		// A commit is certain before all its partitions show it.
		for _, id := range []string{transactionalID, suiteTransactionalID} {
			if _, err := describe(ctx, w.cfg.Brokers, id); err != nil {
				return nil, err
			}
		}
	}
	return landed(ctx, w.cfg.Brokers, topics...)
}

func (w *world) values(topic string) []string {
	w.tb.Helper()
	ctx, cancel := context.WithTimeout(w.tb.Context(), patience)
	defer cancel()
	records, err := w.landed(ctx, topic)
	if err != nil {
		w.tb.Fatal(err)
	}
	var values []string
	for _, r := range records {
		values = append(values, string(r.Value))
	}
	return values
}

// inOrder fails unless topic holds the values 0 to n-1, once each and in order.
func (w *world) inOrder(topic string, n int) {
	w.tb.Helper()
	want := make([]string, 0, n)
	for i := range n {
		want = append(want, strconv.Itoa(i))
	}
	if got := w.values(topic); !slices.Equal(got, want) {
		w.tb.Fatalf("%d values landed, want %d in order: %.400q", len(got), n, got)
	}
}

func sinktestRecords(records []*kgo.Record) []sinktest.Record {
	out := make([]sinktest.Record, 0, len(records))
	for _, r := range records {
		out = append(out, sinktest.Record{Topic: r.Topic, Key: r.Key, Value: bytes.Clone(r.Value)})
	}
	return out
}
