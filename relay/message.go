package relay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"sync/atomic"
	"time"

	"github.com/jackc/pglogrepl"
)

// LSN is a position in the write-ahead log. It is only ever taken from the
// server, never computed: Postgres believes any position that it is told.
type LSN = pglogrepl.LSN

// Position names a row for ever on one timeline: the LSN at which the commit
// record of its transaction starts (Begin.final_lsn), and the number of the
// row among those that pgoutput sent for us in that transaction, from 0.
type Position struct {
	LSN     LSN
	Ordinal uint64
}

// String is the form of the outrider-position header; it sorts as text.
func (p Position) String() string { return fmt.Sprintf("%016X.%016X", uint64(p.LSN), p.Ordinal) }

// compare orders positions of one source.
func (p Position) compare(q Position) int {
	return cmp.Or(cmp.Compare(p.LSN, q.LSN), cmp.Compare(p.Ordinal, q.Ordinal))
}

func (p Position) before(q Position) bool { return p.compare(q) < 0 }

// Header is one key and value sent along with a message. A nil value is a null header.
type Header struct {
	Key   string
	Value []byte
}

// Names of the headers that the relay adds to the row's own.
const (
	HeaderID          = "id"
	HeaderType        = "type"
	HeaderPosition    = "outrider-position"
	HeaderSource      = "outrider-source"
	HeaderCommittedAt = "outrider-committed-at"
)

// Message is one outbox row on its way to a sink. Its bytes are immutable until
// it is settled; a sink may keep slices of them until then, and not longer.
type Message struct {
	ID          []byte    // the row's id as text
	Topic       string    // after routing
	Key         []byte    // nil: no key, hence no order
	Value       []byte    // nil: tombstone
	Type        []byte    // nil: none
	Position    Position  // names the row
	Cursor      int64     // seq of a row of the backlog; 0: the row came by the stream
	CommittedAt time.Time // commit time on the database server

	own    []Header // the row's own headers
	source []byte   // text of the outrider-source header, shared by all messages of a session
	texts  []byte   // positionLen bytes of outrider-position, then outrider-committed-at

	owner   settler     // told once, by Settle
	watch   func(error) // told before the owner; nil: nobody watches
	topic   *topic      // where Topic came from; its counters
	charge  int64       // what this message takes of the in-flight budget, in bytes
	settled atomic.Bool
	bit     uint8 // which of its chunk's rows this is
}

// Headers yields all headers in the order in which they are sent: id, type if
// there is one, the row's own, then the relay's.
func (m *Message) Headers() iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		if !yield(HeaderID, m.ID) || m.Type != nil && !yield(HeaderType, m.Type) {
			return
		}
		for _, h := range m.own {
			if !yield(h.Key, h.Value) {
				return
			}
		}
		_ = yield(HeaderPosition, m.texts[:positionLen:positionLen]) &&
			yield(HeaderSource, m.source) && yield(HeaderCommittedAt, m.texts[positionLen:])
	}
}

// HeaderCount is how many headers Headers yields.
func (m *Message) HeaderCount() int {
	n := 4 + len(m.own)
	if m.Type != nil {
		n++
	}
	return n
}

// Size is the bytes of key, value and headers, as brokers count a record without its framing.
func (m *Message) Size() int {
	n := len(m.Key) + len(m.Value)
	for k, v := range m.Headers() {
		n += len(k) + len(v)
	}
	return n
}

// Settle tells the relay what became of m; the sink calls it exactly once, from
// any goroutine, also from inside Publish. nil means that m is durable
// downstream; anything else is the error after which the sink gave up. A second
// call panics: it would confirm what was never sent.
func (m *Message) Settle(err error) {
	if m.settled.Swap(true) {
		panic("relay: a sink settled a message twice")
	}
	if m.watch != nil {
		m.watch(err)
	}
	m.owner.settle(m, err)
}

// Watch has f called once with what Settle is told, before the relay is. It is
// for what stands between the relay and a sink, and may be called until m is
// published; f must not block, and m must not be used by it.
func (m *Message) Watch(f func(error)) { m.watch = f }

