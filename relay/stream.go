package relay

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/outrider-cdc/outrider/relay/internal/pgoutput"
	"github.com/outrider-cdc/outrider/relay/internal/replication"
)

// stream is the straight line from the socket to the sink, and the goroutine
// that walks it: receive, decode, lay out, publish; and the status back. Nobody
// else touches the connection. Back-pressure is to stop reading: what waits for
// room goes on sending statuses from here (see unread.go).
type stream struct {
	relay  *Relay
	conn   *replication.Conn
	ledger *ledger
	flight *flight
	source []byte // text of the outrider-source header
	epoch  int64
	broken atomic.Pointer[error]

	progress  *progress
	tally     *tally
	withholds bool     // the server waits for a standby
	turned    bool     // the wheel has turned since the lease was looked at
	doubt     bool     // look at the publication before the next row is published
	paying    *payment // while the backlog is published; nil afterwards
	adopted   bool     // the ledger is this session's
	last      lastRow  // at the checkpoint
	gate      *gate    // nil if none is configured

	tables     map[uint32]table
	cols       []pgoutput.Column // reused for every row
	names      map[string]string // header names seen
	nameOf     func([]byte) string
	commitLSN  LSN
	committed  time.Time
	commitText []byte
	xid        uint32
	rows       int  // of our table in the open transaction
	gated      bool // it has passed the gate

	received LSN // newest position the server has told of, in this session
	flushed  LSN // last flush that was sent
	replies  replies
}

// table is a relation that the server announced.
type table struct {
	ours   bool
	layout *layout
	err    error // why its rows cannot be laid out; fatal when the first one comes
}

func newStream(r *Relay, conn *replication.Conn, epoch int64) *stream {
	s := &stream{
		relay: r, conn: conn, ledger: r.ledger, epoch: epoch, tally: newTally(),
		flight: newFlight(int64(r.cfg.MaxInFlightBytes), func(m *Message) {
			if m.Position.Ordinal%sampleEvery == 0 {
				r.metrics.latency.Observe(max(0, time.Since(m.CommittedAt).Seconds()))
			}
		}),
		tables: map[uint32]table{}, names: map[string]string{}, gate: newGate(r),
	}
	s.nameOf = s.intern // once: a method value is an allocation
	return s
}

// sampleEvery is which rows of a transaction the latency histogram sees: the
// first, and few of many: a look at the clock for each was 5 % of a profile.
const sampleEvery = 16

// turnEvery is how many frames are handled between two turns of the wheel that
// moves statuses, positions and the deadline; a turn reads the clock.
const turnEvery = 64

// run reads until ctx ends, then waits for what the sink still holds. Any other
// end is an error.
func (s *stream) run(ctx context.Context) error {
	defer context.AfterFunc(ctx, s.conn.Interrupt)()
	defer s.gate.close()
	err := s.receive(ctx)
	s.move()
	if !errors.Is(err, errStopping) {
		return err
	}
	return s.drain()
}

// errStopping unwinds when the relay is told to stop.
var errStopping = errors.New("stopping")

// receive reads until something ends it, which its error tells.
func (s *stream) receive(ctx context.Context) error {
	for n := 0; ; n++ {
		if n%turnEvery == 0 {
			if err := s.turn(); err != nil {
				return err
			}
			s.turned = true
			if ctx.Err() != nil { // after turn, which moves the read deadline that Interrupt has set
				return errStopping
			}
		}
		frame, err := s.conn.Receive()
		switch {
		case replication.IsTimeout(err):
			n = -1 // a turn is due
			continue
		case err != nil:
			return s.relay.streamError(err)
		}
		s.received = max(s.received, frame.WALEnd)
		switch frame.Kind {
		case replication.FrameWAL:
			err = s.handle(ctx, frame.Data)
		case replication.FrameKeepalive:
			n = -1
			s.ledger.keepalive(frame.WALEnd)
			err = s.answer(frame.ReplyRequested)
		case replication.FrameNotice:
			err = s.notice(frame)
		}
		if err != nil {
			return err
		}
	}
}

