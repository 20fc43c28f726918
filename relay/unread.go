package relay

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// What the stream does beside reading: statuses, answers, and waiting while
// nothing is read.

const (
	turnInterval  = 100 * time.Millisecond // while something is on its way
	answerPause   = 50 * time.Millisecond  // between two answers that say the same
	shutdownAsks  = 3                      // reply requests within shutdownSpan and no new WAL: the server is going down
	shutdownSpan  = time.Second
	shutdownDrain = 5 * time.Second
)

var errServerDown = errors.New("the server is shutting down and does not get rid of a connection that nobody reads; it is closed, and nothing was confirmed")

// fail ends the stream from another goroutine.
func (s *stream) fail(err error) {
	if err != nil {
		s.broken.CompareAndSwap(nil, &err)
		s.conn.Interrupt()
	}
}

// turn moves everything that time moves: the settled prefix, the status, the
// read deadline. It returns what ended the session meanwhile.
func (s *stream) turn() error {
	s.move()
	if err := s.tick(true); err != nil {
		return err
	}
	deadline := s.conn.NextTick()
	if soon := time.Now().Add(turnInterval); s.busy() && soon.Before(deadline) {
		deadline = soon
	}
	if s.replies.owed && s.replies.next.Before(deadline) {
		deadline = s.replies.next
	}
	if err := s.conn.SetReadDeadline(deadline); err != nil {
		return fmt.Errorf("set read deadline: %w", err)
	}
	if err := s.answerOwed(); err != nil {
		return err
	}
	return s.failure()
}

// move publishes what the ledger knows to the progress writer and to /status.
func (s *stream) move() {
	r := s.relay
	r.turn()
	switch {
	case s.paying != nil:
		s.moveBacklog()
		return
	case !s.adopted: // the ledger is still that of an earlier session
		return
	}
	r.settledLSN.Store(uint64(s.ledger.advance()))
	r.rowsEnd.Store(uint64(s.ledger.rowsEnd))
	r.received.Store(uint64(s.received))
	oldest := s.ledger.oldest()
	r.oldest.Store(toNano(oldest))
	switch {
	case !oldest.IsZero():
		r.unconfirmed.CompareAndSwap(0, toNano(oldest))
	case s.ledger.rowsEnd <= s.flushed:
		r.unconfirmed.Store(0)
	}
}

// busy reports whether acknowledgements or a progress write are awaited.
func (s *stream) busy() bool {
	return !s.flight.empty() || s.ledger.rowsEnd > s.flushed || LSN(s.relay.durable.Load()) > s.flushed
}

func (s *stream) failure() error {
	if p := s.broken.Load(); p != nil {
		return *p
	}
	return s.flight.err()
}

// flush is what may be confirmed: what the progress row says as committed, and
// nothing that the server has not told of in this session, although it would
// believe any position.
func (s *stream) flush() LSN { return min(LSN(s.relay.durable.Load()), s.received) }

// tick sends a status when one is due, and at once when more can be confirmed.
func (s *stream) tick(reading bool) error {
	if flush := s.flush(); flush > s.flushed && !s.replies.shutdown() {
		return s.status()
	}
	flush := s.flush()
	if s.replies.shutdown() {
		flush = 0
	}
	if err := s.conn.Tick(s.received, flush, reading); err != nil {
		return fmt.Errorf("status: %w", err)
	}
	return nil
}

// status sends one now.
func (s *stream) status() error {
	flush := s.flush()
	if err := s.conn.Status(s.received, flush, false); err != nil {
		return fmt.Errorf("status: %w", err)
	}
	s.flushed = max(s.flushed, flush)
	s.relay.flushed.Store(uint64(s.flushed))
	return nil
}

// replies tells the server's ordinary reply requests from those of a server
// that is going down: it then asks again as soon as it is answered, until
// everything it sent is confirmed (WalSndDone in walsender.c).
type replies struct {
	owed  bool // an answer is held back until next
	next  time.Time
	asks  int
	first time.Time // of asks
	at    LSN       // received at that time
	since time.Time // the server is going down
}

func (r *replies) shutdown() bool { return !r.since.IsZero() }

// asked counts a request that came while received stood at lsn.
func (r *replies) asked(lsn LSN, now time.Time) {
	r.owed = true
	if lsn != r.at || now.Sub(r.first) > shutdownSpan && !r.shutdown() {
		*r = replies{owed: true, next: r.next, at: lsn, first: now}
	}
	if r.asks++; r.asks >= shutdownAsks && !r.shutdown() {
		r.since = now
	}
}

