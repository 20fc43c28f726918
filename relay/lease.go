package relay

import (
	"context"
	"sync"
	"time"
)

// lease bounds how long this relay may write to the sink. Nothing on the
// sink's side fences a relay that was frozen or cut off, and an old record sent
// after a newer one of its key would stay its last value for good. So a relay
// may write only until the send time of its newest guarded progress write, plus
// wal_sender_timeout, minus a margin; and one that takes over after an end that
// was not clean waits until that write is a whole timeout old.
//
// Sinks ask from any goroutine, at each write to a connection.
type lease struct {
	mu      sync.Mutex
	first   int64 // epoch since which nobody else has led
	timeout time.Duration
	until   time.Time
}

// margin is what a write that was let through may still take to leave.
func (l *lease) margin() time.Duration { return min(2*time.Second, l.timeout/3) }

// lead begins the lease of epoch. unbroken says that no other relay has led
// since our own last leadership: what the sink still holds of it may go on.
func (l *lease) lead(epoch int64, unbroken bool, timeout time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.timeout = timeout
	if !unbroken || l.first == 0 {
		l.first, l.until = epoch, time.Time{}
	}
}

// renew counts from the moment at which a guarded write was sent that has succeeded.
func (l *lease) renew(sent time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if until := sent.Add(l.timeout - l.margin()); until.After(l.until) {
		l.until = until
	}
}

// end gives the lease back: from here on not one byte leaves.
func (l *lease) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.until = time.Time{}
}

// holds reports whether rows published under epoch may be sent now. Both clocks
// count: the monotonic one stands still while some hypervisors hold a machine,
// and the wall clock may be set.
func (l *lease) holds(epoch int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	return epoch >= l.first && now.Before(l.until) && now.Round(0).Before(l.until.Round(0))
}

// low reports whether less than half of the lease is left.
func (l *lease) low() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Until(l.until) < (l.timeout-l.margin())/2
}

// awaitFormer waits until the relay that led before can send nothing any more.
func (s *stream) awaitFormer(ctx context.Context, left time.Duration) error {
	if left <= 0 {
		return nil
	}
	r := s.relay
	until := time.Now().Add(left)
	waiting := Condition{Reason: "former_lease", Since: time.Now(), Hint: "the relay that led before was not stopped cleanly; it may still write until " + until.UTC().Format(time.RFC3339)}
	r.report(waiting)
	defer r.report(Condition{Reason: waiting.Reason})
	return s.whileUnread(ctx, nil, func() (bool, error) { return !time.Now().Before(until), nil })
}

// clearDoubt has the publication looked at before a row is published: pgoutput
// announces a table again when the table or its publication has changed, and
// rows committed in between may be in no stream. Going on would publish later
// rows of their keys before them.
func (s *stream) clearDoubt(ctx context.Context) error {
	if s.progress == nil {
		s.doubt = false
		return nil
	}
	s.progress.asked.Store(true)
	s.progress.nudge()
	err := s.whileUnread(ctx, s.progress.written, func() (bool, error) { return !s.progress.asked.Load(), nil })
	s.doubt = err != nil
	return err
}

// awaitLease has the lease renewed before a row is published after an idle spell.
func (s *stream) awaitLease(ctx context.Context) error {
	if !s.relay.lease.low() || s.progress == nil {
		return nil
	}
	if s.relay.lease.holds(s.epoch) {
		return nil // writes that are due anyway renew it in time
	}
	s.relay.waitsForLease.Store(true)
	defer s.relay.waitsForLease.Store(false)
	s.progress.nudge()
	return s.whileUnread(ctx, s.progress.written, func() (bool, error) { return s.relay.lease.holds(s.epoch), nil })
}
