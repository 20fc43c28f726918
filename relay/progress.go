package relay

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// progress writes the row ahead of what the stream confirms. It has a goroutine
// and the ordinary connection to itself; with the stream it shares atomics only.
type progress struct {
	relay   *Relay
	db      *database // nil while disconnected
	lead    leadership
	segment LSN // wal_segment_size in bytes
	stream  *stream
	wake    chan struct{} // buffered: somebody waits for a write
	written chan struct{} // buffered: a write was committed

	owed    *debt // what the backlog owes; nil when nothing
	paid    int64 // cursor as the row has it
	sent    time.Time
	stuck   stuckness
	ready   readying
	audited bool // the table keeps its rows, so that they can be counted
	mode    mode // under which the session began

	// Marks, of this session.
	mark        *mark
	fingerprint string // of the newest published mark
	tally       *tally
	audit       audit
	looked      time.Time
	asked       atomic.Bool // the stream waits for a look
	condemned   bool        // rows were left out: no mark is stored any more
}

// progressInterval is how often at most the row is written while rows flow.
const progressInterval = time.Second

// run writes until ctx ends or the leadership does.
func (p *progress) run(ctx context.Context) error {
	for p.listen(ctx); ctx.Err() == nil; p.listen(ctx) {
		if p.db == nil {
			continue
		}
		switch err := p.step(ctx); {
		case errors.Is(err, errNotLeading):
			p.relay.lease.end()
			return err
		case errors.Is(err, errLeftOut):
			p.mark, p.condemned = nil, true // published must not move over the gap
			return err
		case errors.Is(err, errYield), errors.Is(err, errMode):
			return err
		case err != nil:
			p.disconnected(err)
		}
	}
	return nil
}

// step does what is due. The end of ctx does not cut a statement short: that
// would cost the connection, and with it the last write.
func (p *progress) step(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*statementTimeout)
	defer cancel()
	if p.owed != nil && p.owed.settled() {
		if err := p.beginStreaming(ctx); err != nil {
			return err
		}
	}
	if err := p.writeIfDue(ctx); err != nil || p.owed != nil {
		return err
	}
	if err := p.ready.look(ctx, p.db); err != nil {
		return err
	}
	return p.look(ctx)
}

// nudge asks for a write now. Any goroutine.
func (p *progress) nudge() { signal(p.wake) }

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// listen spends one interval on the connection, or until somebody nudges,
// reading it, so that the server's farewell (57P01 on a fast shutdown) is heard
// at once: while the budget is full nobody reads the replication connection, and
// the walsender, blocked in its send, can tell us nothing there.
func (p *progress) listen(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, p.interval())
	defer cancel()
	nudged := make(chan struct{})
	go func() {
		defer close(nudged)
		select {
		case <-p.wake:
			cancel()
		case <-ctx.Done():
		}
	}()
	if p.db == nil {
		p.reconnect(ctx)
	}
	for p.db != nil && ctx.Err() == nil {
		if _, err := p.db.WaitForNotification(ctx); err != nil && ctx.Err() == nil && !pgconn.Timeout(err) {
			p.disconnected(err)
		}
	}
	<-nudged
}

// interval keeps writes frequent enough for a short lease.
func (p *progress) interval() time.Duration {
	most := min(progressInterval, p.relay.cfg.WALSenderTimeout/5)
	if p.owed == nil && p.ready.rounds >= readyingSlow {
		most = min(most, readyingFastPause)
	}
	return most
}

func (p *progress) reconnect(ctx context.Context) {
	db, err := p.relay.openDatabase(ctx)
	if err != nil {
		p.noteShutdown(err)
		return
	}
	p.db = db
	p.relay.serverDown.Store(false)
}

func (p *progress) disconnected(err error) {
	p.noteShutdown(err)
	p.relay.log.Warn("ordinary connection lost; nothing is confirmed until it is back", "error", firstLine(err.Error()))
	p.db.close()
	p.db = nil
}

// noteShutdown tells the stream that the server is going down.
func (p *progress) noteShutdown(err error) {
	switch sqlState(err) {
	case stateAdminShutdown, stateCrashShutdown, stateCannotConnectNow:
		p.relay.serverDown.Store(true)
	}
}

// writeIfDue writes the row when rows were settled since the last write, when a
// mark that saw rows is reached, and while anything is on its way often enough
// to keep the lease. On an idle database it writes only when a whole WAL segment
// lies between, so that the relay's own writes do not keep the server awake.
func (p *progress) writeIfDue(ctx context.Context) error {
	r := p.relay
	settled, durable, rows := LSN(r.settledLSN.Load()), LSN(r.durable.Load()), LSN(r.rowsEnd.Load())
	busy := p.owed != nil || !p.stream.flight.empty() || rows > durable || r.beginning.Load()
	stuck := p.stuck.look(p.stream.flight, busy, r.cfg.YieldAfter)
	switch {
	case rows > durable, settled > durable && settled-durable >= p.segment,
		p.owed != nil && p.owed.cursor() > p.paid,
		p.mark != nil && settled >= p.mark.lsn && p.tally.ahead(),
		(busy || r.waitsForLease.Load()) && time.Since(p.sent) >= r.cfg.WALSenderTimeout/3, stuck != p.stuck.told:
		return p.write(ctx, settled, false)
	case r.waitsForLease.Load() && !r.lease.holds(p.lead.epoch):
		return p.write(ctx, settled, false)
	case p.owed == nil && p.ready.due():
		if err := p.ready.round(ctx, p.db); err != nil {
			return err
		}
		return p.write(ctx, settled, false)
	case p.mark != nil && p.mark.overdue() && p.tally.ahead():
		p.mark.pushed = true
		return p.write(ctx, settled, false)
	}
	return nil
}

