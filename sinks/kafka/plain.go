package kafka

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/outrider-cdc/outrider/relay"
)

// Begin implements [relay.Sink]. Bytes of an earlier leadership may still be on
// their way, and a record that was sent once cannot be called back: so Begin
// waits until each has been answered, however long the brokers are away. Only
// if the earlier lease is over, which keeps every byte in, it gives up on them.
// At least once stores no checkpoint; exactly once makes a new client, which
// fences whoever else wrote for the slot, and returns the newest checkpoint.
//
// The error is a [relay.Halt] if the brokers refuse the relay; brokers that do
// not answer are waited for.
func (s *Sink) Begin(ctx context.Context, source relay.Source) (relay.Checkpoint, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conditions.attach(source.Report)
	p := s.current.Load()
	if p != nil {
		if err := s.finish(ctx, p); err != nil {
			return relay.Checkpoint{}, fmt.Errorf("wait for records of the earlier leadership: %w", err)
		}
		if p.txn != nil || p.failed.Load() || p.isClosed() {
			p.close()
			s.current.Store(nil)
			p = nil
		}
	}
	if s.opts.ExactlyOnce {
		return s.beginTransactional(ctx, &source)
	}
	if p == nil {
		var err error
		if p, err = s.open(&source); err != nil {
			return relay.Checkpoint{}, err
		}
		s.current.Store(p)
	}
	p.source.Store(&source)
	p.ending.Store(false)
	return relay.Checkpoint{}, p.reach(ctx)
}

// finish returns when nothing of the earlier leadership is unsettled.
func (s *Sink) finish(ctx context.Context, p *producer) error {
	p.ending.Store(true)
	if p.txn != nil {
		p.txn.notify()
	}
	for _, t := range p.known() {
		p.abandon(t.take(false), errSuperseded)
	}
	err := s.pending.wait(ctx, func() bool { return !p.leased() })
	if errors.Is(err, errStopped) {
		p.close()
		return s.pending.wait(ctx, never)
	}
	return err
}

func never() bool { return false }

// reach waits until a broker answers.
func (p *producer) reach(ctx context.Context) error {
	return p.insist(ctx, "reach kafka", p.client.Ping)
}

// insist tries until ask succeeds, the brokers refuse for good, or ctx ends.
// What it waits for is reported.
func (p *producer) insist(ctx context.Context, doing string, ask func(context.Context) error) error {
	s := p.sink
	for n := 1; ; n++ {
		attempt, cancel := context.WithTimeout(ctx, dialTimeout)
		err := ask(attempt)
		cancel()
		if err == nil {
			s.conditions.clear(reasonUnreachable, "")
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%s: %w", doing, context.Cause(ctx))
		}
		if err = s.explain.classify("", err); isHalt(err) || isRefused(err) {
			return fmt.Errorf("%s: %w", doing, err)
		}
		if barred, ok := errors.AsType[*barredError](err); ok {
			s.conditions.clear(reasonUnreachable, "")
			s.conditions.set(reasonBarred, barred.topic, s.explain.barredHint(barred))
		} else if !errors.Is(err, errNotYet) {
			s.conditions.set(reasonUnreachable, "", s.explain.unreachableHint(err))
		}
		select {
		case <-time.After(backoff(n)):
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", doing, context.Cause(ctx))
		}
	}
}

// Publish implements [relay.Sink]. It does no I/O: a topic that is not known
// yet is looked up by another goroutine, and its messages wait.
func (s *Sink) Publish(m *relay.Message) {
	s.pending.add()
	p := s.current.Load()
	if p == nil {
		s.settle(m, errNotBegun)
		return
	}
	p.publish(m)
}

// settle tells the relay what became of m. The only place that does.
func (s *Sink) settle(m *relay.Message, err error) {
	m.Settle(err)
	s.pending.done()
}

// Close implements [relay.Sink]. It waits for no broker. End the context of a
// Begin that is still waiting first.
func (s *Sink) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.current.Load()
	if p == nil {
		return nil
	}
	p.close()
	s.current.Store(nil)
	// franz-go hands over its last promises after its Close has returned.
	return s.pending.wait(context.Background(), never)
}

func (p *producer) isClosed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closed
}

func isHalt(err error) bool { return errors.Is(err, relay.ErrFatal) }

func isPoison(err error) bool { return errors.Is(err, relay.ErrPoison) }
