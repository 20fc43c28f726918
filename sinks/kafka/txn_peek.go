package kafka

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/outrider-cdc/outrider/relay"
)

// Checkpoint implements [relay.Transactional]: it reads what is committed by now
// over a client of its own, which knows no transactional id and so fences
// nobody.
func (s *Sink) Checkpoint(ctx context.Context, source relay.Source) (relay.Checkpoint, error) {
	p := &producer{sink: s}
	p.source.Store(&source)
	client, err := newClient(s.connectOptions(p))
	if err != nil {
		return relay.Checkpoint{}, err
	}
	defer client.Close()
	topic := checkpointTopic(&source)
	stable, err := kadm.NewClient(client).ListCommittedOffsets(ctx, topic)
	if err != nil {
		return relay.Checkpoint{}, fmt.Errorf("ask for the stable end of %q: %w", topic, s.explain.checkpoints(&source, err))
	}
	end, ok := stable.Lookup(topic, 0)
	switch {
	case !ok || end.Err == kerr.UnknownTopicOrPartition: //nolint:errorlint // kerr's errors are single values
		return relay.Checkpoint{}, nil // Begin makes the topic
	case end.Err != nil:
		return relay.Checkpoint{}, fmt.Errorf("ask for the stable end of %q: %w", topic, s.explain.checkpoints(&source, end.Err))
	}
	newest, err := newestCheckpoint(ctx, client, &source, end.Offset)
	return newest.Checkpoint, s.explain.checkpoints(&source, err)
}
