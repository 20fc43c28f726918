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

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	brokers "github.com/outrider-cdc/outrider/internal/harness/kafka"
	"github.com/outrider-cdc/outrider/relay"
	"github.com/outrider-cdc/outrider/sinks/kafka"
)

func TestBeginReturnsTheNewestCheckpoint(t *testing.T) {
	onBoth(t, func(t *testing.T, cfg kafka.Config, topic func(int) string) {
		name := topic(3)
		w := newExact(t, cfg)
		var writes atomic.Int64
		source := w.source()
		source.Epoch, source.WriteSeq, source.Options, source.History, source.Timeline = 7, writes.Load, "o", "h", 2
		source.Report = w.report
		if got := w.beginWith(source); !cmp.Equal(got, relay.Checkpoint{}) {
			t.Errorf("a checkpoint before the first message: %+v", got)
		}
		want := relay.Checkpoint{
			Generation: 1, Epoch: 7, Phase: relay.CheckpointBacklog, Options: "o", History: "h", SystemID: "1", Timeline: 2,
		}
		step := func(m *relay.Message) {
			t.Helper()
			want.WriteSeq, want.Position, want.Cursor = writes.Add(1), m.Position, m.Cursor
			m.Topic, m.Key, m.Value = name, []byte("k"), []byte("v")
			w.delivered(w.publishMessage(m))
			want.LastID = "row-" + strconv.Itoa(w.next)
			if got := w.beginWith(source); !cmp.Equal(got, want) {
				t.Error(cmp.Diff(want, got))
			}
		}
		step(&relay.Message{Position: relay.Position{LSN: 1 << 60, Ordinal: 40}, Cursor: 40})
		step(&relay.Message{Position: relay.Position{LSN: 1 << 60, Ordinal: 1<<63 - 1}, Cursor: 1<<63 - 1})
		want.Phase = relay.CheckpointStreaming
		step(&relay.Message{Position: relay.Position{LSN: 1 << 59, Ordinal: 3}}) // streaming comes after backlog, whatever its position
		step(&relay.Message{Position: relay.Position{LSN: 1<<64 - 1, Ordinal: 1<<64 - 1}})
	})
}

// The checkpoint is far from the end when much was aborted after it.
func TestCheckpointBehindAbortedOnes(t *testing.T) {
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
	for range 3000 {
		client.Produce(t.Context(), kgo.KeySliceRecord([]byte("outrider_test"), []byte("aborted")), nil)
	}
	if err := errors.Join(client.Flush(t.Context()), client.EndTransaction(t.Context(), kgo.TryAbort)); err != nil {
		t.Fatal(err)
	}
	if err := client.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	client.Produce(t.Context(), kgo.KeySliceRecord([]byte("another slot"), []byte("x")), nil)
	if err := errors.Join(client.Flush(t.Context()), client.EndTransaction(t.Context(), kgo.TryCommit)); err != nil {
		t.Fatal(err)
	}
	if got := w.beginWith(w.source()); got.LastID != "row-1" {
		t.Errorf("%+v", got)
	}
}

func TestZombieIsFenced(t *testing.T) {
	onBoth(t, func(t *testing.T, cfg kafka.Config, topic func(int) string) {
		name := topic(3)
		zombie, leader := newExact(t, cfg), newExact(t, cfg)
		zombie.begin()
		zombie.delivered(zombie.numbered(name, 0, 10)...)
		zombie.gate.stall(true)
		zombie.numbered(name, 1000, 10) // under way when it freezes
		if got := leader.beginWith(leader.source()); got.LastID != "row-10" && got.LastID != "row-20" {
			t.Errorf("%+v", got)
		}
		leader.delivered(leader.numbered(name, 10, 10)...)
		zombie.gate.stall(false)
		// Whatever it still sends is refused.
		err := zombie.publish(name, "k", "zombie").wait()
		if !errors.Is(err, relay.ErrFenced) {
			t.Errorf("the zombie's message settled with %v", err)
		}
		leader.delivered(leader.numbered(name, 20, 10)...)
		if values := leader.values(name); slices.Contains(values, "zombie") {
			t.Errorf("the zombie published: %q", values)
		}
		leader.idle()
	})
}

// The connection ends at the moment of the commit, before the request or after it was carried out.
func TestCommitWithoutAnswer(t *testing.T) {
	for _, lost := range []loss{lossRequest, lossAnswer} {
		t.Run(map[loss]string{lossRequest: "request lost", lossAnswer: "answer lost"}[lost], func(t *testing.T) {
			onBoth(t, func(t *testing.T, cfg kafka.Config, topic func(int) string) {
				name := topic(3)
				w := newExact(t, cfg)
				w.begin()
				w.delivered(w.numbered(name, 0, 10)...)
				var ends atomic.Int64
				w.gate.loses.Store(new(func(key int16) loss {
					if key == int16(kmsg.EndTxn) && ends.Add(1) == 1 {
						return lost
					}
					return lossNone
				}))
				next := w.numbered(name, 10, 100)
				committed := 0
				for _, s := range next {
					if s.wait() == nil {
						committed++
					}
				}
				if ends.Load() != 1 {
					t.Errorf("%d requests to end a transaction", ends.Load())
				}
				// The first transaction of them may hold any number; only the answer lost lets it count.
				if (lost == lossAnswer) != (committed > 0) {
					t.Errorf("%d messages settled nil", committed)
				}
				w.begin()
				w.delivered(w.numbered(name, 10+committed, 100-committed)...)
				w.inOrder(name, 110)
				w.idle()
			})
		})
	}
}

