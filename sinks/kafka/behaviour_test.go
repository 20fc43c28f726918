package kafka_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	brokers "github.com/outrider-cdc/outrider/internal/harness/kafka"
	"github.com/outrider-cdc/outrider/sinks/kafka"
	"github.com/outrider-cdc/outrider/sinks/sinktest"
)

// What Kafka refuses for good ends a partition's batches in each of the ways that franz-go knows.
func TestSinkBehaves(t *testing.T) { testBehaviour(t, kafka.Options{}) }

func TestTransactionsBehave(t *testing.T) { testBehaviour(t, kafka.Options{ExactlyOnce: true}) }

func testBehaviour(t *testing.T, opts kafka.Options) {
	t.Helper()
	for _, refusal := range []*kerr.Error{kerr.MessageTooLarge, kerr.TopicAuthorizationFailed, kerr.UnknownServerError} {
		t.Run(refusal.Message, func(t *testing.T) {
			sinktest.Run(t, sinktest.Harness{Open: func(tb testing.TB) *sinktest.Rig {
				tb.Helper()
				c := fake(tb, kfake.SeedTopics(3, "a", "b"))
				rig := newRig(tb, newWorldWith(tb, config(c.ListenAddrs()...), opts), "a", "b")
				rig.Refuse = func(n int) { refuse(c, n, refusal) }
				return rig
			}})
		})
	}
}

// refuse makes the n-th produce request from now end with err, having written nothing.
func refuse(c *kfake.Cluster, n int, err *kerr.Error) {
	var seen sync.Map
	var requests atomic.Int64
	c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: err, Count: 1, When: func(r kmsg.Request) bool {
		number, known := seen.LoadOrStore(r, int64(0))
		if !known {
			number = requests.Add(1)
			seen.Store(r, number)
		}
		return number == int64(n)
	}})
}

func newRig(tb testing.TB, w *world, topics ...string) *sinktest.Rig {
	tb.Helper()
	return &sinktest.Rig{
		Sink: w.sink, Topics: topics,
		Landed: func(ctx context.Context) ([]sinktest.Record, error) {
			records, err := w.landed(ctx, topics...)
			return sinktestRecords(records), err
		},
		Stall: func() func() {
			w.gate.stall(true)
			return func() { w.gate.stall(false) }
		},
	}
}

func TestSinkBehavesOnKafka(t *testing.T) { testBehaviourOnKafka(t, kafka.Options{}) }

func TestTransactionsBehaveOnKafka(t *testing.T) {
	testBehaviourOnKafka(t, kafka.Options{ExactlyOnce: true})
}

func testBehaviourOnKafka(t *testing.T, opts kafka.Options) {
	t.Helper()
	c := brokers.Start(t, 1)
	client, err := kgo.NewClient(kgo.SeedBrokers(c.Brokers()...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	sinktest.Run(t, sinktest.Harness{Patience: time.Minute, Open: func(tb testing.TB) *sinktest.Rig {
		tb.Helper()
		topics := []string{c.Topic(tb, 3, nil), c.Topic(tb, 3, nil)}
		cfg := config(c.Brokers()...)
		cfg.Compression = "none"
		rig := newRig(tb, newWorldWith(tb, cfg, opts), topics...)
		// A real broker refuses when the topic's limit falls behind the sink's
		// back: batches made for the old one are too large from then on, each
		// record alone is not.
		rig.Refuse = func(int) {
			limit := "1500"
			resp, err := admin.AlterTopicConfigs(tb.Context(), []kadm.AlterConfig{{Name: "max.message.bytes", Value: &limit}}, topics...)
			for _, r := range resp {
				if r.Err != nil {
					err = r.Err
				}
			}
			if err != nil {
				tb.Fatal(err)
			}
		}
		return rig
	}})
}
