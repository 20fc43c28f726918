package kafka

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/outrider-cdc/outrider/relay"
)

// topic is what a producer knows of one topic. Its messages go one way at a
// time: through the queue, which the scout empties once it knows the topic's
// limits, and after that directly from Publish. So their order holds.
type topic struct {
	name   string
	limits atomic.Pointer[limits]
	direct atomic.Bool           // Publish may hand over to franz-go itself
	closed atomic.Bool           // nothing is queued any more
	wanted atomic.Bool           // a transactor has messages for it, and queues them itself
	refuse atomic.Pointer[error] // with which everything published from now on settles

	mu    sync.Mutex
	queue []*relay.Message

	partitions    atomic.Int32 // at first
	batchBytes    atomic.Int32 // how large a batch franz-go was told it may make; 0: not yet
	sent, settled atomic.Int64 // records given to franz-go, and come back
	owed          int          // of a transactor: how many messages others were let past
	damage        damage
	watch         watch
}

// damage is what the first refused record of a partition leaves behind: a
// batch behind a refused one may still succeed, as franz-go starts a new
// sequence, and nothing of the partition may then settle nil. Only promises
// touch it, one at a time.
type damage struct {
	any        atomic.Bool
	everywhere bool
	partitions map[int32]bool
}

func (d *damage) note(partition int32) {
	d.any.Store(true)
	if partition == unpartitioned {
		d.everywhere = true
		return
	}
	if d.partitions == nil {
		d.partitions = make(map[int32]bool)
	}
	d.partitions[partition] = true
}

// covers reports whether a record of partition may not settle nil. grown means
// that the topic has more partitions than at first, so that a key may have moved
// away from the damaged one.
func (d *damage) covers(partition int32, grown func() bool) bool {
	return d.any.Load() && (d.everywhere || d.partitions[partition] || grown())
}

// followsError settles what comes after a refused message. It does not wrap the
// cause: only the refused one is poison.
type followsError struct{ first error }

func (e *followsError) Error() string {
	return fmt.Sprintf("an earlier message of the topic was not published: %v", e.first)
}

// stop makes every later message of the topic settle with err.
func (t *topic) stop(err error) { t.refuse.CompareAndSwap(nil, &err) }

// take returns the queue and empties it. When it was empty and open is set, the topic is direct from now on.
func (t *topic) take(open bool) []*relay.Message {
	t.mu.Lock()
	defer t.mu.Unlock()
	q := t.queue
	t.queue = nil
	if open && len(q) == 0 {
		t.direct.Store(true)
	}
	return q
}

// enqueue keeps m until the topic is known, and reports whether it did: not if
// the topic became direct or closed. first means that nothing waited before.
func (t *topic) enqueue(m *relay.Message) (queued, first bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.direct.Load() || t.closed.Load() {
		return false, false
	}
	t.queue = append(t.queue, m)
	return true, len(t.queue) == 1
}

// waiting reports whether messages wait for the topic to become known.
func (t *topic) waiting() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.queue) > 0 || t.wanted.Load()
}

// close keeps the topic from queueing, and returns what it had queued.
func (t *topic) close() []*relay.Message {
	t.closed.Store(true)
	return t.take(false)
}

// verdict is what r settles with, given what its promise brought.
func (p *producer) verdict(r *record, err error) error {
	t, partition := r.topic, r.kafka.Partition
	if err == nil {
		if t.damage.covers(partition, func() bool { return p.grown(t) }) {
			return *t.refuse.Load()
		}
		return nil
	}
	p.failed.Store(true)
	t.stop(&followsError{err})
	t.damage.note(partition)
	return p.sink.explain.settled(r.message, err)
}

// settled is what m settles with when franz-go gave up on it with err.
func (c classifier) settled(m *relay.Message, err error) error {
	switch class := c.classify(m.Topic, err); {
	case isPoison(class):
		return c.poison(m, err)
	case isHalt(class):
		return class
	default:
		return fmt.Errorf("publish to topic %q: %w", m.Topic, err)
	}
}

// grown reports whether t has more partitions than at first.
func (p *producer) grown(t *topic) bool {
	leader, _, _ := p.client.PartitionLeader(t.name, t.partitions.Load())
	return leader != noSuchPartition
}

// noSuchPartition is what franz-go returns as the leader of a partition that is not there.
const noSuchPartition = -1
