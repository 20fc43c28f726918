package kafka

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/outrider-cdc/outrider/relay"
)

// verifyCheckpoints makes sure that the topic of checkpoints is there and fit:
// one partition, so that there is one newest record, and compacted, so that it
// is kept for ever.
func (p *producer) verifyCheckpoints(ctx context.Context) error {
	name := checkpointTopic(p.source.Load())
	// The scout's questions serve, and its topics carry nothing but the name here.
	s := &scout{producer: p}
	partitions, errs, err := s.metadata(ctx, map[string]*topic{name: nil})
	if err != nil {
		return err
	}
	if err := errs[name]; errors.Is(err, kerr.UnknownTopicOrPartition) {
		return p.createCheckpoints(ctx, name)
	} else if err != nil {
		return err
	}
	if n := partitions[name]; n != 1 {
		return checkpointHalt(fmt.Errorf("topic %q has %d partitions, checkpoints need exactly one", name, n), relay.Hint{
			Say: "delete it while no relay runs that uses it; the relay makes it anew, and asks whether it may start without a checkpoint",
			Shell: fmt.Sprintf("kafka-topics.sh --bootstrap-server %s --delete --topic %s",
				strings.Join(p.sink.cfg.Brokers, ","), shellQuote(name)),
		})
	}
	settings, err := s.settings(ctx, partitions)
	if err != nil {
		return err
	}
	policy, told := settings[name][configCleanup]
	switch {
	case settings[name] == nil:
		return fmt.Errorf("the brokers cannot tell the settings of topic %q yet", name)
	case !told:
		p.sink.opts.Logger.Warn("settings of the topic of checkpoints cannot be read, taking it for compacted", "topic", name)
	case policy != "compact":
		return checkpointHalt(fmt.Errorf("cleanup.policy of topic %q is %q: checkpoints would be deleted with time", name, policy), relay.Hint{
			Say: "compact it",
			Shell: fmt.Sprintf("kafka-configs.sh --bootstrap-server %s --alter --entity-type topics --entity-name %s --add-config cleanup.policy=compact",
				strings.Join(p.sink.cfg.Brokers, ","), shellQuote(name)),
		})
	}
	return nil
}

// checkpointSegment is when the brokers begin a new segment. They compact all
// but the newest, and a day of checkpoints is a gigabyte, which is the default.
const checkpointSegment = "16777216"

// createCheckpoints makes the topic, whatever CREATE_TOPICS says: it is the relay's own.
func (p *producer) createCheckpoints(ctx context.Context, name string) error {
	_, err := p.admin.CreateTopic(ctx, 1, p.sink.cfg.CreateReplication, map[string]*string{
		configCleanup: new("compact"), "segment.bytes": new(checkpointSegment),
	}, name)
	switch code, ok := errors.AsType[*kerr.Error](err); {
	case err == nil:
		p.sink.opts.Logger.Info("created topic", "topic", name)
	case ok && !code.Retriable && code != kerr.TopicAlreadyExists:
		return checkpointHalt(fmt.Errorf("create topic %q: %w", name, err), relay.Hint{
			Say: "create it",
			Shell: fmt.Sprintf("kafka-topics.sh --bootstrap-server %s --create --topic %s --partitions 1 --config cleanup.policy=compact --config segment.bytes=%s",
				strings.Join(p.sink.cfg.Brokers, ","), shellQuote(name), checkpointSegment),
		})
	}
	return errNotYet
}

// errNotYet makes the next attempt look whether the brokers know what was made.
var errNotYet = errors.New("the topic of checkpoints was just made")

func checkpointHalt(err error, hint relay.Hint) error {
	return &relay.Halt{Reason: "kafka_checkpoint", Err: err, Hints: []relay.Hint{hint}}
}

// checkpoints sorts what ended a look at the topic of checkpoints: beside
// writing, the relay must read it.
func (c classifier) checkpoints(source *relay.Source, err error) error {
	if !errors.Is(err, kerr.TopicAuthorizationFailed) {
		return err
	}
	name := checkpointTopic(source)
	return &relay.Halt{Reason: "kafka_authorization", Err: fmt.Errorf("topic %q: %w", name, err), Hints: []relay.Hint{{
		Say:   "allow the relay to read and write its checkpoints",
		Shell: c.acl("--operation Read --operation Write --operation Describe --operation DescribeConfigs --topic " + shellQuote(name)),
	}}}
}

// barredHint says how to find out whose transaction it is. It does not say to
// abort it: what the relay was told is committed may be in it.
func (c classifier) barredHint(e *barredError) string {
	return fmt.Sprintf("%v; if that lasts longer than the timeout of its producer, the brokers lost track of it: kafka-transactions.sh --bootstrap-server %s describe-producers --topic %s --partition 0",
		e, strings.Join(c.brokers, ","), shellQuote(e.topic))
}
