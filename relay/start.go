package relay

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// candidacy is what was found before a slot is taken. While it stands, the
// advisory lock of db is ours.
type candidacy struct {
	server      server
	here        here
	row         *progressRow // nil: first start
	slot        slotState
	mode        mode
	keeps       bool   // rows stay in the table, so that a lost slot can be recovered
	readable    bool   // the table has tx and seq, so that a backlog can be read
	fingerprint string // of publication and table, now
	published   int64  // generation of the checkpoint, if there is one
	verdicts    []verdict
}

// plan is what has to be done before the slot can be taken.
type plan struct {
	make       bool   // make the slot, in place of one that stands
	adopt      bool   // take the slot over as it stands
	reason     string // why, in a metric and the log
	cutoff     string // rows visible there are published already
	paidBase   string // and of those visible here, the ones up to paidCursor
	paidCursor int64
	nothing    bool // everything in the table counts as published
	confirmed  LSN  // where the slot may stand above the row
}

// look finds out whether the slot could be taken. It needs no replication
// connection: those count against max_wal_senders, so a standby must not hold one.
func (r *Relay) look(ctx context.Context, db *database) (c candidacy, err error) {
	if c.server, err = db.server(ctx); err != nil {
		return c, err
	}
	switch {
	case c.server.inRecovery:
		return c, &waitError{"server_in_recovery", errors.New("the server is a standby or still in recovery; the relay does not stream from those")}
	case c.server.walLevel != "logical":
		return c, r.walLevel(c.server.walLevel)
	}
	if err := db.schemaThere(ctx); err != nil {
		return c, err
	}
	if c.slot, err = db.slot(ctx); err != nil {
		return c, err
	}
	return c, r.checkHolder(ctx, db, c.slot)
}

// standAsCandidate takes the advisory lock, unless another relay is about to
// take the slot, and reads what there is to be known before.
func (r *Relay) standAsCandidate(ctx context.Context, db *database, c *candidacy) (err error) {
	if err := r.syncNames(ctx, db, c.server.syncNames); err != nil {
		return err
	}
	if ok, err := db.lock(ctx); err != nil {
		return r.statementError("take the advisory lock", err)
	} else if !ok {
		return &standbyError{"a relay that is just starting"}
	}
	// What was seen before the lock may be the work of a relay that held it.
	if c.slot, err = db.slot(ctx); err != nil {
		return err
	}
	if err := r.checkHolder(ctx, db, c.slot); err != nil {
		return err
	}
	if err := db.publication(ctx, c.server.version); err != nil {
		return err
	}
	if c.mode, err = db.mode(ctx); err != nil {
		return err
	}
	if c.fingerprint, err = db.fingerprint(ctx); err != nil {
		return err
	}
	if c.row, err = db.progressRow(ctx); err != nil {
		return err
	}
	c.readable, c.keeps = c.mode.readable, c.mode.keeps(c.row)
	if c.row != nil && c.row.offered != "" && c.row.offered != r.cfg.Instance {
		return &standbyError{"nobody yet; " + c.row.offered + " reaches the sink and is let ahead"}
	}
	return nil
}

func (r *Relay) checkHolder(ctx context.Context, db *database, s slotState) error {
	switch {
	case !s.exists:
		return r.yielded()
	case s.mismatch() != "":
		return r.slotNotOurs(s)
	case s.ActivePID != nil:
		r.offer(ctx, db)
		return &standbyError{fmt.Sprintf("%s (pid %d)", s.holder, *s.ActivePID)}
	}
	return r.yielded()
}

