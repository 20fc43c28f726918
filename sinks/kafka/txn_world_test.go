package kafka_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	brokers "github.com/outrider-cdc/outrider/internal/harness/kafka"
	"github.com/outrider-cdc/outrider/relay"
	"github.com/outrider-cdc/outrider/sinks/kafka"
)

// Names that follow from the source of the tests, the last one from that of
// package sinktest, whose slot has not the usual prefix.
const (
	transactionalID      = "outrider.test.1"
	checkpoints          = "outrider.test.checkpoint.1"
	suiteTransactionalID = "outrider.slot.test.1"
)

func newExact(tb testing.TB, cfg kafka.Config) *world {
	tb.Helper()
	return newWorldWith(tb, cfg, kafka.Options{ExactlyOnce: true})
}

// beginWith begins and returns the checkpoint.
func (w *world) beginWith(source relay.Source) relay.Checkpoint {
	w.tb.Helper()
	ctx, cancel := context.WithTimeout(w.tb.Context(), patience)
	defer cancel()
	checkpoint, err := w.sink.Begin(ctx, source)
	if err != nil {
		w.tb.Fatalf("begin: %v", err)
	}
	return checkpoint
}

// describe returns how the transaction of id stands, once it is not on its way
// from one state to the next.
func describe(ctx context.Context, brokers []string, id string) (kadm.DescribedTransaction, error) {
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
	if err != nil {
		return kadm.DescribedTransaction{}, err
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		all, err := admin.DescribeTransactions(ctx, id)
		if err != nil {
			return kadm.DescribedTransaction{}, err
		}
		switch t, err := all.On(id, nil); {
		case errors.Is(errors.Join(err, t.Err), kerr.TransactionalIDNotFound):
			return t, nil
		case err == nil && t.Err == nil && !strings.HasPrefix(t.State, "Prepare"):
			return t, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return kadm.DescribedTransaction{}, context.Cause(ctx)
		}
	}
}

// idle fails if the sink holds a transaction open. The brokers must have ended it already.
func (w *world) idle() {
	w.tb.Helper()
	ctx, cancel := context.WithTimeout(w.tb.Context(), patience)
	defer cancel()
	t, err := describe(ctx, w.cfg.Brokers, transactionalID)
	if err != nil {
		w.tb.Fatal(err)
	}
	if t.State == "Ongoing" {
		w.tb.Fatalf("a transaction is open: %+v", t)
	}
}

// onBoth runs a test against the fake broker and a real one.
func onBoth(t *testing.T, test func(t *testing.T, cfg kafka.Config, topic func(partitions int) string)) {
	t.Helper()
	t.Run("fake", func(t *testing.T) {
		c := fake(t)
		test(t, config(c.ListenAddrs()...), func(partitions int) string {
			if err := c.CreateTopic("a", int32(partitions), nil); err != nil {
				t.Fatal(err)
			}
			return "a"
		})
	})
	for _, version := range []string{brokers.Version, brokers.Version3} {
		t.Run(version, func(t *testing.T) {
			c := brokers.StartWith(t, brokers.Options{Version: version})
			test(t, config(c.Brokers()...), func(partitions int) string { return c.Topic(t, partitions, nil) })
		})
	}
}
