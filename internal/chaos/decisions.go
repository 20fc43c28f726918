package chaos

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// transactionLog is where coordinators write down what they decide.
const transactionLog = "__transaction_state"

// producer is who a transaction is of, and the epoch of its records.
type producer struct {
	id    int64
	epoch int16
}

// decisions reads how the newest transaction of each producer ends: true for a
// commit. Who is not in it has none that is decided.
func (s *Stage) decisions(ctx context.Context) (commits map[producer]bool, err error) {
	log, err := kgo.NewClient(kgo.SeedBrokers(s.cfg.Cluster.Direct()...), kgo.ConsumeTopics(transactionLog),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(200*time.Millisecond))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	ends, err := kadm.NewClient(log).ListEndOffsets(ctx, transactionLog)
	if err != nil {
		return nil, fmt.Errorf("read what coordinators have decided: %w", err)
	}
	left := map[int32]int64{}
	ends.Each(func(end kadm.ListedOffset) {
		if end.Offset > 0 {
			left[end.Partition] = end.Offset
		}
	})
	commits = map[producer]bool{}
	ongoing := map[int64]int16{} // epoch by producer
	for len(left) > 0 {
		fetches := log.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			return nil, fmt.Errorf("read what coordinators have decided: %w", err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if r.Offset+1 >= left[r.Partition] {
				delete(left, r.Partition)
			}
			var v kmsg.TxnMetadataValue
			if r.Value != nil && v.ReadFrom(r.Value) == nil {
				decide(commits, ongoing, &v)
			}
		})
	}
	return commits, nil
}

// decide enters one state. A decision carries the epoch of the records, or the
// next one under transaction.version 2, so the state before tells which is meant.
func decide(commits map[producer]bool, ongoing map[int64]int16, v *kmsg.TxnMetadataValue) {
	epoch, runs := ongoing[v.ProducerID]
	commit := v.State == kmsg.TransactionStatePrepareCommit
	switch {
	case v.State == kmsg.TransactionStateOngoing:
		ongoing[v.ProducerID] = v.ProducerEpoch
		delete(commits, producer{v.ProducerID, v.ProducerEpoch})
	case runs && (commit || v.State == kmsg.TransactionStatePrepareAbort):
		commits[producer{v.ProducerID, epoch}] = commit
		delete(ongoing, v.ProducerID)
	}
}