// judge says what row and slot mean together. A slot proves nothing about what
// lies before it; only the row does.
func (r *Relay) judge(c *candidacy) (plan, error) {
	if c.row == nil {
		if err := r.judgeRowless(c); err != nil {
			return plan{}, err
		}
		return r.judgeStranger(c)
	}
	row := c.row
	switch {
	case row.contract > contractMessages:
		return plan{}, halt("contract_newer", fmt.Errorf("the progress row was written under contract %d; this relay knows %d", row.contract, contractMessages),
			Hint{Say: "run the relay version that wrote it, or a newer one"})
	case row.epoch > 0 && (row.systemID != c.here.systemID || c.foreignXIDs()):
		return r.judgeIdentity(c)
	}
	if err := r.judgeServer(c); err != nil {
		return plan{}, err
	}
	if row.phase == phaseCreating {
		return plan{make: true, reason: "unfinished", cutoff: row.cutoff, paidBase: row.paidBase, paidCursor: row.paidCursor}, nil
	}
	switch {
	case !c.slot.exists:
		return r.recoverFrom(c, "slot_missing", fmt.Errorf("replication slot %q is gone", r.cfg.Slot))
	case c.slot.lost():
		return r.recoverFrom(c, "slot_lost", fmt.Errorf("replication slot %q was invalidated by the server", r.cfg.Slot))
	}
	at, err := c.slot.confirmed()
	if err != nil {
		return plan{}, err
	}
	if at > row.confirmed {
		// A standby copies the slot's position on its own, maybe a moment after the row. Only the former leader can have moved it then.
		left, other := c.here.leftAt(row.timeline)
		if !c.slot.Synced || !other || at > left {
			// Flush is never reported above the row.
			return r.recoverFrom(c, "slot_moved", fmt.Errorf("replication slot %q stands at %s, ahead of the %s that was confirmed: somebody moved it or made it anew", r.cfg.Slot, at, row.confirmed))
		}
	}
	if fingerprintChanged(row.fingerprint, c.fingerprint) {
		return r.recoverFrom(c, "publication_changed", errors.New("publication or table changed, or rows were found that the stream did not bring"))
	}
	return plan{confirmed: max(at, row.confirmed)}, nil
}

// judgeStranger: there is no row.
func (r *Relay) judgeStranger(c *candidacy) (plan, error) {
	switch {
	case !c.slot.exists:
		return plan{make: true, reason: "first_start"}, nil
	case r.cfg.AdoptSlot == "stream" && !c.slot.lost():
		return plan{adopt: true}, nil
	case r.cfg.AdoptSlot == "backfill" && c.keeps:
		return plan{make: true, reason: "adopted"}, nil
	}
	return plan{}, r.slotWithoutRow(c)
}

// recoverFrom decides what follows a break of the stream: everything that may
// be unpublished is in the table, or it is gone.
func (r *Relay) recoverFrom(c *candidacy, reason string, err error) (plan, error) {
	p := plan{make: true, reason: reason}
	token := r.token("gap", c.row, reason)
	switch {
	case r.cfg.AcceptGap == token:
		p.nothing = true
	case !c.keeps || r.cfg.Recovery == "halt":
		return p, r.gap(c, reason, token, err)
	case c.row.phase == phaseStreaming:
		p.cutoff = c.row.published
	default: // the backlog was not all published: what was, stays paid, so that every round makes progress
		p.cutoff, p.paidBase, p.paidCursor = c.row.cutoff, c.row.base, c.row.cursor
		if c.row.paidCursor > c.row.cursor {
			p.paidBase, p.paidCursor = c.row.paidBase, c.row.paidCursor
		}
	}
	r.log.Error("the stream is broken", "reason", reason, "error", err, "confirmed_lsn", c.row.confirmed.String(), "recover", !p.nothing)
	return p, nil
}

func (db *database) schemaThere(ctx context.Context) error {
	var relays, table bool
	err := db.QueryRow(ctx, `SELECT to_regclass($1) IS NOT NULL, to_regclass($2) IS NOT NULL`, db.relays(), db.relay.tableSQL()).Scan(&relays, &table)
	switch {
	case err != nil:
		return db.relay.statementError("look for the tables", err)
	case !relays:
		return db.relay.noSchema("table " + db.relay.cfg.Schema + ".relays")
	case !table:
		return db.relay.noSchema("table " + db.relay.cfg.Table)
	}
	return nil
}

func quote(names ...string) string { return pgx.Identifier(names).Sanitize() }

// source is what the sink is told of the leadership.
func (r *Relay) source(c *candidacy, l leadership) Source {
	return Source{
		SystemID: c.here.systemID, Timeline: c.here.timeline, Slot: r.cfg.Slot,
		Generation: l.generation, Epoch: l.epoch, Report: r.report,
		Lease:    func() bool { return r.lease.holds(l.epoch) },
		Delivery: r.delivery(), WriteSeq: r.writeSeq.Load, Options: r.optionsHash(), History: c.here.history,
	}
}
