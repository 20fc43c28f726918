package kafka_test

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	brokers "github.com/outrider-cdc/outrider/internal/harness/kafka"
	"github.com/outrider-cdc/outrider/internal/harness/proxy"
	"github.com/outrider-cdc/outrider/relay"
	"github.com/outrider-cdc/outrider/sinks/kafka"
)

// outcome waits for all and returns how many settled nil, which must be the
// first ones, and how many of the others are poison.
func outcome(t *testing.T, all []*sent) (settled, poison int) {
	t.Helper()
	for i, s := range all {
		switch err := s.wait(); {
		case err == nil && settled < i:
			t.Fatalf("message %d settled nil behind message %d", i, settled)
		case err == nil:
			settled++
		case errors.Is(err, relay.ErrPoison):
			poison++
		}
	}
	return settled, poison
}

// The broker refuses one batch among 10,000 messages: what was committed is a
// prefix, nothing of the rest is seen by readers of committed records, and the
// replay brings the rest once.
func TestRefusedBatchAmongMany(t *testing.T) {
	c := fake(t, kfake.SeedTopics(1, "a"))
	w := newExact(t, config(c.ListenAddrs()...))
	w.begin()
	w.delivered(w.numbered("a", 0, 1)...)
	all := w.numbered("a", 1, 5000)
	fault := c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "a", Err: kerr.InvalidTimestamp, Count: 1})
	all = append(all, w.numbered("a", 5001, 5000)...)
	settled, poison := outcome(t, all)
	if poison == 0 || fault.Hits() != 1 {
		t.Errorf("%d poison among %d, %d faults", poison, len(all)-settled, fault.Hits())
	}
	w.inOrder("a", 1+settled)
	w.idle()
	if got := w.beginWith(w.source()); int(got.Position.LSN) != 1+settled {
		t.Errorf("checkpoint %+v after %d messages", got, 1+settled)
	}
	w.delivered(w.numbered("a", 1+settled, len(all)-settled)...)
	w.inOrder("a", 1+len(all))
}

