package kafka_test

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/outrider-cdc/outrider/internal/harness/child"
	"github.com/outrider-cdc/outrider/relay"
)

// broker is one fake broker that can go away and come back with its data.
type broker struct {
	tb      testing.TB
	opts    []kfake.Opt
	cluster *kfake.Cluster
	address string
}

func newBroker(tb testing.TB, opts ...kfake.Opt) *broker {
	tb.Helper()
	port, err := child.FreePort()
	if err != nil {
		tb.Fatal(err)
	}
	b := &broker{tb: tb, opts: append(opts, kfake.NumBrokers(1), kfake.Ports(port), kfake.DataDir(tb.TempDir()))}
	b.start()
	b.address = b.cluster.ListenAddrs()[0]
	tb.Cleanup(func() { b.cluster.Close() })
	return b
}

func (b *broker) start() {
	b.tb.Helper()
	c, err := kfake.NewCluster(b.opts...)
	if err != nil {
		b.tb.Fatal(err)
	}
	b.cluster = c
}

func TestBrokerAwayAndBack(t *testing.T) {
	b := newBroker(t, kfake.SeedTopics(3, "a"))
	w := newWorld(t, config(b.address))
	w.begin()
	all := w.numbered("a", 0, 1000)
	w.delivered(all[0])
	b.cluster.Close()
	all = append(all, w.numbered("a", 1000, 1000)...)
	got := w.condition("kafka_unreachable", "", true) // takes three seconds of silence
	if !strings.Contains(got.Hint, b.address) {
		t.Errorf("hint %q", got.Hint)
	}
	all = append(all, w.numbered("a", 2000, 1000)...)
	b.start()
	w.delivered(all...)
	w.condition("kafka_unreachable", "", false)
	w.inOrder("a", 3000)
}

func TestBeginWaitsForBrokers(t *testing.T) {
	b := newBroker(t, kfake.SeedTopics(1, "a"))
	b.cluster.Close()
	w := newWorld(t, config(b.address))
	begun := make(chan error, 1)
	go func() {
		_, err := w.sink.Begin(t.Context(), w.source())
		begun <- err
	}()
	w.condition("kafka_unreachable", "", true)
	b.start()
	if err := <-begun; err != nil {
		t.Fatal(err)
	}
	w.condition("kafka_unreachable", "", false)
	w.delivered(w.publish("a", "k", "0"))
}

func TestBeginEndsWithItsContext(t *testing.T) {
	b := newBroker(t, kfake.SeedTopics(1, "a"))
	w := newWorld(t, config(b.address))
	w.begin()
	w.delivered(w.publish("a", "k", "0"))
	b.cluster.Close()
	out := w.publish("a", "k", "1")
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := w.sink.Begin(ctx, w.source()); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("begin returned %v", err)
	}
	if !out.open() {
		t.Fatal("begin gave up on a message that may be at the broker")
	}
	b.start()
	w.begin()
	if out.open() {
		t.Fatal("begin returned and a message of the earlier leadership is unsettled")
	}
	w.delivered(out, w.publish("a", "k", "2"))
	w.inOrder("a", 3)
}

func TestCloseWhileBrokerIsAway(t *testing.T) {
	b := newBroker(t, kfake.SeedTopics(1, "a"))
	w := newWorld(t, config(b.address))
	w.begin()
	w.delivered(w.publish("a", "k", "0"))
	b.cluster.Close()
	out := append(w.numbered("a", 1, 100), w.numbered("unknown", 0, 100)...)
	done := make(chan error, 1)
	go func() { done <- w.sink.Close() }()
	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(patience):
		t.Fatal("close hangs")
	}
	for _, s := range out {
		if s.open() {
			t.Fatal("close returned and a message is unsettled")
		}
		if s.wait() == nil {
			t.Fatal("a message settled nil that no broker took")
		}
	}
}

