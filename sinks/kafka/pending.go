package kafka

import (
	"context"
	"sync/atomic"
	"time"
)

// pending counts messages that were published and not settled.
type pending struct {
	n       atomic.Int64
	waiting atomic.Bool
	zero    chan struct{} // gets a value when n falls to zero while somebody waits
}

func (p *pending) add() { p.n.Add(1) }

// done is called after Settle returned, so that nothing of a leadership is still being told when wait returns.
func (p *pending) done() {
	if p.n.Add(-1) == 0 && p.waiting.Load() {
		select {
		case p.zero <- struct{}{}:
		default:
		}
	}
}

// wait returns nil when nothing is pending, which holds as long as nobody
// publishes, or errStopped as soon as stop says so; it is asked a few times a
// second. One caller at a time.
func (p *pending) wait(ctx context.Context, stop func() bool) error {
	p.waiting.Store(true)
	defer p.waiting.Store(false)
	ticker := time.NewTicker(250 * time.Millisecond)
	defer ticker.Stop()
	for p.n.Load() != 0 {
		if stop() {
			return errStopped
		}
		select {
		case <-p.zero:
		case <-ticker.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}