// handle is the row's way. wal is valid until the next Receive.
func (s *stream) handle(ctx context.Context, wal []byte) error {
	if len(wal) == 0 {
		return fmt.Errorf("%w: empty", pgoutput.ErrMalformed)
	}
	kind, body := pgoutput.Kind(wal[0]), wal[1:]
	switch kind {
	case pgoutput.Insert:
		return s.insert(ctx, body)
	case pgoutput.Message:
		return s.message(ctx, body)
	case pgoutput.Begin:
		b, err := pgoutput.ParseBegin(body)
		if err != nil {
			return err
		}
		s.sent()
		if s.turned { // since the last transaction: not one look at the clock for each
			s.turned = false
			s.gate.age()
			if err := s.awaitLease(ctx); err != nil {
				return err
			}
		}
		s.commitLSN, s.committed, s.xid, s.rows, s.gated = LSN(b.FinalLSN), b.CommitTime, b.XID, 0, false
		s.commitText = s.committed.UTC().AppendFormat(s.commitText[:0], timestampFormat)
		_, err = s.ledger.begin(s.commitLSN, s.committed)
		return s.relay.replayError(err)
	case pgoutput.Commit:
		c, err := pgoutput.ParseCommit(body)
		if err != nil {
			return err
		}
		if LSN(c.CommitLSN) != s.commitLSN || c.EndLSN <= c.CommitLSN { // its end would be confirmed
			return fmt.Errorf("%w: commit at %s, ending at %s, of the transaction at %s",
				pgoutput.ErrMalformed, LSN(c.CommitLSN), LSN(c.EndLSN), s.commitLSN)
		}
		s.received = max(s.received, LSN(c.EndLSN))
		if s.rows > 0 {
			s.tally.add(s.xid, s.rows)
		}
		return s.relay.replayError(s.ledger.commit(LSN(c.EndLSN)))
	case pgoutput.Relation:
		r, err := pgoutput.ParseRelation(body)
		if err != nil {
			return err
		}
		if s.tables[r.ID].ours {
			s.doubt = true // announced again: something about it or the publication has changed
		}
		s.tables[r.ID] = s.relay.tableOf(r)
		return nil
	default: // updates, deletes, truncates, types, origins: not ours to send
		if !kind.Known() {
			return fmt.Errorf("%w: unknown kind %s", pgoutput.ErrMalformed, kind)
		}
		return nil
	}
}

func (r *Relay) tableOf(rel pgoutput.RelationMessage) table {
	schema, name, _ := splitTable(r.cfg.Table)
	if rel.Schema != schema || rel.Table != name {
		return table{}
	}
	l, err := newLayout(rel, r.cfg.columns())
	if missing, ok := errors.AsType[*errColumns](err); ok {
		err = r.columnsMissing(missing)
	}
	return table{ours: true, layout: l, err: err}
}

func (s *stream) insert(ctx context.Context, body []byte) error {
	if err := s.awaitRoom(ctx); err != nil {
		return err
	}
	relation, cols, err := pgoutput.ParseInsert(body, s.cols[:0])
	if err != nil {
		return err
	}
	s.cols = cols
	t, ok := s.tables[relation]
	switch {
	case !ok:
		return fmt.Errorf("%w: row of relation %d, which was not announced", pgoutput.ErrMalformed, relation)
	case !t.ours:
		return nil // another table of the publication
	case t.err != nil:
		return t.err
	}
	if s.doubt {
		if err := s.clearDoubt(ctx); err != nil {
			return err
		}
	}
	row := row{layout: t.layout, cols: cols}
	if err := row.check(); err != nil {
		return err
	}
	s.rows++
	return s.event(ctx, row)
}

// event publishes a row of the open transaction.
func (s *stream) event(ctx context.Context, row row) error {
	if s.gate != nil && !s.gated {
		if err := s.passGate(ctx); err != nil {
			return err
		}
		s.gated = true
	}
	chunk, ordinal, err := s.ledger.row(row.rowID())
	if err != nil {
		return s.relay.replayError(err)
	}
	if chunk == nil {
		s.relay.metrics.skipped.Inc()
		return s.checkLast(ordinal, row)
	}
	m, bad := row.message(s.commitText, s.nameOf)
	if row.bad != nil {
		bad = row.bad
	}
	m.topic = s.relay.routes.find(row.col(fieldTopic).Data)
	if err := m.topic.forbidden; err != nil {
		bad = bad.with(err)
	}
	m.Topic, m.source = m.topic.name, s.source
	m.place(Position{s.commitLSN, ordinal}, ordinal, s.committed, chunk)
	return s.publish(ctx, m, bad)
}

// intern keeps one string per header name, so that rows do not allocate them.
func (s *stream) intern(name []byte) string {
	if known, ok := s.names[string(name)]; ok {
		return known
	}
	if len(s.names) >= maxTopics {
		clear(s.names)
	}
	own := string(name)
	s.names[own] = own
	return own
}