func TestNoByteWithoutLease(t *testing.T) {
	c := fake(t, kfake.SeedTopics(3, "a"))
	w := newWorld(t, config(c.ListenAddrs()...))
	var leased atomic.Bool
	leased.Store(true)
	source := w.source()
	source.Lease = leased.Load
	w.beginAs(source)
	w.delivered(w.numbered("a", 0, 10)...)
	leased.Store(false)
	before := w.gate.sent.Load()
	out := w.numbered("a", 10, 1000)
	// The scout asks for what does not come back after three seconds: by then
	// every way to write has been tried, also with new connections.
	w.condition("kafka_unreachable", "", true)
	if n := w.gate.sent.Load() - before; n != 0 {
		t.Errorf("%d bytes left without the lease", n)
	}
	// Another relay may have published newer rows meanwhile: a new leadership does not bring the old ones.
	w.begin()
	for _, s := range out {
		if s.open() {
			t.Fatal("begin returned and a message of the earlier leadership is unsettled")
		}
		if s.wait() == nil {
			t.Fatal("a message settled nil that could not leave")
		}
	}
	w.delivered(w.numbered("a", 10, 10)...)
	w.inOrder("a", 20)
}

// A lease that comes back in time costs nothing.
func TestLeaseComesBack(t *testing.T) {
	c := fake(t, kfake.SeedTopics(3, "a"))
	w := newWorld(t, config(c.ListenAddrs()...))
	var leased atomic.Bool
	leased.Store(true)
	source := w.source()
	source.Lease = leased.Load
	w.beginAs(source)
	all := w.numbered("a", 0, 10)
	w.delivered(all...)
	leased.Store(false)
	all = append(all, w.numbered("a", 10, 100)...)
	w.condition("kafka_unreachable", "", true)
	leased.Store(true)
	w.delivered(all...)
	w.inOrder("a", 110)
}

func TestRetriableErrorsKeepOrder(t *testing.T) {
	for _, e := range []*kerr.Error{
		kerr.NotLeaderForPartition, kerr.RequestTimedOut, kerr.NotEnoughReplicas, kerr.NotEnoughReplicasAfterAppend,
		kerr.KafkaStorageError, kerr.UnknownTopicOrPartition, kerr.LeaderNotAvailable, // an error of sequence ends the client: TestClientStaysOneProducer
	} {
		t.Run(e.Message, func(t *testing.T) {
			c := fake(t, kfake.SeedTopics(1, "a"))
			w := newWorld(t, config(c.ListenAddrs()...))
			w.begin()
			all := w.numbered("a", 0, 10)
			w.delivered(all...)
			fault := c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: e, Count: 3})
			for i := range 10 {
				all = append(all, w.numbered("a", 10+100*i, 100)...)
			}
			w.delivered(all...)
			if fault.Hits() != 3 {
				t.Errorf("%d faults", fault.Hits())
			}
			values := w.values("a")
			w.inOrder("a", 1010)
			seen, next := map[string]bool{}, 0
			for _, v := range values {
				if !seen[v] && v != strconv.Itoa(next) {
					t.Fatalf("%s lies where %d belongs: %q", v, next, values[:min(20, len(values))])
				}
				if !seen[v] {
					next++
				}
				seen[v] = true
			}
			if next != 1010 {
				t.Errorf("%d values landed", next)
			}
		})
	}
}

// The first leader of a partition refuses a batch; later batches of it may
// succeed, and must not settle nil.
func TestNothingSettlesNilBehindARefusedBatch(t *testing.T) {
	c := fake(t, kfake.SeedTopics(1, "a"))
	w := newWorld(t, config(c.ListenAddrs()...))
	w.begin()
	w.delivered(w.numbered("a", 0, 1)...)
	c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.MessageTooLarge, Count: 1})
	var errs []error
	for _, s := range w.numbered("a", 1, 5000) {
		errs = append(errs, s.wait())
	}
	first := slices.IndexFunc(errs, func(err error) bool { return err != nil })
	if first < 0 || !errors.Is(errs[first], relay.ErrPoison) {
		t.Fatalf("message %d is the first refused", first)
	}
	if i := slices.Index(errs[first:], nil); i >= 0 {
		t.Errorf("message %d settled nil behind message %d", first+i, first)
	}
}
