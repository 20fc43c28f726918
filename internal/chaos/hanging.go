package chaos

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
)

// barredFor is how long partitions may stay closed to readers of committed
// records after a broker is back, before that counts as lost markers.
const barredFor = 8 * time.Second

// endForgotten does what an operator must when brokers have committed a
// transaction and forgotten to say so in partitions that had no leader at that
// moment: a coordinator that starts takes such for deleted
// (TransactionMarkerChannelManager), and where a topic has a single replica they
// all are without a leader for a moment. It writes the markers that are missing,
// as the coordinator had decided, and returns the evidence; "" if none were.
func (s *Stage) endForgotten(ctx context.Context) (evidence string, err error) {
	if !s.exactlyOnce() || s.cfg.Cluster.Nodes() > 1 {
		return "", nil
	}
	topic, err := s.checkpoints(ctx)
	if err != nil {
		return "", err
	}
	opened, err := s.stillOpen(ctx, s.topic, topic)
	if err != nil || len(opened) == 0 {
		return "", err
	}
	commits, err := s.decisions(ctx)
	if err != nil {
		return "", err
	}
	err = s.admin(func(admin *kadm.Client) error {
		for _, p := range opened {
			commit, known := commits[producer{p.ProducerID, p.ProducerEpoch}]
			if !known {
				return fmt.Errorf("%s/%d is open, and no coordinator has decided how it ends", p.Topic, p.Partition)
			}
			topics := kadm.TopicsSet{}
			topics.Add(p.Topic, p.Partition)
			written, err := admin.WriteTxnMarkers(ctx, kadm.TxnMarkers{
				ProducerID: p.ProducerID, ProducerEpoch: p.ProducerEpoch, Commit: commit, CoordinatorEpoch: max(p.CoordinatorEpoch, 0), Topics: topics,
			})
			written.EachPartition(func(r kadm.TxnMarkersPartitionResponse) {
				if r.Err != nil && err == nil {
					err = r.Err
				}
			})
			if err != nil {
				return fmt.Errorf("end what is open in %s/%d: %w", p.Topic, p.Partition, err)
			}
		}
		return nil
	})
	return fmt.Sprintf("; the broker forgot the markers of %d partitions, which were written by hand", len(opened)), err
}

// stillOpen returns who has had a transaction open in which partition for all of
// barredFor; none, as soon as no transaction is that old.
func (s *Stage) stillOpen(ctx context.Context, topics ...string) (opened []kadm.DescribedProducer, err error) {
	deadline := time.Now().Add(barredFor)
	var old map[transaction]kadm.DescribedProducer
	err = s.until(ctx, "the brokers tell of open transactions", func(ctx context.Context) (bool, error) {
		found := map[transaction]kadm.DescribedProducer{}
		err := s.admin(func(admin *kadm.Client) error {
			details, err := admin.ListTopics(ctx, topics...)
			if err != nil {
				return err
			}
			producers, err := admin.DescribeProducers(ctx, details.TopicsSet())
			producers.EachProducer(func(p kadm.DescribedProducer) {
				at := transaction{p.Topic, p.Partition, p.CurrentTxnStartOffset}
				if _, still := old[at]; p.CurrentTxnStartOffset >= 0 && (still || old == nil) {
					found[at] = p
				}
			})
			return err
		})
		if err != nil {
			return false, err
		}
		old = found
		return len(old) == 0 || time.Now().After(deadline), nil
	})
	return slices.Collect(maps.Values(old)), err
}

// transaction is one in one partition.
type transaction struct {
	topic     string
	partition int32
	from      int64
}
