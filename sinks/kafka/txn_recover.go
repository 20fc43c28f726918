package kafka

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/outrider-cdc/outrider/relay"
)

// beginTransactional begins with a new client. The order is what makes it safe:
// once the brokers gave this client its epoch, nobody else can commit under the
// transactional id, and what another left open is aborted; so the checkpoint
// that is read after that is the newest there will ever be.
func (s *Sink) beginTransactional(ctx context.Context, source *relay.Source) (relay.Checkpoint, error) {
	p, err := s.open(source)
	if err != nil {
		return relay.Checkpoint{}, err
	}
	newest, err := p.takeOver(ctx)
	if err == nil && len(newest.Owed) > 0 && newest.Generation == source.Generation && !source.ResumesOwed {
		err = checkpointHalt(errors.New("the checkpoint names rows that are still to be published, which this relay cannot find again"),
			relay.Hint{Say: "start the version of the relay that ran before"})
	}
	if err != nil {
		p.close()
		return relay.Checkpoint{}, err
	}
	p.txn.start(newest.Checkpoint)
	s.current.Store(p)
	return newest.Checkpoint, nil
}

// takeOver fences all earlier clients and returns the newest checkpoint.
func (p *producer) takeOver(ctx context.Context) (newest stored, err error) {
	source := p.source.Load()
	steps := []struct {
		doing string
		do    func(context.Context) error
	}{
		{"reach kafka", p.client.Ping},
		{"check the brokers' version", p.checkVersion},
		{"take over transactional id " + transactionalID(source), func(ctx context.Context) error { return fence(ctx, p.client) }},
		{"verify topic " + checkpointTopic(source), func(ctx context.Context) error {
			return p.sink.explain.checkpoints(source, p.verifyCheckpoints(ctx))
		}},
		{"read the checkpoint", func(ctx context.Context) (err error) {
			newest, err = newestCheckpoint(ctx, p.client, source, unbounded)
			return p.sink.explain.checkpoints(source, err)
		}},
	}
	for _, s := range steps {
		if err := p.insist(ctx, s.doing, s.do); err != nil {
			return stored{}, err
		}
	}
	p.sink.conditions.clear(reasonBarred, checkpointTopic(source))
	return newest, nil
}

// refusedError is an answer that asking again does not change, but a new client may.
type refusedError struct{ error }

func (e refusedError) Unwrap() error { return e.error }

func isRefused(err error) bool {
	_, ok := errors.AsType[refusedError](err)
	return ok
}

// fence gives client its epoch.
func fence(ctx context.Context, client *kgo.Client) error {
	id, _, err := client.ProducerID(ctx)
	if code, ok := errors.AsType[*kerr.Error](err); ok && !code.Retriable {
		return refusedError{err} // franz-go keeps it
	}
	if err == nil && id < 0 {
		return versionHalt(errors.New("the brokers know no transactions"))
	}
	return err
}

// checkVersion refuses brokers without transactions, and warns of those before
// Kafka 3.6, which can leave transactions hanging: they do not verify that a
// record belongs to an open one (KIP-890).
func (p *producer) checkVersion(ctx context.Context) error {
	versions, err := p.admin.ApiVersions(ctx)
	if err != nil {
		return err
	}
	for _, v := range versions {
		if v.Err != nil {
			continue
		}
		if _, ok := v.KeyMaxVersion(int16(kmsg.EndTxn)); !ok {
			return versionHalt(fmt.Errorf("broker %d knows no transactions", v.NodeID))
		}
		if most, ok := v.KeyMaxVersion(int16(kmsg.AddPartitionsToTxn)); !ok || most < 4 {
			p.sink.opts.Logger.Warn("exactly-once needs kafka 3.6 or later: older brokers can leave transactions hanging", "broker", v.NodeID)
		}
	}
	return nil
}

func versionHalt(err error) error {
	return &relay.Halt{Reason: "kafka_version", Err: err, Hints: []relay.Hint{
		{Say: "upgrade the brokers: exactly-once needs Kafka 3.6 or later"},
		{Say: "or do without", Env: "OUTRIDER_DELIVERY=" + relay.AtLeastOnce},
	}}
}

// readBack is how many records at the end are looked at first for a checkpoint.
// The newest one is among the last few, but a topic that compaction has not
// reached may hold millions.
const readBack = 500

// unbounded is an end that none lies behind.
const unbounded = math.MaxInt64

