package stdout

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/outrider-cdc/outrider/relay"
)

// Sink writes messages to an [io.Writer]. What waits for a slow writer is
// bounded by the budget of the caller, who keeps the messages alive anyway.
type Sink struct {
	out io.Writer

	mu       sync.Mutex
	changed  sync.Cond // something in queue, closed, writing or idle
	queue    []*relay.Message
	spare    []*relay.Message // the writer's last queue, to be filled again
	writing  []*relay.Message // what is being written and what comes after it; nil: no write is under way
	idle     bool             // the writer holds nothing
	running  bool
	ending   bool          // Begin or Close takes back what is not written
	closed   bool          // for good
	settled  chan struct{} // closed when the writer is idle; nil if nobody waits
	failure  error         // of the last write; stays until Begin
	halfLine bool          // a failed write may have left the beginning of a line
	line     []byte        // the writer's buffer
}

var _ relay.Sink = (*Sink)(nil)

var (
	errNotBegun   = errors.New("the stdout sink has not begun")
	errClosed     = errors.New("the stdout sink is closed")
	errSuperseded = errors.New("the leadership ended before the message was written")
)

// writeSize is how many bytes are gathered for one write, at least, if more messages wait.
const writeSize = 64 << 10

// New returns a sink that writes to out, which stays the caller's. It writes nothing.
func New(out io.Writer) *Sink {
	s := &Sink{out: out, idle: true}
	s.changed.L = &s.mu
	return s
}

// Begin implements [relay.Sink]. What an earlier leadership has not written is
// taken back; a write that is under way is waited for.
func (s *Sink) Begin(ctx context.Context, _ relay.Source) (relay.Checkpoint, error) {
	if err := s.drain(ctx); err != nil {
		return relay.Checkpoint{}, fmt.Errorf("wait for a write of the earlier leadership: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return relay.Checkpoint{}, errClosed
	}
	s.failure, s.ending = nil, false
	if !s.running {
		s.running = true
		go s.write() // ends with Close
	}
	return relay.Checkpoint{}, nil
}

// drain takes back what is queued, and waits until the writer is idle.
func (s *Sink) drain(ctx context.Context) error {
	s.mu.Lock()
	s.ending = true
	queue := s.queue
	s.queue = nil
	var settled chan struct{}
	if !s.idle {
		if s.settled == nil {
			s.settled = make(chan struct{})
		}
		settled = s.settled
	}
	s.mu.Unlock()
	settle(queue, errSuperseded)
	if settled == nil {
		return nil
	}
	select {
	case <-settled:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Publish implements [relay.Sink].
func (s *Sink) Publish(m *relay.Message) {
	if err := s.enqueue(m); err != nil {
		m.Settle(err)
	}
}

func (s *Sink) enqueue(m *relay.Message) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return errClosed
	case s.failure != nil:
		return s.failure
	case !s.running || s.ending:
		return errNotBegun
	}
	s.queue = append(s.queue, m)
	if s.idle {
		s.idle = false
		s.changed.Broadcast()
	}
	return nil
}

// write is the writer: one goroutine from the first Begin to Close.
func (s *Sink) write() {
	for {
		all := s.next()
		if all == nil {
			return
		}
		mine := true
		for batch := all; len(batch) > 0; {
			n := s.encode(batch)
			if err := s.enter(batch); err != nil {
				settle(batch, err)
				break
			}
			wrote, err := s.out.Write(s.line)
			if err == nil && wrote < len(s.line) {
				err = io.ErrShortWrite
			}
			if err != nil {
				err = fmt.Errorf("write lines: %w", err)
			}
			if mine = s.leave(wrote, err); !mine {
				break
			}
			settle(batch[:n], err)
			batch = batch[n:]
		}
		if mine {
			clear(all) // it is filled again, and must not keep messages alive until then
		}
	}
}

// next waits for messages and returns them; nil when the sink is closed.
func (s *Sink) next() []*relay.Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.queue) == 0 {
		s.idle = true
		s.changed.Broadcast()
		if s.settled != nil {
			close(s.settled)
			s.settled = nil
		}
		if s.closed {
			return nil
		}
		s.changed.Wait()
	}
	batch := s.queue
	s.queue = s.spare[:0]
	s.spare = batch
	return batch
}

// encode fills the buffer with the lines of the first messages of batch, and returns how many.
func (s *Sink) encode(batch []*relay.Message) int {
	if cap(s.line) > 16*writeSize {
		s.line = nil // a large row must not stay for ever
	}
	s.line = s.line[:0]
	if s.halfLine {
		s.line = append(s.line, '\n')
	}
	n := 0
	for n < len(batch) && len(s.line) < writeSize {
		s.line = appendLine(s.line, batch[n])
		n++
	}
	return n
}

// enter lets Close have batch while a write is under way, which nothing can end.
// It returns why nothing more is written, nil if it is.
func (s *Sink) enter(batch []*relay.Message) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.failure != nil:
		return s.failure
	case s.closed:
		return errClosed
	case s.ending:
		return errSuperseded
	}
	s.writing = batch
	s.changed.Broadcast()
	return nil
}

// leave notes how a write ended, and reports whether the messages are still the writer's to settle.
func (s *Sink) leave(wrote int, err error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.halfLine = err != nil && (s.halfLine || wrote > 0)
	s.failure = err
	mine := s.writing != nil
	s.writing = nil
	return mine
}

func settle(batch []*relay.Message, err error) {
	for _, m := range batch {
		m.Settle(err)
	}
}

// Close implements [relay.Sink]. It does not close the writer, nor wait for a
// write that is under way: its messages settle with an error, though their
// lines may still appear.
func (s *Sink) Close() error {
	s.mu.Lock()
	s.closed = true
	queue := s.queue
	s.queue = nil
	s.changed.Broadcast()
	for !s.idle && s.writing == nil {
		s.changed.Wait() // the writer is making lines, or settling
	}
	writing := s.writing
	s.writing = nil
	s.mu.Unlock()
	settle(writing, errClosed)
	settle(queue, errClosed)
	return nil
}
