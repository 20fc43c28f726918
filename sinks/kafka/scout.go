package kafka

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

// scout looks up topics beside the row's way: those that messages wait for,
// those whose records stopped coming back, and every few minutes all of them.
// One goroutine.
type scout struct {
	producer  *producer
	refreshed time.Time
	again     bool // look soon: a topic was just created
}

const (
	lookEvery   = time.Second
	lookTimeout = 5 * time.Second
	refreshAge  = 5 * time.Minute
	// stuckLooks is for how many looks nothing of a topic came back before it is asked about.
	stuckLooks = 3
	// goneLooks is how often in a row a topic must be missing before its
	// records are given up: one broker alone may not know it yet.
	goneLooks = 3
)

// watch is what the scout remembers of a topic.
type watch struct {
	settled int64 // at the last look
	still   int   // looks without change while records are out
	missing int   // looks in a row that did not find it
}

func (s *scout) run(ctx context.Context) {
	s.refreshed = time.Now()
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.producer.wake:
		case <-ticker.C:
			s.tally()
		}
		for look := true; look && ctx.Err() == nil; look = s.again {
			s.again = false
			s.look(ctx)
		}
	}
}

// tally notes which topics' records do not come back.
func (s *scout) tally() {
	for _, t := range s.producer.known() {
		settled := t.settled.Load()
		if settled == t.sent.Load() || settled != t.watch.settled {
			t.watch.still = 0
		} else {
			t.watch.still++
		}
		t.watch.settled = settled
	}
}

// wanted are the topics to ask about now.
func (s *scout) wanted() map[string]*topic {
	refresh := time.Since(s.refreshed) > refreshAge
	if refresh {
		s.refreshed = time.Now()
	}
	topics := make(map[string]*topic)
	for _, t := range s.producer.known() {
		switch {
		case !t.direct.Load():
			if t.waiting() {
				topics[t.name] = t
			} else {
				s.found(t)
			}
		case t.watch.still >= stuckLooks:
			topics[t.name] = t
		default:
			s.found(t)
			if refresh {
				topics[t.name] = t
			}
		}
	}
	return topics
}

func (s *scout) look(ctx context.Context) {
	p := s.producer
	topics := s.wanted()
	if len(topics) == 0 {
		// Nothing waits for the brokers, so whether they answer concerns nobody.
		p.sink.conditions.clear(reasonUnreachable, "")
		return
	}
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	partitions, errs, err := s.metadata(ctx, topics)
	if err != nil {
		s.unanswered(ctx, topics, err)
		return
	}
	settings, err := s.settings(ctx, partitions)
	if err != nil {
		s.unanswered(ctx, topics, err)
		return
	}
	p.sink.conditions.clear(reasonUnreachable, "")
	for name, t := range topics {
		s.learn(ctx, t, errs[name], partitions[name], settings[name])
	}
}

// unanswered deals with a look that brought nothing.
func (s *scout) unanswered(ctx context.Context, topics map[string]*topic, err error) {
	p := s.producer
	if errors.Is(ctx.Err(), context.Canceled) {
		return
	}
	err = p.sink.explain.classify("", err)
	if isHalt(err) {
		for _, t := range topics {
			s.refuse(t, err)
		}
		return
	}
	p.sink.conditions.set(reasonUnreachable, "", p.sink.explain.unreachableHint(err))
}

// learn takes in what the brokers say of t.
func (s *scout) learn(ctx context.Context, t *topic, err error, partitions int, settings map[string]string) {
	p := s.producer
	switch {
	case errors.Is(err, kerr.UnknownTopicOrPartition):
		s.missing(ctx, t)
	case err != nil:
		if err := p.sink.explain.classify(t.name, err); isHalt(err) || isPoison(err) {
			s.refuse(t, err)
		}
		// Anything else passes, such as a topic without leaders: the next look sees.
	case partitions > 0 && settings != nil:
		s.found(t)
		s.open(t, newLimits(partitions, settings))
	}
}

// open lets the messages of t go, in the order they came, and all later ones past the queue.
func (s *scout) open(t *topic, l *limits) {
	p := s.producer
	old := t.limits.Swap(l)
	if old == nil {
		t.partitions.Store(int32(l.partitions)) // Kafka counts partitions in 32 bits
	}
	switch {
	case old == nil && l.unexplained:
		p.sink.opts.Logger.Warn("topic settings cannot be read, taking kafka's defaults", "topic", t.name)
	case old != nil && old.partitions < l.partitions:
		p.sink.opts.Logger.Warn("topic has more partitions than before, keys move to others and lose their order across the change",
			"topic", t.name, "before", old.partitions, "after", l.partitions)
	}
	for !t.direct.Load() {
		for _, m := range t.take(true) {
			p.send(t, m)
		}
	}
	p.txn.notify()
}

// refuse settles what waits for t, and what comes for it until the next Begin.
func (s *scout) refuse(t *topic, err error) {
	p := s.producer
	p.failed.Store(true)
	if isHalt(err) || p.txn != nil { // a transactor settles in order, and tells the first from those that follow
		t.stop(err)
	} else {
		t.stop(&followsError{err})
	}
	for !t.direct.Load() {
		for _, m := range t.take(true) {
			p.sink.settle(m, p.sink.explain.settled(m, err))
		}
	}
	p.txn.notify()
}

// missing reports t, and creates it if that is wanted.
func (s *scout) missing(ctx context.Context, t *topic) {
	p, cfg := s.producer, s.producer.sink.cfg
	t.watch.missing++
	hint := p.sink.explain.createHint(t.name)
	if cfg.CreateTopics {
		_, err := p.admin.CreateTopic(ctx, cfg.CreatePartitions, cfg.CreateReplication, nil, t.name)
		if err == nil {
			p.sink.opts.Logger.Info("created topic", "topic", t.name)
			s.again = true
			return
		}
		if errors.Is(err, kerr.TopicAlreadyExists) {
			return // the broker that was asked does not know it yet
		}
		hint = "creating it ended with: " + err.Error() + "; " + hint
	}
	p.sink.conditions.set(reasonTopicMissing, t.name, hint)
	// A leadership that ended must not wait for ever for a topic that was
	// deleted under its records. From produce version 13 on requests name the
	// topic by its id, so one that is still under way cannot land in a topic made
	// later under the same name; before that it could, if it outlived three looks.
	if p.ending.Load() && t.watch.missing >= goneLooks && t.direct.Load() {
		p.client.PurgeTopicsFromProducing(t.name)
	}
}

func (s *scout) found(t *topic) {
	t.watch.missing = 0
	s.producer.sink.conditions.clear(reasonTopicMissing, t.name)
}