// write commits confirmed_lsn, cursor and a mark that was reached. Only then may
// a status carry the position: a slot that is ahead of the row proves that
// somebody else has moved it.
func (p *progress) write(ctx context.Context, confirmed LSN, released bool) error {
	r := p.relay
	confirmed = max(confirmed, LSN(r.durable.Load())) // never back: a slot ahead of the row would look moved
	var published, fingerprint *string
	if p.mark != nil && confirmed >= p.mark.lsn {
		if fingerprintChanged(p.fingerprint, p.mark.fingerprint) {
			return errLeftOut
		}
		published, fingerprint = &p.mark.snapshot.text, &p.mark.fingerprint
	}
	var cursor *int64
	if p.owed != nil {
		cursor = new(p.owed.cursor())
	}
	sent := time.Now()
	var snap, lsn, seenNow string
	var candidate bool
	var writeSeq int64
	crashpoint("before the progress row is written")
	err := p.db.QueryRow(ctx, `UPDATE `+p.db.relays()+` SET confirmed_lsn = $4::text::pg_lsn, write_seq = write_seq + 1,
 released = $5, cursor = coalesce($6, cursor), published = coalesce($7::text::pg_snapshot, published), fingerprint = coalesce($8, fingerprint), position = coalesce($11, position),
 stuck_since = CASE WHEN $9 THEN coalesce(stuck_since, clock_timestamp()) END, updated_at = clock_timestamp()
WHERE `+guard+` RETURNING write_seq, candidate <> $10 AND candidate_at > clock_timestamp() - interval '10 s' IS TRUE, `+p.db.markColumns(),
		r.cfg.Slot, p.lead.epoch, p.lead.pid, confirmed.String(), released, cursor, published, fingerprint, p.stuck.now, r.cfg.Instance, p.position()).
		Scan(&writeSeq, &candidate, &snap, &lsn, &seenNow)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		r.metrics.writes.WithLabelValues("fenced").Inc()
		return errNotLeading
	case err != nil:
		r.metrics.writes.WithLabelValues("error").Inc()
		return fmt.Errorf("write the progress row: %w", err)
	}
	crashpoint("after the progress row is written")
	r.writeSeq.Store(writeSeq)
	p.sent, p.stuck.told = sent, p.stuck.now
	if !released {
		r.lease.renew(sent)
	}
	r.metrics.writes.WithLabelValues("ok").Inc()
	r.durable.Store(uint64(confirmed))
	if cursor != nil {
		p.paid = *cursor
	}
	signal(p.written)
	if candidate && p.stuck.now {
		return errYield
	}
	return p.afterWrite(ctx, published != nil, snap, lsn, seenNow)
}

// afterWrite moves the marks along.
func (p *progress) afterWrite(ctx context.Context, reached bool, snap, lsn, fingerprint string) error {
	switch {
	case p.owed != nil || p.condemned:
		return nil
	case reached:
		p.tally.published()
		p.fingerprint = p.mark.fingerprint
		return p.pass(ctx, snap, lsn, fingerprint)
	case p.mark == nil:
		return p.take(snap, lsn, fingerprint)
	}
	return nil
}

// beginStreaming ends the backlog: all of it is settled.
func (p *progress) beginStreaming(ctx context.Context) error {
	crashpoint("before phase streaming")
	sent := time.Now()
	tag, err := p.db.Exec(ctx, `UPDATE `+p.db.relays()+` SET phase = 'streaming', published = base, cutoff = NULL, cursor = NULL,
 paid_base = NULL, paid_cursor = NULL, position = coalesce($4, position), write_seq = write_seq + 1, updated_at = clock_timestamp() WHERE phase = 'backlog' AND `+guard,
		p.relay.cfg.Slot, p.lead.epoch, p.lead.pid, p.position())
	switch {
	case err != nil:
		return fmt.Errorf("begin to stream: %w", err)
	case tag.RowsAffected() == 0:
		return errNotLeading
	}
	crashpoint("after phase streaming")
	p.sent = sent
	p.relay.lease.renew(sent)
	close(p.owed.over)
	p.owed = nil
	return nil
}

// last is the last write of a session, after run has returned. released says
// that the sink holds nothing any more and gets nothing any more.
func (p *progress) last(ctx context.Context, released bool) error {
	if p.db == nil {
		return errors.New("no ordinary connection")
	}
	if released {
		p.relay.lease.end()
	}
	err := p.write(ctx, LSN(p.relay.settledLSN.Load()), released)
	if errors.Is(err, errLeftOut) || errors.Is(err, errYield) {
		return nil // the next session sees to it
	}
	return err
}

func (p *progress) close() {
	if p.db != nil {
		p.db.close()
	}
}