// answer handles a keepalive.
func (s *stream) answer(requested bool) error {
	if requested {
		s.replies.asked(s.received, time.Now())
	}
	return s.answerOwed()
}

// answerOwed answers a request, at most every answerPause. A server that is
// going down gets what is confirmed for as long as the sink may still settle
// something; then flush 0, which moves nothing and lets it take the written
// position for enough. Were it a false alarm, the next ordinary status would
// mend it.
func (s *stream) answerOwed() error {
	now := time.Now()
	if !s.replies.owed || now.Before(s.replies.next) {
		return nil
	}
	s.replies.owed = false
	s.replies.next = now.Add(answerPause)
	drained := s.flight.empty() || now.Sub(s.replies.since) > shutdownDrain
	if !s.replies.shutdown() || !drained {
		return s.status()
	}
	if err := s.conn.Status(s.received, 0, false); err != nil {
		return fmt.Errorf("status: %w", err)
	}
	return nil
}

// awaitRoom waits while the budget is used up, or too much was delivered past
// rows that are stuck: all of that would be sent again after a crash. The socket
// is not read, so that the server's messages stay with the server; statuses go on.
func (s *stream) awaitRoom(ctx context.Context) error {
	if !s.full() {
		return nil
	}
	s.flight.waiting.Store(true)
	defer s.flight.waiting.Store(false)
	return s.whileUnread(ctx, s.flight.wake, func() (bool, error) { return !s.full(), nil })
}

func (s *stream) full() bool {
	l := s.ledger
	if s.paying != nil {
		l = s.paying.ledger // the stream's is not this session's yet
	}
	most := s.relay.cfg.MaxAhead
	return s.flight.full() || most > 0 && l.ahead() >= uint64(most)
}

// whileUnread turns the wheel until done says so.
func (s *stream) whileUnread(ctx context.Context, wake <-chan struct{}, done func() (bool, error)) error {
	timer := time.NewTimer(turnInterval)
	defer timer.Stop()
	for {
		s.move()
		if err := s.tick(false); err != nil {
			return err
		}
		if ok, err := done(); ok || err != nil {
			return err
		}
		if err := s.failure(); err != nil {
			return err
		}
		if s.relay.serverDown.Load() {
			return errServerDown
		}
		select {
		case <-wake:
		case <-timer.C:
			timer.Reset(turnInterval)
		case <-ctx.Done():
			return errStopping
		}
	}
}

// begin begins the sink beside the statuses: it may take as long as an outage
// lasts, and the slot is kept through it.
func (s *stream) begin(ctx context.Context, source Source) (cp Checkpoint, err error) {
	beginning, cancel := context.WithCancel(ctx)
	defer cancel()
	s.relay.beginning.Store(true)
	defer s.relay.beginning.Store(false)
	wake, result := make(chan struct{}, 1), make(chan error, 1)
	var begunAt Checkpoint
	go func() {
		var err error
		begunAt, err = s.relay.sink.Begin(beginning, source)
		result <- err
		wake <- struct{}{}
	}()
	var begun bool
	err = s.whileUnread(ctx, wake, func() (bool, error) {
		select {
		case err := <-result:
			begun, cp = true, begunAt
			return true, err
		default:
			return false, nil
		}
	})
	if !begun { // the session ends: Begin must not outlive it
		cancel()
		s.relay.log.Debug("sink stopped beginning", "error", <-result)
	}
	return cp, err
}

// awaitEmpty waits until the sink has settled everything.
func (s *stream) awaitEmpty(ctx context.Context) error {
	s.flight.waiting.Store(true)
	defer s.flight.waiting.Store(false)
	return s.whileUnread(ctx, s.flight.wake, func() (bool, error) { return s.flight.empty(), nil })
}

// drain is what is left to do when reading has stopped: wait until the sink has
// settled everything, or until the time for it is over.
func (s *stream) drain() error {
	ctx, cancel := context.WithTimeout(context.Background(), s.relay.cfg.ShutdownTimeout)
	defer cancel()
	err := s.awaitEmpty(ctx)
	s.move()
	if errors.Is(err, errStopping) {
		s.relay.log.Warn("stopped before the sink had settled everything; it is sent again at the next start",
			"rows_unconfirmed", s.flight.rows.Load())
		return nil
	}
	return err
}