// Nothing is guessed: without an answer messages settle with an error, though
// they were committed, and the next checkpoint tells.
func TestCommitIsResolvedByTheNextLeadership(t *testing.T) {
	c := fake(t, kfake.SeedTopics(1, "a"))
	w := newExact(t, config(c.ListenAddrs()...))
	var leased atomic.Bool
	leased.Store(true)
	source := w.source()
	source.Lease = leased.Load
	w.beginAs(source)
	w.delivered(w.publish("a", "k", "0"))
	w.gate.loses.Store(new(func(key int16) loss {
		if key == int16(kmsg.EndTxn) {
			leased.Store(false)
			return lossAnswer
		}
		return lossNone
	}))
	s := w.publish("a", "k", "1")
	w.condition("kafka_unreachable", "", true)
	if !s.open() {
		t.Error("settled while nobody knows")
	}
	source.Lease = nil
	got := w.beginWith(source)
	if err := s.wait(); err == nil || errors.Is(err, relay.ErrFatal) || errors.Is(err, relay.ErrPoison) || errors.Is(err, relay.ErrFenced) {
		t.Errorf("settled with %v", err)
	}
	if got.LastID != "row-2" {
		t.Errorf("checkpoint %+v", got)
	}
	w.inOrder("a", 2)
}

// A relay that dies with a transaction open holds up readers of committed
// records until the brokers give it up.
func TestCrashFreezesReadersForAShortTime(t *testing.T) {
	c := brokers.Start(t, 1)
	name := c.Topic(t, 1, nil)
	cfg := config(c.Brokers()...)
	cfg.TransactionTimeout = 0 // the default
	w := newExact(t, cfg)
	w.begin()
	w.delivered(w.publish(name, "k", "0"))
	w.gate.loses.Store(new(func(key int16) loss {
		if key == int16(kmsg.EndTxn) {
			w.gate.stall(true) // and not a byte more, as after a crash
			return lossRequest
		}
		return lossNone
	}))
	t.Cleanup(func() { w.gate.stall(false) })
	w.publish(name, "k", "lost")
	client, err := kgo.NewClient(kgo.SeedBrokers(cfg.Brokers...), kgo.DefaultProduceTopic(name), kgo.ConsumeTopics(name),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.FetchMaxWait(100*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	awaitState(t, cfg.Brokers, "Ongoing")
	began := time.Now()
	if err := client.ProduceSync(t.Context(), kgo.StringRecord("behind")).FirstErr(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for last := ""; last != "behind"; {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		fetches.EachRecord(func(r *kgo.Record) { last = string(r.Value) })
	}
	took := time.Since(began)
	t.Logf("readers waited for %s", took)
	if took > 15*time.Second {
		t.Errorf("readers waited for %s", took)
	}
	if took < 500*time.Millisecond {
		t.Errorf("void: readers waited for %s only", took)
	}
}

func awaitState(t *testing.T, brokers []string, state string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		d, err := describe(ctx, brokers, transactionalID)
		if err != nil {
			t.Fatal(err)
		}
		if d.State == state {
			return
		}
	}
}

func TestNothingIsOpenWhileIdle(t *testing.T) {
	onBoth(t, func(t *testing.T, cfg kafka.Config, topic func(int) string) {
		name := topic(3)
		w := newExact(t, cfg)
		w.begin()
		w.idle()
		for i := range 5 {
			w.delivered(w.numbered(name, i*100, 100)...)
			w.idle()
		}
		w.inOrder(name, 500)
	})
}

func TestMissingTopicHoldsNoTransactionOpen(t *testing.T) {
	c := fake(t, kfake.SeedTopics(1, "there"))
	w := newExact(t, config(c.ListenAddrs()...))
	source := w.source()
	source.ResumesOwed = true
	w.beginAs(source)
	w.delivered(w.publish("there", "k", "0"))
	waiting := w.numbered("later", 0, 3)
	w.condition("topic_missing", "later", true)
	w.idle()
	w.delivered(w.numbered("there", 1, 100)...)
	w.idle()
	waiting = append(waiting, w.numbered("later", 3, 3)...)
	w.delivered(w.publish("there", "k", "101"))

	// The checkpoint lies behind all that was sent, and names what was not.
	positions := func(numbers ...relay.LSN) (all []relay.Position) {
		for _, n := range numbers {
			all = append(all, relay.Position{LSN: n})
		}
		return all
	}
	got := w.beginWith(source)
	if want := positions(2, 3, 4, 105, 106, 107); got.LastID != "row-108" || !slices.Equal(got.Owed, want) {
		t.Errorf("%+v", got)
	}
	for _, s := range waiting {
		if s.wait() == nil {
			t.Fatal("a message of the missing topic settled nil")
		}
	}

	// The next leadership publishes them again, and others; the order of both topics holds.
	if err := c.CreateTopic("later", 1, nil); err != nil {
		t.Fatal(err)
	}
	for i, p := range got.Owed[:4] {
		w.delivered(w.publishMessage(&relay.Message{Topic: "later", Key: []byte("k"), Value: []byte(strconv.Itoa(i)), Position: p}))
	}
	w.delivered(w.publishMessage(&relay.Message{Topic: "there", Key: []byte("k"), Value: []byte("102"), Position: relay.Position{LSN: 200}}))
	if got := w.beginWith(source); got.Position.LSN != 200 || !slices.Equal(got.Owed, positions(106, 107)) {
		t.Errorf("%+v", got)
	}
	w.inOrder("later", 4)
	w.inOrder("there", 103)
}

// Without a relay that publishes owed rows again, nothing may pass a message that waits.
func TestMissingTopicHoldsUpWhatComesBehind(t *testing.T) {
	c := fake(t, kfake.SeedTopics(1, "there"))
	w := newExact(t, config(c.ListenAddrs()...))
	w.begin()
	w.delivered(w.publish("there", "k", "0"))
	waiting := w.publish("later", "k", "0")
	behind := w.numbered("there", 1, 10)
	w.condition("topic_missing", "later", true)
	w.idle()
	for _, s := range append(behind, waiting) {
		if !s.open() {
			t.Fatal("a message passed one that waits")
		}
	}
	if err := c.CreateTopic("later", 1, nil); err != nil {
		t.Fatal(err)
	}
	w.delivered(append(behind, waiting)...)
	w.inOrder("there", 11)
	w.inOrder("later", 1)
}

func TestCheckpointTopic(t *testing.T) {
	partitions := func(n int32, policy string) func(t *testing.T, c *kfake.Cluster) {
		return func(t *testing.T, c *kfake.Cluster) {
			t.Helper()
			if err := c.CreateTopic(checkpoints, n, map[string]string{"cleanup.policy": policy}); err != nil {
				t.Fatal(err)
			}
		}
	}
	refused := func(key kmsg.Key, e *kerr.Error) func(t *testing.T, c *kfake.Cluster) {
		return func(_ *testing.T, c *kfake.Cluster) {
			c.Fault(kfake.Fault{Keys: []kmsg.Key{key}, Err: e, Count: -1})
		}
	}
	for name, test := range map[string]struct {
		prepare func(t *testing.T, c *kfake.Cluster)
		hint    string // "": it is fine
	}{
		"missing":              {func(*testing.T, *kfake.Cluster) {}, ""},
		"right":                {partitions(1, "compact"), ""},
		"partitions":           {partitions(2, "compact"), "--delete --topic 'outrider.test.checkpoint.1'"},
		"deleted with time":    {partitions(1, "delete"), "--add-config cleanup.policy=compact"},
		"also deleted":         {partitions(1, "compact,delete"), "--add-config cleanup.policy=compact"},
		"may not create":       {refused(kmsg.CreateTopics, kerr.TopicAuthorizationFailed), "--operation Read"},
		"policy forbids":       {refused(kmsg.CreateTopics, kerr.PolicyViolation), "--create --topic 'outrider.test.checkpoint.1' --partitions 1 --config cleanup.policy=compact"},
		"may not take over":    {refused(kmsg.InitProducerID, kerr.TransactionalIDAuthorizationFailed), "--transactional-id outrider. --resource-pattern-type prefixed"},
		"timeout above limits": {refused(kmsg.InitProducerID, kerr.InvalidTransactionTimeout), "transaction.max.timeout.ms"},
	} {
		t.Run(name, func(t *testing.T) {
			c := fake(t, kfake.SeedTopics(1, "a"))
			test.prepare(t, c)
			w := newExact(t, config(c.ListenAddrs()...))
			if test.hint == "" {
				w.begin()
				w.delivered(w.publish("a", "k", "0"))
				if n := len(c.PartitionInfos(checkpoints)); n != 1 {
					t.Errorf("%d partitions", n)
				}
				return
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			_, err := w.sink.Begin(ctx, w.source())
			if !errors.Is(err, relay.ErrFatal) || !strings.Contains(relay.HintText(err), test.hint) {
				t.Errorf("begin returned %v, hint %q", err, relay.HintText(err))
			}
		})
	}
}

func TestCheckpointTopicIsMadeCompacted(t *testing.T) {
	c := brokers.Start(t, 1)
	w := newExact(t, config(c.Brokers()...))
	w.begin()
	client, err := kgo.NewClient(kgo.SeedBrokers(c.Brokers()...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	all, err := kadm.NewClient(client).DescribeTopicConfigs(t.Context(), checkpoints)
	if err != nil {
		t.Fatal(err)
	}
	for _, setting := range all[0].Configs {
		if setting.Key == "cleanup.policy" && setting.MaybeValue() == "compact" {
			return
		}
	}
	t.Errorf("%+v", all)
}