// Source says whose messages are coming, at the start of a leadership.
type Source struct {
	SystemID   string // of the database cluster
	Timeline   int32
	Slot       string
	Generation int64 // grows whenever continuity breaks
	Epoch      int64 // grows with each leadership

	// Delivery is AtLeastOnce or ExactlyOnce; "" is the first.
	Delivery string
	// WriteSeq is the number of the last write of the progress row; nil: 0.
	// The sink may call it from any goroutine, and it must not block.
	WriteSeq func() int64
	Options  string // hash of what determines the ordinals
	History  string // of timelines
	// ResumesOwed says that the relay publishes again the rows in
	// Checkpoint.Owed. Then a transactional sink lets other rows pass one that
	// waits for its topic; without it such a row holds up all behind it, since
	// no checkpoint could tell that it is missing.
	ResumesOwed bool

	// Lease reports whether this relay may still write. A sink asks it in the
	// Write of its connections, so that not one byte leaves after the lease.
	Lease func() bool
	// Report makes a condition of the sink visible on /status. It may be called
	// from any goroutine.
	Report func(Condition)
}

// String is the value of the outrider-source header. Positions compare only under one source.
func (s Source) String() string {
	return fmt.Sprintf("%s.%d.%s.%d", s.SystemID, s.Timeline, s.Slot, s.Generation)
}

// Condition is something a sink waits for that an operator may want to know,
// such as a missing topic. A zero Since clears the condition of that reason and topic.
type Condition struct {
	Reason string    `json:"reason"`          // snake_case, stable
	Topic  string    `json:"topic,omitempty"` // "" if it concerns no single topic
	Since  time.Time `json:"since"`
	Hint   string    `json:"hint,omitempty"` // how to mend it
}

// Values of Source.Delivery.
const (
	AtLeastOnce = "at-least-once"
	ExactlyOnce = "exactly-once"
)

// Values of Checkpoint.Phase.
const (
	CheckpointBacklog   = "backlog"
	CheckpointStreaming = "streaming"
)

// Checkpoint is what a sink stores atomically with the data: all rows published
// under its generation up to and including Position are downstream, except
// those in Owed. Sinks that store nothing return the zero value; a stored one
// has a Phase.
type Checkpoint struct {
	Generation int64
	Epoch      int64  // of the leadership that wrote it
	WriteSeq   int64  // of the progress row at that time
	Phase      string // CheckpointBacklog or CheckpointStreaming
	Position   Position
	Cursor     int64      // seq of the row at Position, 0 if it came by the stream
	LastID     string     // id of the row at Position
	Owed       []Position // ascending, all before Position; see Source.ResumesOwed
	Options    string     // these four as in Source
	History    string
	SystemID   string
	Timeline   int32
}

// Sink is where messages go. Implementations live under sinks/; package
// sinktest holds the behaviour that each must show.
type Sink interface {
	// Begin starts a leadership: the slot is ours. It fences other writers
	// where it can, drops what an earlier one left, and returns the newest
	// checkpoint it made durable together with data (zero if it keeps none).
	// When it returns nil, every settle of an earlier leadership has been
	// called. It may take as long as an outage lasts; ctx ends it.
	Begin(ctx context.Context, source Source) (Checkpoint, error)

	// Publish takes over m and never blocks; it may call m.Settle before it
	// returns. Settle is called once: nil when m is durable downstream, else
	// the error after which the sink gave up. Messages of one topic and key
	// that settle nil are a prefix of the calls for that topic and key.
	// Messages without a key have no order. One goroutine calls Publish, never
	// together with Begin.
	Publish(m *Message)

	// Close releases everything; what is still unsettled settles with an error.
	Close() error
}

// Transactional is a sink that can store checkpoints.
type Transactional interface {
	Sink
	// Checkpointed reports whether it does: then each message that settles nil
	// is covered by a checkpoint, which became visible downstream together with
	// it, and Begin returns the newest one.
	Checkpointed() bool
	// Checkpoint reads the newest checkpoint without taking over: nobody is
	// fenced. Beside a leader it may be old by the time it is returned. The relay
	// asks it before it takes the slot, never together with Begin.
	Checkpoint(ctx context.Context, source Source) (Checkpoint, error)
}

// Classes of the errors with which a sink settles or Begin returns. An error
// that wraps none of them ends the session, and a new one starts after a pause:
// that is always safe.
var (
	// ErrFatal marks what no retry heals until somebody acts. The relay is halted: alive, told on /status, and tried again.
	ErrFatal = errors.New("fatal")
	// ErrPoison marks a message that can never be published as it is.
	ErrPoison = errors.New("poison message")
	// ErrFenced means that another relay took over.
	ErrFenced = errors.New("fenced")
)
