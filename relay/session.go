package relay

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/outrider-cdc/outrider/relay/internal/replication"
)

// session is one leadership: look, take the slot, begin the sink, stream. It
// returns nil after a clean stop.
func (r *Relay) session(ctx context.Context) error {
	r.turn()
	db, err := r.openDatabase(ctx)
	if err != nil {
		return err
	}
	p := &progress{relay: r, db: db}
	defer p.close()
	c, err := r.awaitSlot(ctx, db)
	if err != nil {
		return err
	}
	if err := r.standAsCandidate(ctx, db, &c); err != nil {
		return err
	}
	p.segment, p.audited, p.mode = LSN(c.server.segmentSize), c.keeps, c.mode
	conn, err := r.dialReplication(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	if c.here, err = r.identify(ctx, conn, c.server); err != nil {
		return err
	}
	if err := r.peek(ctx, &c); err != nil {
		return err
	}
	plan, err := r.judge(&c)
	switch {
	case err != nil:
		return err
	case plan.make:
		err = r.makeSlot(ctx, db, conn, &c, plan)
	case plan.adopt:
		err = r.adoptSlot(ctx, db, &c)
	default:
		c.row.confirmed = plan.confirmed
	}
	if err != nil {
		return err
	}
	if p.lead, err = r.takeSlot(ctx, db, conn, &c); err != nil {
		return err
	}
	return r.leadership(ctx, conn, p, &c)
}

// identify asks the replication connection which server it leads to.
func (r *Relay) identify(ctx context.Context, conn *replication.Conn, s server) (h here, err error) {
	system, err := conn.IdentifySystem(ctx)
	if err != nil {
		return h, fmt.Errorf("identify system: %w", err)
	}
	if system.ID != s.systemID {
		return h, errOtherServer
	}
	history, err := conn.TimelineHistory(ctx, system.Timeline)
	if err != nil {
		return h, fmt.Errorf("read timeline history: %w", err)
	}
	return here{system.ID, system.Timeline, history}, nil
}

func (r *Relay) dialReplication(ctx context.Context) (*replication.Conn, error) {
	url, err := r.cfg.DatabaseURL.Reveal()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	conn, err := replication.Dial(ctx, replication.Config{
		URL: url, ApplicationName: "outrider/" + r.cfg.Instance,
		WALSenderTimeout: r.cfg.WALSenderTimeout, Logger: r.log,
	})
	switch {
	case replication.IsPooler(err):
		return nil, halt("pooler", fmt.Errorf("replication connection: %w", err),
			Hint{Say: "OUTRIDER_DATABASE_URL leads to a pooler; give the server's own address"})
	case errors.Is(err, replication.ErrNoTimeout):
		return nil, halt("wal_sender_timeout", fmt.Errorf("replication connection: %w", err),
			Hint{Say: "let the role have a timeout", SQL: "ALTER ROLE " + r.quotedUser() + " RESET wal_sender_timeout;"})
	case err != nil:
		return nil, r.connectError(fmt.Errorf("replication connection: %w", err))
	}
	return conn, nil
}

// takeSlot starts replication, from where on the slot itself is the lock, and
// gives the advisory lock back.
func (r *Relay) takeSlot(ctx context.Context, db *database, conn *replication.Conn, c *candidacy) (l leadership, err error) {
	crashpoint("before replication starts")
	if err := conn.Start(ctx, r.cfg.Slot, r.cfg.Publication, c.mode.messages); err != nil {
		if sqlState(err) == stateObjectInUse {
			return l, &standbyError{"another relay"}
		}
		return l, r.streamError(fmt.Errorf("start replication: %w", err))
	}
	crashpoint("after replication started")
	if err := db.unlock(ctx); err != nil {
		return l, r.statementError("give back the advisory lock", err)
	}
	if l, err = db.lead(ctx, c.row, c.mode, c.here, conn.BackendPID(), conn.WALSenderTimeout()); err != nil {
		return l, err
	}
	crashpoint("after the epoch was raised")
	switch {
	case r.history.epoch != c.row.epoch: // another relay led since: it has sent rows that we do not know of
		r.history = history{}
	case r.started != c.server.started:
		// Its storage may have been set back by less than the row tells: of what we remember, only what the row knows is sure.
		r.history, c.row.leaseLeft = history{}, 0
	default:
		c.row.leaseLeft = 0 // our own
	}
	switch {
	case c.row.released || c.row.epoch == 0:
		c.row.leaseLeft = 0
	case c.row.timeline != c.here.timeline && c.row.leaseLeft > 0: // a clock of another server, and a row that may be behind
		c.row.leaseLeft = c.row.timeout
	}
	r.history.epoch, r.former, r.started = l.epoch, c.here, c.server.started
	return l, nil
}

// history names what positions are comparable under.
type history struct {
	systemID   string
	timeline   int32
	options    string
	epoch      int64 // of the leadership
	generation int64
}

func (r *Relay) optionsHash() string {
	sum := sha256.Sum256([]byte("proto 1, binary\x00" + r.cfg.Publication + "\x00" + r.cfg.Table))
	return hex.EncodeToString(sum[:8])
}

// leadership runs from the taken slot to its end.
func (r *Relay) leadership(ctx context.Context, conn *replication.Conn, p *progress, c *candidacy) error {
	r.sessions.Add(1)
	r.metrics.session.Inc()
	r.mu.Lock()
	r.state.SystemID, r.state.Timeline = c.here.systemID, c.here.timeline
	r.state.Epoch, r.state.Generation = p.lead.epoch, p.lead.generation
	r.mu.Unlock()
	source := r.source(c, p.lead)
	var err error
	if c.verdicts, err = p.db.verdicts(ctx, source.String(), p.lead, c.row.phase == phaseStreaming); err != nil {
		return err
	}
	if !waits(c.verdicts) || r.Status().Role != RoleHalted { // else it stays halted until the row passes
		r.setRole(RoleLeader, "", nil)
	}

	r.durable.Store(uint64(p.lead.confirmed))
	r.settledLSN.Store(uint64(p.lead.confirmed))
	r.rowsEnd.Store(0)
	s := newStream(r, conn, p.lead.epoch)
	s.progress, p.stream, p.tally = p, s, s.tally
	p.wake, p.written = make(chan struct{}, 1), make(chan struct{}, 1)
	p.fingerprint = c.row.fingerprint
	var owed *debt
	if c.row.phase == phaseBacklog {
		owed = newDebt(c.row)
		owed.nothing = !c.readable
	}
	p.owed, p.paid, p.sent = owed, c.row.cursor, time.Now()
	s.source = []byte(source.String())

	writing, stop := context.WithCancel(context.WithoutCancel(ctx))
	written := make(chan error, 1)
	go func() {
		err := p.run(writing)
		s.fail(err)
		written <- err
	}()
	err = s.judge(ctx, s.lead(ctx, source, c, owed))
	stop()
	if werr := <-written; werr != nil && err == nil {
		err = werr
	}
	r.unseen()
	clean := ctx.Err() != nil && (err == nil || errors.Is(err, context.Canceled))
	if errors.Is(err, errNotLeading) || errors.Is(err, errServerDown) {
		return err
	}
	if ferr := s.farewell(p, clean); clean {
		return ferr
	}
	return err
}

// lead is what a leader does, in order.
func (s *stream) lead(ctx context.Context, source Source, c *candidacy, owed *debt) error {
	r := s.relay
	err := s.awaitFormer(ctx, c.row.leaseLeft)
	if err != nil {
		return err
	}
	cp, err := s.begin(ctx, source)
	if err == nil {
		err = r.judgeCheckpoint(c, cp, s.progress.lead)
	}
	if err != nil {
		return err
	}
	crashpoint("after the sink has begun")
	r.quarantine.begin(string(s.source), c.verdicts, r.refused.take()) // the sink has settled all of the session before
	r.refused = &s.flight.refused
	if owed != nil {
		r.mu.Lock()
		r.flight = s.flight
		r.mu.Unlock()
		owed.resume(c, cp)
		if err := s.backlog(ctx, owed); errors.Is(err, errStopping) {
			return s.drain()
		} else if err != nil {
			return err
		}
	}
	r.adopt(s, s.progress.lead.confirmed, history{source.SystemID, source.Timeline, r.optionsHash(), source.Epoch, source.Generation})
	s.resume(c, cp)
	tending, stop := context.WithCancel(ctx)
	var beside sync.WaitGroup
	if c.keeps || c.mode.readable && c.mode.ours { // also rows of a time when they were kept
		beside.Go(func() { (&janitor{relay: r, lead: s.progress.lead, systemID: source.SystemID}).run(tending) })
	}
	beside.Go(func() { (&scheduler{relay: r}).run(tending) })
	defer beside.Wait()
	defer stop()
	return s.run(ctx)
}

// adopt lets the ledger go on where it may, and start anew where it may not.
// What the progress row says is settled holds either way: the row lies in the
// same log, behind what it speaks of.
func (r *Relay) adopt(s *stream, confirmed LSN, now history) {
	if r.history == now && !r.exactlyOnce() {
		r.ledger.restart(s.flight)
		r.ledger.settled = max(r.ledger.settled, confirmed)
	} else {
		r.ledger.startAnew(s.flight, confirmed)
	}
	r.history = now
	s.adopted = true
	r.settledLSN.Store(uint64(r.ledger.settled))
	r.mu.Lock()
	r.flight = s.flight
	r.mu.Unlock()
}

// unseen clears what only a leader knows.
func (r *Relay) unseen() {
	r.serverDown.Store(false)
	r.unconfirmed.Store(0)
}

// farewell is the end of a session whose connections may still be good: nothing
// is read any more, and what the sink has settled is noted: progress row, final
// status, CopyDone, in this order, so that the slot is not ahead of the row. An
// end that is not clean saves the next start some duplicates this way, and may
// fail.
func (s *stream) farewell(p *progress, clean bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), statementTimeout)
	defer cancel()
	if err := p.last(ctx, clean && s.flight.empty()); err != nil {
		return fmt.Errorf("stop: %w", err)
	}
	if err := s.status(); err != nil {
		return fmt.Errorf("stop: final status: %w", err)
	}
	end, cancelEnd := context.WithTimeout(ctx, time.Second)
	defer cancelEnd()
	if err := s.conn.End(end); err != nil {
		s.relay.log.Debug("replication connection did not end politely", "error", err)
	}
	return nil
}
