package relay

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// The backlog is what lies before the slot: rows visible in base and not in
// cutoff. They are read from the table in order of insertion, in chunks of one
// short statement each, so that no snapshot is held longer than one of those,
// and published like rows of the stream. Meanwhile the slot is held, and its
// socket is not read. The cursor follows what is settled.

const (
	chunkMaxRows  = 5000
	chunkMaxBytes = 2 << 20
	spanMin       = 1 << 12 // seq values that one statement looks at
	spanMax       = 1 << 32
)

// debt is the backlog of one leadership. The stream pays, the progress writer
// notes how far.
type debt struct {
	row     *progressRow
	nothing bool          // the table had no rows, or they cannot be read
	over    chan struct{} // closed when the row says streaming

	mu    sync.Mutex
	upTo  int64 // everything owed up to this seq is settled
	clear bool  // nothing is owed any more
}

func newDebt(row *progressRow) *debt {
	return &debt{row: row, upTo: row.cursor, over: make(chan struct{})}
}

func (d *debt) cursor() int64 { d.mu.Lock(); defer d.mu.Unlock(); return d.upTo }
func (d *debt) settled() bool { d.mu.Lock(); defer d.mu.Unlock(); return d.clear }
func (d *debt) note(upTo int64, clear bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.upTo, d.clear = max(d.upTo, upTo), d.clear || clear
}

// owedSQL is the condition of a row that is owed; it takes no parameters.
func (d *debt) owedSQL() string {
	sql := "pg_visible_in_snapshot(tx, " + literal(d.row.base) + "::pg_snapshot)"
	if d.row.cutoff != "" {
		sql += " AND NOT pg_visible_in_snapshot(tx, " + literal(d.row.cutoff) + "::pg_snapshot)"
	}
	if d.row.paidBase != "" {
		sql += fmt.Sprintf(" AND NOT (seq <= %d AND pg_visible_in_snapshot(tx, %s::pg_snapshot))", d.row.paidCursor, literal(d.row.paidBase))
	}
	return sql
}

// payment is a backlog being published; of the stream's goroutine.
type payment struct {
	debt    *debt
	db      *database
	ledger  *ledger // over seq in place of LSNs: a chunk is its transaction
	columns string
	cursor  int64 // read up to here
	last    int64 // highest seq there is
	span    int64
	limit   int
	rel     *layout
	cancels int // in a row
}

// chunkOf is what one statement brought.
type chunkOf struct {
	messages []*Message
	bad      map[int64]*unfit // by seq
	seqs     []int64
	upTo     int64 // everything owed up to here is in it or before it
	done     bool
}

