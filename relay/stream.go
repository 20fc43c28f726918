package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
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
	broken atomic.Pointer[error]

	tables     map[uint32]table
	cols       []pgoutput.Column // reused for every row
	names      map[string]string // header names seen
	nameOf     func([]byte) string
	commitLSN  LSN
	committed  time.Time
	commitText []byte

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

func newStream(r *Relay, conn *replication.Conn) *stream {
	s := &stream{
		relay: r, conn: conn, ledger: r.ledger,
		flight: newFlight(int64(r.cfg.MaxInFlightBytes), func(m *Message) {
			if m.Position.Ordinal%sampleEvery == 0 {
				r.metrics.latency.Observe(max(0, time.Since(m.CommittedAt).Seconds()))
			}
		}),
		tables: map[uint32]table{}, names: map[string]string{},
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
	case pgoutput.Begin:
		b, err := pgoutput.ParseBegin(body)
		if err != nil {
			return err
		}
		s.commitLSN, s.committed = LSN(b.FinalLSN), b.CommitTime
		s.commitText = s.committed.UTC().AppendFormat(s.commitText[:0], timestampFormat)
		_, err = s.ledger.begin(s.commitLSN, s.committed)
		return err
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
		return s.ledger.commit(LSN(c.EndLSN))
	case pgoutput.Relation:
		r, err := pgoutput.ParseRelation(body)
		if err != nil {
			return err
		}
		s.tables[r.ID] = s.relay.tableOf(r)
		return nil
	default: // updates, deletes, truncates, types, origins, messages: not ours to send
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
	row := row{t.layout, cols}
	if err := row.check(); err != nil {
		return err
	}
	chunk, ordinal, err := s.ledger.row(row.rowID())
	if err != nil {
		return err
	}
	if chunk == nil {
		s.relay.metrics.skipped.Inc()
		return nil
	}
	m, err := row.message(s.commitText, s.nameOf)
	if err != nil {
		return s.poison(err, Position{s.commitLSN, ordinal})
	}
	m.topic = s.relay.routes.find(row.col(fieldTopic).Data)
	m.Topic, m.source = m.topic.name, s.source
	m.place(Position{s.commitLSN, ordinal}, s.committed, chunk)
	s.flight.took(m)
	s.relay.sink.Publish(m)
	return nil
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

func (s *stream) poison(err error, at Position) error {
	return fmt.Errorf("at position %s: %w", at, err)
}

// notice keeps what the server says beside the stream: the only sign of a slot
// that waits for a standby, and of changes that Postgres 18 leaves out because
// the publication was missing when they were made.
func (s *stream) notice(f replication.Frame) error {
	n := f.Notice
	s.relay.metrics.notices.WithLabelValues(n.Code).Inc()
	s.relay.log.Log(context.Background(), noticeLevel(n.SeverityUnlocalized), "notice from the replication connection",
		"sqlstate", n.Code, "severity", n.Severity, "notice", firstLine(n.Message), "detail", firstLine(n.Detail))
	if n.Routine == "LoadPublications" { // the C function; the text may be translated
		return s.relay.publicationError(fmt.Errorf("%s: %s", n.Code, firstLine(n.Message)))
	}
	return nil
}

func noticeLevel(severity string) slog.Level {
	if severity == "WARNING" {
		return slog.LevelWarn
	}
	return slog.LevelInfo
}

// streamError sorts what ended the stream. Nothing was confirmed past it.
func (r *Relay) streamError(err error) error {
	if sqlState(err) == stateUndefinedObject {
		return r.publicationError(err)
	}
	return fmt.Errorf("stream: %w", err)
}

// publicationError asks whether the publication is there now. If it is not, the
// next session halts with the way to create it; if it is, it was missing when
// rows were written, and those cannot be decoded any more.
func (r *Relay) publicationError(err error) error {
	ctx, cancel := context.WithTimeout(context.Background(), connectTimeout)
	defer cancel()
	db, dbErr := r.openDatabase(ctx)
	if dbErr != nil {
		return fmt.Errorf("stream: %w", err)
	}
	defer db.close()
	if slot, slotErr := db.slot(ctx); slotErr != nil || !slot.exists {
		return fmt.Errorf("stream: %w", err) // 42704 may also mean the slot; the next session sees to it
	}
	server, dbErr := db.server(ctx)
	if dbErr == nil {
		dbErr = db.publication(ctx, server.version)
	}
	if dbErr != nil {
		return dbErr
	}
	return r.publicationWasAbsent(err)
}