// newestCheckpoint reads the last committed checkpoint of source's slot, zero if
// there is none. What lies at end or behind it is not looked at; who has fenced
// all others needs no end, since all there is will be decided.
func newestCheckpoint(ctx context.Context, client *kgo.Client, source *relay.Source, end int64) (stored, error) {
	log, err := openLog(ctx, client, checkpointTopic(source))
	if err != nil {
		return stored{}, err
	}
	log.end = min(log.end, end)
	// The high watermark and not the last stable offset is the end: this client's
	// predecessor may have committed what is not stable yet.
	for back := int64(readBack); ; back *= 10 {
		from := max(log.start, log.end-back)
		value, err := log.last(ctx, from, source.Slot)
		switch {
		case err != nil:
			return stored{}, err
		case value != nil:
			newest, err := decodeCheckpoint(value)
			if err != nil {
				return stored{}, checkpointHalt(fmt.Errorf("topic %q: %w", log.topic, err),
					relay.Hint{Say: "start the version of the relay that wrote it"})
			}
			return newest, nil
		case from == log.start || back > math.MaxInt64/20:
			return stored{}, nil
		}
	}
}

// partitionLog is partition 0 of a topic, up to the high watermark.
type partitionLog struct {
	client     *kgo.Client
	topic      string
	id         kadm.TopicID
	leader     int32
	start, end int64
}

func openLog(ctx context.Context, client *kgo.Client, topic string) (*partitionLog, error) {
	admin := kadm.NewClient(client)
	topics, err := admin.ListTopics(ctx, topic)
	if err != nil {
		return nil, fmt.Errorf("find the leader of %q: %w", topic, err)
	}
	t := topics[topic]
	p, ok := t.Partitions[0]
	if err := errors.Join(t.Err, p.Err); err != nil || !ok {
		return nil, fmt.Errorf("find the leader of %q: %w", topic, err)
	}
	starts, err := admin.ListStartOffsets(ctx, topic)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("ask for the start of %q: %w", topic, err)
	}
	ends, err := admin.ListEndOffsets(ctx, topic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("ask for the end of %q: %w", topic, err)
	}
	start, _ := starts.Lookup(topic, 0)
	end, _ := ends.Lookup(topic, 0)
	return &partitionLog{client: client, topic: topic, id: t.ID, leader: p.Leader, start: start.Offset, end: end.Offset}, nil
}

// last returns the value of the last committed record of key from an offset on, nil if there is none.
func (l *partitionLog) last(ctx context.Context, from int64, key string) (value []byte, err error) {
	var barred error
	for from < l.end {
		partition, next, err := l.fetch(ctx, from)
		if err != nil {
			if barred != nil {
				return nil, barred
			}
			return nil, fmt.Errorf("read %q: %w", l.topic, err)
		}
		barred = nil
		if next == from && partition.LastStableOffset < l.end {
			barred = &barredError{l.topic, partition.LastStableOffset}
		}
		for _, r := range partition.Records {
			if string(r.Key) == key && r.Offset < l.end && r.Value != nil {
				value = r.Value
			}
		}
		from = next
	}
	return value, nil
}

// barredError says that the end of a log cannot be read because somebody else's
// transaction is open there. It ends by itself, unless the brokers have lost
// track of it.
type barredError struct {
	topic  string
	offset int64
}

func (e *barredError) Error() string {
	return fmt.Sprintf("a transaction is open from offset %d of topic %q on", e.offset, e.topic)
}

const (
	fetchWaitMillis = 500
	fetchBytes      = 8 << 20
)

// fetch is one request. It goes below franz-go's consumer, which does not tell
// how far it came where nothing is committed.
func (l *partitionLog) fetch(ctx context.Context, from int64) (kgo.FetchPartition, int64, error) {
	partition := kmsg.NewFetchRequestTopicPartition()
	partition.FetchOffset, partition.PartitionMaxBytes = from, fetchBytes
	topic := kmsg.NewFetchRequestTopic()
	topic.Topic, topic.TopicID = l.topic, l.id // which of them is sent depends on the version
	topic.Partitions = append(topic.Partitions, partition)
	req := kmsg.NewPtrFetchRequest()
	req.IsolationLevel, req.MaxWaitMillis, req.MinBytes, req.MaxBytes = 1, fetchWaitMillis, 1, fetchBytes
	req.SessionEpoch = -1 // no session
	req.Topics = append(req.Topics, topic)
	answer, err := l.client.Broker(int(l.leader)).RetriableRequest(ctx, req)
	if err != nil {
		return kgo.FetchPartition{}, from, err
	}
	resp := answer.(*kmsg.FetchResponse) // what kgo returns for this request
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		return kgo.FetchPartition{}, from, err
	}
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		return kgo.FetchPartition{}, from, errors.New("the answer lacks the partition")
	}
	fetched, next := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{
		Offset: from, IsolationLevel: kgo.ReadCommitted(), Topic: l.topic,
	}, &resp.Topics[0].Partitions[0], kgo.DefaultDecompressor(), nil)
	return fetched, next, fetched.Err
}