// backlog publishes what is owed and returns when the row says streaming.
func (s *stream) backlog(ctx context.Context, d *debt) error {
	r := s.relay
	db, err := r.openDatabase(ctx)
	if err != nil {
		return err
	}
	defer db.close()
	p := &payment{
		debt: d, db: db, ledger: &ledger{flight: s.flight, settled: LSN(d.row.cursor)},
		cursor: d.row.cursor, span: spanMin, limit: 100,
	}
	s.paying = p
	defer func() {
		s.paying = nil
		r.owed.end()
	}()
	if err := s.awaitVisible(ctx, p); err != nil {
		return err
	}
	if !d.nothing {
		if err := s.aside(ctx, p.prepare); err != nil {
			return err
		}
	}
	if p.last > p.cursor {
		r.log.Info("publishing rows from before the slot", "rows_owed", r.owed.owed.Load(), "estimated", r.owed.estimated.Load(), "cursor", p.cursor)
	}
	for done := p.last <= p.cursor; !done; {
		var c chunkOf
		if err := s.aside(ctx, func(ctx context.Context) (err error) { c, err = p.read(ctx); return err }); err != nil {
			return err
		}
		if err := s.pay(ctx, p, c); err != nil {
			return err
		}
		crashpoint("after a chunk was handed to the sink")
		done = c.done
	}
	if err := s.awaitEmpty(ctx); err != nil {
		return err
	}
	if err := s.failure(); err != nil { // a sink that gave everything back is empty, too
		return err
	}
	s.move()
	d.note(p.cursor, true)
	s.progress.nudge()
	if err := s.whileUnread(ctx, d.over, func() (bool, error) { return closed(d.over), nil }); err != nil {
		return err
	}
	r.log.Info("everything from before the slot is published; streaming", "rows", r.owed.done.Load())
	return nil
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// aside runs f in a goroutine while statuses go on.
func (s *stream) aside(ctx context.Context, f func(context.Context) error) error {
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	wake, result := make(chan struct{}, 1), make(chan error, 1)
	go func() {
		result <- f(inner)
		wake <- struct{}{}
	}()
	over := false
	err := s.whileUnread(ctx, wake, func() (bool, error) {
		select {
		case err := <-result:
			over = true
			return true, err
		default:
			return false, nil
		}
	})
	if !over {
		cancel()
		if ended := <-result; err == nil { // whileUnread's error says more
			err = ended
		}
	}
	return err
}

// awaitVisible waits until ordinary readers see all of base: a transaction that
// waits for a synchronous standby is visible in an exported snapshot and not in
// the stream, and a chunk would walk past it. Both halves are needed: such a
// transaction may stand at the ordinary snapshot's xmax with an empty list.
func (s *stream) awaitVisible(ctx context.Context, p *payment) error {
	r := s.relay
	waiting := Condition{Reason: "transactions_invisible", Since: time.Now(), Hint: "rows from before the slot wait for transactions that are committed and not visible yet, as under synchronous replication without its standby"}
	told := false
	defer func() {
		if told {
			r.report(Condition{Reason: waiting.Reason})
		}
	}()
	for {
		var seen bool
		err := s.aside(ctx, func(ctx context.Context) error {
			return p.db.QueryRow(ctx, `SELECT NOT EXISTS (SELECT FROM pg_snapshot_xip(pg_current_snapshot()) x WHERE pg_visible_in_snapshot(x, $1::text::pg_snapshot))
 AND pg_snapshot_xmax(pg_current_snapshot()) >= pg_snapshot_xmax($1::text::pg_snapshot)`, p.debt.row.base).Scan(&seen)
		})
		if err != nil || seen {
			return err
		}
		if !told && time.Since(waiting.Since) > time.Second {
			told = true
			r.report(waiting)
		}
		until := time.Now().Add(turnInterval)
		if err := s.whileUnread(ctx, nil, func() (bool, error) { return !time.Now().Before(until), nil }); err != nil {
			return err
		}
	}
}

// pay publishes a chunk. Its place in the ledger is its stretch of seq.
func (s *stream) pay(ctx context.Context, p *payment, c chunkOf) error {
	if len(c.messages) == 0 {
		p.ledger.keepalive(LSN(c.upTo))
		return nil
	}
	if _, err := p.ledger.begin(LSN(c.seqs[0]), c.messages[0].CommittedAt); err != nil {
		return err
	}
	for i, m := range c.messages {
		if err := s.awaitRoom(ctx); err != nil {
			return err
		}
		if i%turnEvery == 0 {
			s.move()
			if err := s.tick(false); err != nil {
				return err
			}
			if err := s.awaitLease(ctx); err != nil {
				return err
			}
		}
		chunk, ordinal, err := p.ledger.row(uint64(c.seqs[i]))
		if err != nil {
			return err
		}
		m.topic = s.relay.routes.find([]byte(m.Topic))
		bad := c.bad[c.seqs[i]]
		if err := m.topic.forbidden; err != nil {
			bad = bad.with(err)
		}
		m.Topic, m.source, m.Cursor = m.topic.name, s.source, c.seqs[i]
		m.place(Position{p.debt.row.baseLSN, uint64(c.seqs[i])}, ordinal, m.CommittedAt, chunk)
		s.relay.owed.done.Add(1)
		if err := s.publish(ctx, m, bad); err != nil {
			return err
		}
	}
	return p.ledger.commit(LSN(c.upTo))
}

// moveBacklog is what move does while the backlog is published.
func (s *stream) moveBacklog() {
	p, r := s.paying, s.relay
	p.debt.note(int64(p.ledger.advance()), false)
	r.oldest.Store(toNano(p.ledger.oldest()))
	r.owed.tell(r)
}
