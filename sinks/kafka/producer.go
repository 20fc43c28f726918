package kafka

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/outrider-cdc/outrider/relay"
)

// producer is one franz-go client and what is known of the topics behind it.
// After a failure it is not used for another leadership: a new one has no
// half-sent sequence, no stale topic id and no stale batch size.
type producer struct {
	sink    *Sink
	client  *kgo.Client
	admin   *kadm.Client
	promise func(*kgo.Record, error)
	txn     *transactor // nil: at least once

	source atomic.Pointer[relay.Source]
	failed atomic.Bool // something settled with an error

	identity atomic.Pointer[identity] // of the first produce request
	ending   atomic.Bool              // Begin waits for what is left

	mu     sync.Mutex
	topics map[string]*topic
	closed bool
	last   *topic // of the last Publish

	wake    chan struct{} // tells the scout of a topic it does not know
	stop    context.CancelFunc
	shut    func()        // closes client, the first time
	scouted chan struct{} // closed when the scout has ended
}

var (
	errStopped    = errors.New("the lease is over")
	errClosed     = errors.New("the kafka sink is closed")
	errNotBegun   = errors.New("the kafka sink has not begun")
	errOutgrown   = errors.New("the record is larger than the client's batches")
	errSuperseded = errors.New("the leadership ended before the message was sent")
)

// open starts a client and its scout. It asks no broker.
func (s *Sink) open(source *relay.Source) (*producer, error) {
	ctx, stop := context.WithCancel(context.Background())
	p := &producer{
		sink: s, topics: make(map[string]*topic), stop: stop,
		wake: make(chan struct{}, 1), scouted: make(chan struct{}),
	}
	p.promise = p.promised
	p.source.Store(source)
	if s.opts.ExactlyOnce {
		p.txn = newTransactor(p)
		p.promise = p.txn.promised
	}
	client, err := newClient(s.clientOptions(p))
	if err != nil {
		stop()
		return nil, err
	}
	p.client, p.admin, p.shut = client, kadm.NewClient(client), sync.OnceFunc(client.Close)
	go func() {
		defer close(p.scouted)
		(&scout{producer: p}).run(ctx)
	}()
	return p, nil
}

// close ends the client. What is unsettled settles with an error; the caller waits for that.
func (p *producer) close() {
	p.mu.Lock()
	closed := p.closed
	p.closed = true
	p.mu.Unlock()
	if closed {
		return
	}
	p.stop()
	if p.txn != nil {
		p.txn.close()
	}
	p.shut() // before waiting for the scout, who may be asking it something
	<-p.scouted
	for _, t := range p.known() {
		p.abandon(t.close(), errClosed)
	}
	p.sink.conditions.clearAll()
}

// abandon settles messages that franz-go never got.
func (p *producer) abandon(queue []*relay.Message, err error) {
	for _, m := range queue {
		p.sink.settle(m, err)
	}
}

func (p *producer) leased() bool {
	lease := p.source.Load().Lease
	return lease == nil || lease()
}

// publish takes m. The sink's one publishing goroutine calls it.
func (p *producer) publish(m *relay.Message) {
	t, err := p.find(m)
	switch {
	case p.txn != nil:
		p.txn.publish(entry{m, t, err})
		return
	case err != nil:
		p.failed.Store(true)
		p.sink.settle(m, err)
		return
	}
	if !t.direct.Load() {
		queued, first := t.enqueue(m)
		if first {
			p.poke()
		}
		if queued {
			return
		}
	}
	p.send(t, m)
}

// find returns the topic of m, or what m settles with for lack of one.
func (p *producer) find(m *relay.Message) (*topic, error) {
	if t := p.last; t != nil && t.name == m.Topic {
		return t, nil
	}
	if err := checkName(m.Topic); err != nil {
		return nil, p.sink.explain.poison(m, err)
	}
	t := p.topic(m.Topic)
	if t == nil {
		return nil, errClosed
	}
	p.last = t
	return t, nil
}

// topic returns the topic of that name, a new one if there is none, nil when p is closed.
func (p *producer) topic(name string) *topic {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.topics[name]
	if t == nil && !p.closed {
		t = &topic{name: name}
		p.topics[name] = t
	}
	return t
}

func (p *producer) known() []*topic {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make([]*topic, 0, len(p.topics))
	for _, t := range p.topics {
		all = append(all, t)
	}
	return all
}

func (p *producer) poke() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// send gives m to franz-go, unless it is certain to be refused. One goroutine a topic.
func (p *producer) send(t *topic, m *relay.Message) {
	if err := t.refuse.Load(); err != nil {
		p.sink.settle(m, *err)
		return
	}
	l := t.limits.Load()
	if l == nil { // closed before it was known
		p.sink.settle(m, errClosed)
		return
	}
	r := p.sink.newRecord()
	r.fill(m, t, l.timestamp(m.CommittedAt, time.Now()))
	if _, err := p.preflight(t, l, r); err != nil {
		p.sink.release(r)
		p.failed.Store(true)
		t.stop(&followsError{err})
		p.sink.settle(m, err)
		return
	}
	t.sent.Add(1)
	// Not the caller's context: a record's context that ends fails every
	// buffered record of its partition.
	p.client.TryProduce(context.Background(), &r.kafka, p.promise)
}

// preflight returns with what r.message settles if r needs no sending to know
// it, else its size at most.
func (p *producer) preflight(t *topic, l *limits, r *record) (size int, err error) {
	size, cause := l.check(r)
	if cause != nil {
		return 0, p.sink.explain.poison(r.message, cause)
	}
	if told := t.batchBytes.Load(); told != 0 && size > int(told) {
		// The topic takes more than when this client met it. The next one knows.
		return 0, fmt.Errorf("publish to topic %q: %w", t.name, errOutgrown)
	}
	return size, nil
}

// promised is told by franz-go what became of a record: one call at a time, in
// order within a partition.
func (p *producer) promised(k *kgo.Record, err error) {
	r := k.Context.(*record) // fill put it there
	t, m := r.topic, r.message
	err = p.verdict(r, err)
	p.sink.release(r)
	t.settled.Add(1)
	p.sink.settle(m, err)
}

// batchBytes tells franz-go how large a batch of the topic may get. It asks
// once, when it meets the topic, whose limits are known by then.
func (p *producer) batchBytes(name string) int32 {
	p.mu.Lock()
	t := p.topics[name]
	p.mu.Unlock()
	if t == nil {
		return defaultMaxBytes
	}
	l := t.limits.Load()
	if l == nil {
		return defaultMaxBytes
	}
	bytes := int32(l.maxBytes) // at most maxRequestBytes
	t.batchBytes.Store(bytes)
	return bytes
}