// The limit of a topic is lowered while the relay runs. The first leadership
// meets the refusal of the broker, which names whole batches; the next one knows
// the limit, commits what lies before the large row, and names that row alone.
func TestTopicLimitIsLowered(t *testing.T) {
	c := brokers.Start(t, 1)
	name := c.Topic(t, 1, nil)
	cfg := config(c.Brokers()...)
	cfg.Compression = "none"
	w := newExact(t, cfg)
	w.begin()
	w.delivered(w.numbered(name, 0, 1)...)
	client, err := kgo.NewClient(kgo.SeedBrokers(c.Brokers()...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	_, err = kadm.NewClient(client).AlterTopicConfigs(t.Context(), []kadm.AlterConfig{{Name: "max.message.bytes", Value: new("2000")}}, name)
	if err != nil {
		t.Fatal(err)
	}
	publish := func(from, large, to int) []*sent {
		all := w.numbered(name, from, large-from)
		all = append(all, w.publish(name, "k", strings.Repeat("x", 5000)))
		return append(all, w.numbered(name, large, to-large)...)
	}
	settled, poison := outcome(t, publish(1, 5000, 10_000))
	if poison == 0 {
		t.Error("nothing was poison")
	}
	w.inOrder(name, 1+settled)
	w.begin()
	all := publish(1+settled, 5000, 10_000)
	before, poison := outcome(t, all)
	if 1+settled+before != 5000 || poison != 1 || !errors.Is(all[before].err, relay.ErrPoison) {
		t.Errorf("%d and %d settled nil, %d were poison", settled, before, poison)
	}
	w.begin()
	w.delivered(w.numbered(name, 5000, 5000)...)
	w.inOrder(name, 10_000)
	w.idle()
}

// Errors that say nothing about messages end the session, and the next one works.
func TestIdentityIsMadeAnew(t *testing.T) {
	for _, test := range []struct {
		key kmsg.Key
		err *kerr.Error
	}{
		{kmsg.Produce, kerr.UnknownProducerID},
		{kmsg.Produce, kerr.InvalidProducerIDMapping},
		{kmsg.Produce, kerr.InvalidTxnState},
		{kmsg.Produce, kerr.TransactionAbortable},
		{kmsg.EndTxn, kerr.InvalidProducerIDMapping},
		{kmsg.EndTxn, kerr.InvalidTxnState},
		{kmsg.EndTxn, kerr.TransactionAbortable},
		{kmsg.EndTxn, kerr.NotCoordinator},
		{kmsg.EndTxn, kerr.UnknownServerError},
		{kmsg.EndTxn, kerr.RequestTimedOut}, // the fake broker commits and then says so
	} {
		t.Run(kmsg.NameForKey(int16(test.key))+" "+test.err.Message, func(t *testing.T) {
			c := fake(t, kfake.SeedTopics(3, "a"))
			w := newExact(t, config(c.ListenAddrs()...))
			w.begin()
			w.delivered(w.numbered("a", 0, 10)...)
			fault := c.Fault(kfake.Fault{Keys: []kmsg.Key{test.key}, Err: test.err, Count: 1})
			next := w.numbered("a", 10, 10)
			settled, poison := outcome(t, next)
			if poison > 0 || fault.Hits() != 1 {
				t.Errorf("%d poison, %d faults", poison, fault.Hits())
			}
			for _, s := range next[settled:] {
				if errors.Is(s.err, relay.ErrFatal) || errors.Is(s.err, relay.ErrFenced) {
					t.Errorf("settled with %v", s.err)
				}
			}
			w.begin()
			w.delivered(w.numbered("a", 10+settled, 10-settled)...)
			w.inOrder("a", 20)
			w.idle()
		})
	}
}

// A transaction that the brokers do not acknowledge is given up before they give it up.
func TestOverdueTransactionIsGivenUp(t *testing.T) {
	c := fake(t, kfake.SeedTopics(3, "a"))
	cfg := config(c.ListenAddrs()...)
	cfg.TransactionTimeout = time.Second
	w := newExact(t, cfg)
	w.begin()
	w.delivered(w.numbered("a", 0, 10)...)
	w.gate.stall(true)
	for _, s := range w.numbered("a", 10, 10) {
		if err := s.wait(); err == nil || errors.Is(err, relay.ErrFatal) || errors.Is(err, relay.ErrPoison) {
			t.Fatalf("settled with %v", err)
		}
	}
	w.gate.stall(false)
	w.begin()
	w.delivered(w.numbered("a", 10, 10)...)
	w.inOrder("a", 20)
}

// A network that does not carry a large transaction in time carries smaller ones.
func TestSlowNetwork(t *testing.T) {
	c := fake(t, kfake.SeedTopics(1, "a"))
	p, err := proxy.New(c.ListenAddrs()[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	cfg := config(c.ListenAddrs()...)
	cfg.TransactionTimeout, cfg.Compression = 2*time.Second, "none"
	w := newExact(t, cfg)
	w.gate.target.Store(new(p.Addr()))
	w.begin()
	w.delivered(w.publish("a", "k", "0"))
	p.Slow(400_000)
	const rows, size = 200, 5000 // 2.5 s
	for landed, sessions := 0, 0; landed < rows; sessions++ {
		if sessions == 10 {
			t.Fatalf("%d of %d messages landed in %d sessions", landed, rows, sessions)
		}
		var all []*sent
		for range rows - landed {
			all = append(all, w.publish("a", "k", strings.Repeat("x", size)))
		}
		settled, _ := outcome(t, all)
		landed += settled
		w.begin()
	}
}

func TestCheckpointTopicIsDeletedWhileRunning(t *testing.T) {
	c := fake(t, kfake.SeedTopics(1, "a"))
	cfg := config(c.ListenAddrs()...)
	cfg.TransactionTimeout = time.Second
	w := newExact(t, cfg)
	w.begin()
	w.delivered(w.publish("a", "k", "0"))
	if err := c.DeleteTopic(checkpoints); err != nil {
		t.Fatal(err)
	}
	if err := w.publish("a", "k", "1").wait(); err == nil || errors.Is(err, relay.ErrPoison) {
		t.Errorf("settled with %v", err)
	}
	// That there is no checkpoint any more is for the relay to judge.
	if got := w.beginWith(w.source()); got.Phase != "" {
		t.Errorf("%+v", got)
	}
	w.delivered(w.publish("a", "k", "1"))
	w.inOrder("a", 2)
}

// Messages that were under way when all brokers went away come once.
func TestTransactionsAfterOutage(t *testing.T) {
	c := brokers.Start(t, 1)
	c.Private(t)
	name := c.Topic(t, 3, nil)
	cfg := config(c.Brokers()...)
	cfg.TransactionTimeout = 0 // the default
	w := newExact(t, cfg)
	w.begin()
	w.delivered(w.numbered(name, 0, 1000)...)
	// A broker killed before it has written the markers of a commit may never
	// write them, seen with Kafka 4.3.1: that is another test's matter.
	w.inOrder(name, 1000)
	if err := c.Kill(1); err != nil {
		t.Fatal(err)
	}
	settled, poison := outcome(t, w.numbered(name, 1000, 1000))
	if settled+poison > 0 {
		t.Errorf("%d settled nil and %d are poison while nobody answers", settled, poison)
	}
	begun := make(chan relay.Checkpoint, 1)
	go func() {
		checkpoint, err := w.sink.Begin(t.Context(), w.source())
		if err != nil {
			t.Error(err)
		}
		begun <- checkpoint
	}()
	w.condition("kafka_unreachable", "", true)
	if err := c.StartNode(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if got := <-begun; got.LastID != "row-1000" {
		t.Errorf("%+v", got)
	}
	w.condition("kafka_unreachable", "", false)
	w.delivered(w.numbered(name, 1000, 1000)...)
	w.inOrder(name, 2000)
	w.idle()
}

// A transaction of somebody else keeps the checkpoint from being read: Begin
// waits for its end, and says so.
func TestBeginWaitsForAnOpenTransaction(t *testing.T) {
	c := fake(t, kfake.SeedTopics(1, "a"))
	w := newExact(t, config(c.ListenAddrs()...))
	w.begin()
	w.delivered(w.publish("a", "k", "0"))
	client, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...), kgo.TransactionalID("other"), kgo.DefaultProduceTopic(checkpoints))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := client.ProduceSync(t.Context(), kgo.StringRecord("x")).FirstErr(); err != nil {
		t.Fatal(err)
	}
	begun := make(chan relay.Checkpoint, 1)
	go func() {
		checkpoint, err := w.sink.Begin(t.Context(), w.source())
		if err != nil {
			t.Error(err)
		}
		begun <- checkpoint
	}()
	if got := w.condition("checkpoint_barred", checkpoints, true); !strings.Contains(got.Hint, "describe-producers --topic '"+checkpoints+"'") {
		t.Errorf("hint %q", got.Hint)
	}
	if err := client.EndTransaction(t.Context(), kgo.TryAbort); err != nil {
		t.Fatal(err)
	}
	if got := <-begun; got.LastID != "row-1" {
		t.Errorf("%+v", got)
	}
	w.condition("checkpoint_barred", checkpoints, false)
}

// Without the lease not one byte leaves, not even to abort.
func TestNoByteOfATransactionWithoutLease(t *testing.T) {
	c := fake(t, kfake.SeedTopics(3, "a"))
	cfg := config(c.ListenAddrs()...)
	cfg.TransactionTimeout = time.Second
	w := newExact(t, cfg)
	var leased atomic.Bool
	leased.Store(true)
	source := w.source()
	source.Lease = leased.Load
	w.beginAs(source)
	w.delivered(w.numbered("a", 0, 10)...)
	leased.Store(false)
	before := w.gate.sent.Load()
	for _, s := range w.numbered("a", 10, 1000) {
		if s.wait() == nil {
			t.Fatal("a message settled nil that could not leave")
		}
	}
	if n := w.gate.sent.Load() - before; n != 0 {
		t.Errorf("%d bytes left without the lease", n)
	}
	w.begin()
	w.delivered(w.numbered("a", 10, 10)...)
	w.inOrder("a", 20)
}

func TestForbiddenTopicHaltsTransactions(t *testing.T) {
	c := fake(t, kfake.SeedTopics(1, "a", "b"))
	for _, key := range []kmsg.Key{kmsg.Produce, kmsg.Metadata} {
		fault := c.Fault(kfake.Fault{Keys: []kmsg.Key{key}, Topic: "a", Err: kerr.TopicAuthorizationFailed, Count: -1})
		w := newExact(t, config(c.ListenAddrs()...))
		w.begin()
		err := w.publish("a", "k", "0").wait()
		if !errors.Is(err, relay.ErrFatal) || !strings.Contains(relay.HintText(err), "--topic 'a'") {
			t.Errorf("%v: settled with %v, hint %q", key, err, relay.HintText(err))
		}
		if err := w.publish("b", "k", "0").wait(); !errors.Is(err, relay.ErrFatal) {
			t.Errorf("%v: a message behind it settled with %v", key, err)
		}
		fault.Remove()
		w.begin()
		w.delivered(w.publish("a", "k", "0"))
	}
}

// What the brokers refuse of a checkpoint is no message's fault.
func TestRefusedCheckpointHalts(t *testing.T) {
	c := fake(t, kfake.SeedTopics(1, "a"))
	w := newExact(t, config(c.ListenAddrs()...))
	w.begin()
	c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: checkpoints, Err: kerr.MessageTooLarge, Count: 1})
	if err := w.publish("a", "k", "0").wait(); !errors.Is(err, relay.ErrFatal) || errors.Is(err, relay.ErrPoison) {
		t.Errorf("settled with %v", err)
	}
	w.begin()
	w.delivered(w.publish("a", "k", "0"))
	w.inOrder("a", 1)
}

func TestCheckpointed(t *testing.T) {
	var sink relay.Transactional = newWorld(t, config("127.0.0.1:1")).sink
	if sink.Checkpointed() {
		t.Error("at least once stores checkpoints")
	}
	if sink = newExact(t, config("127.0.0.1:1")).sink; !sink.Checkpointed() {
		t.Error("exactly once stores none")
	}
	cfg := config("127.0.0.1:1")
	cfg.TransactionTimeout = 20 * time.Second
	if _, err := kafka.New(cfg, kafka.Options{}); err == nil || !strings.Contains(err.Error(), "OUTRIDER_KAFKA_TRANSACTION_TIMEOUT: 20s is not between 1s and 15s") {
		t.Errorf("%v", err)
	}
}
