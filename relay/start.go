package relay

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/outrider-cdc/outrider/relay/internal/replication"
)

// candidacy is what was found before a slot is taken. While it stands, the
// advisory lock of db is ours.
type candidacy struct {
	server server
	row    *progressRow // nil: first start
	slot   slotState
}

// standAsCandidate decides whether this relay may take the slot now. It needs
// no replication connection: those count against max_wal_senders, so a standby
// must not hold one.
func (r *Relay) standAsCandidate(ctx context.Context, db *database) (c candidacy, err error) {
	if c.server, err = db.server(ctx); err != nil {
		return c, err
	}
	switch {
	case c.server.inRecovery:
		return c, &waitError{"server_in_recovery", fmt.Errorf("the server is a standby or still in recovery; the relay does not stream from those")}
	case c.server.walLevel != "logical":
		return c, r.walLevel(c.server.walLevel)
	}
	if err := db.schemaThere(ctx); err != nil {
		return c, err
	}
	if c.slot, err = db.slot(ctx); err != nil {
		return c, err
	}
	if err := r.checkHolder(c.slot); err != nil {
		return c, err
	}
	if ok, err := db.lock(ctx); err != nil {
		return c, r.statementError("take the advisory lock", err)
	} else if !ok {
		return c, &standbyError{"a relay that is just starting"}
	}
	// What was seen before the lock may be the work of a relay that held it.
	if c.slot, err = db.slot(ctx); err != nil {
		return c, err
	}
	if err := r.checkHolder(c.slot); err != nil {
		return c, err
	}
	if err := db.publication(ctx, c.server.version); err != nil {
		return c, err
	}
	if c.row, err = db.progressRow(ctx); err != nil {
		return c, err
	}
	return c, r.judge(c)
}

func (r *Relay) checkHolder(s slotState) error {
	switch {
	case !s.exists:
		return nil
	case s.mismatch() != "":
		return r.slotNotOurs(s)
	case s.ActivePID != nil:
		return &standbyError{fmt.Sprintf("%s (pid %d)", s.holder, *s.ActivePID)}
	}
	return nil
}

// judge says whether row and slot fit together. A slot proves nothing about
// what lies before it; only the row does.
func (r *Relay) judge(c candidacy) error {
	if c.row == nil {
		if c.slot.exists {
			return r.slotWithoutRow()
		}
		return nil
	}
	switch {
	case c.row.contract > contract:
		return halt("contract_newer", fmt.Errorf("the progress row was written under contract %d; this relay knows %d", c.row.contract, contract),
			Hint{Say: "run the relay version that wrote it, or a newer one"})
	case c.row.phase == phaseCreating:
		return nil
	case c.row.systemID != c.server.systemID:
		return r.gap("other_system", fmt.Errorf("the progress row was written on system %s, this is %s: the database was restored, moved or upgraded", c.row.systemID, c.server.systemID), c.slot.exists)
	case c.row.phase != phaseStreaming:
		return r.gap("phase_unknown", fmt.Errorf("the progress row is in phase %q, which this relay does not know", c.row.phase), c.slot.exists)
	case !c.slot.exists:
		return r.gap("slot_missing", fmt.Errorf("replication slot %q is gone; rows committed after %s may be unpublished", r.cfg.Slot, c.row.confirmed), false)
	case c.slot.lost():
		return r.gap("slot_lost", fmt.Errorf("replication slot %q was invalidated by the server; rows committed after %s may be unpublished", r.cfg.Slot, c.row.confirmed), true)
	}
	at, err := c.slot.confirmed()
	if err != nil {
		return err
	}
	// Flush is never reported above the row, so a slot ahead of it was moved or made by somebody else.
	if at > c.row.confirmed {
		return r.gap("slot_moved", fmt.Errorf("replication slot %q stands at %s, ahead of the %s that was confirmed: somebody moved it or made it anew", r.cfg.Slot, at, c.row.confirmed), true)
	}
	return nil
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

// makeSlot creates the slot of a first start, under a row in phase creating
// that was committed before: whatever dies in between, a slot beside such a row
// was never streamed from, and is made again.
func (r *Relay) makeSlot(ctx context.Context, db *database, conn *replication.Conn, c *candidacy, timeline int32) error {
	if has, err := db.tableHasRows(ctx); err != nil {
		return err
	} else if has {
		return r.tableNotEmpty()
	}
	_, err := db.Exec(ctx, `INSERT INTO `+db.relays()+` (slot, contract, system_id, timeline, phase, instance) VALUES ($1, $2, $3, $4, 'creating', $5)
ON CONFLICT (slot) DO UPDATE SET system_id = excluded.system_id, timeline = excluded.timeline, instance = excluded.instance, updated_at = clock_timestamp()`,
		r.cfg.Slot, contract, c.server.systemID, timeline, r.cfg.Instance)
	if err != nil {
		return r.statementError("write the progress row", err)
	}
	if c.slot.exists {
		if err := conn.DropSlot(ctx, r.cfg.Slot); err != nil {
			return fmt.Errorf("drop the slot of an unfinished start: %w", err)
		}
	}
	created, err := r.createSlot(ctx, db, conn)
	if err != nil {
		return err
	}
	empty, base, err := db.inSnapshot(ctx, created.Snapshot)
	if err != nil {
		return err
	}
	if !empty {
		if err := conn.DropSlot(ctx, r.cfg.Slot); err != nil {
			return fmt.Errorf("drop the new slot: %w", err)
		}
		return r.tableNotEmpty()
	}
	_, err = db.Exec(ctx, `UPDATE `+db.relays()+` SET phase = 'streaming', generation = generation + 1, write_seq = write_seq + 1,
 base = $2::text::pg_snapshot, published = $2::text::pg_snapshot, base_lsn = $3::text::pg_lsn, confirmed_lsn = $3::text::pg_lsn,
 updated_at = clock_timestamp() WHERE slot = $1 AND phase = 'creating'`, r.cfg.Slot, base, created.ConsistentPoint.String())
	if err != nil {
		return r.statementError("write the progress row", err)
	}
	r.log.Info("replication slot created", "lsn", created.ConsistentPoint.String())
	c.row, err = db.progressRow(ctx)
	return err
}

// createSlot waits for every transaction that had an xid when it began, which
// may take long; meanwhile it names those it waits for.
func (r *Relay) createSlot(ctx context.Context, db *database, conn *replication.Conn) (replication.CreatedSlot, error) {
	type result struct {
		slot replication.CreatedSlot
		err  error
	}
	done := make(chan result, 1)
	go func() {
		slot, err := conn.CreateSlot(ctx, r.cfg.Slot, true)
		done <- result{slot, err}
	}()
	ticker := time.NewTicker(2 * time.Second)
	defer ticker.Stop()
	for {
		select {
		case res := <-done:
			if sqlState(res.err) == stateConfigurationLimit {
				return res.slot, halt("slots_exhausted", fmt.Errorf("create replication slot: %w", res.err),
					Hint{Say: "allow more, and restart the server; or drop a slot that nobody uses", SQL: "ALTER SYSTEM SET max_replication_slots = 20;"})
			}
			if res.err != nil {
				return res.slot, r.connectError(fmt.Errorf("create replication slot: %w", res.err))
			}
			return res.slot, nil
		case <-ticker.C:
			r.turn()
			if names, err := db.blockers(ctx); err == nil && names != "" {
				r.setRole(RoleWaiting, "transactions", fmt.Errorf("slot creation waits for transactions to end: %s", names))
			}
		}
	}
}

func (db *database) tableHasRows(ctx context.Context) (has bool, err error) {
	err = db.QueryRow(ctx, `SELECT EXISTS (SELECT FROM `+db.relay.tableSQL()+`)`).Scan(&has)
	if err != nil {
		return false, db.relay.statementError("look into the outbox table", err)
	}
	return has, nil
}

// inSnapshot looks at the table exactly as it was where the slot begins: a row
// visible there will not be streamed, every other will.
func (db *database) inSnapshot(ctx context.Context, name string) (empty bool, base string, err error) {
	tx, err := db.Begin(ctx)
	if err != nil {
		return false, "", fmt.Errorf("read in the slot's snapshot: %w", err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	if _, err := tx.Exec(ctx, `SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SET TRANSACTION SNAPSHOT `+literal(name)); err != nil {
		return false, "", fmt.Errorf("import the slot's snapshot: %w", err)
	}
	err = tx.QueryRow(ctx, `SELECT NOT EXISTS (SELECT FROM `+db.relay.tableSQL()+`), pg_current_snapshot()::text`).Scan(&empty, &base)
	if err != nil {
		return false, "", db.relay.statementError("read in the slot's snapshot", err)
	}
	return empty, normalSnapshot(base), nil
}

// normalSnapshot lifts xmax to xmin. An exported snapshot may come out with
// xmin above xmax, and type pg_snapshot refuses its own text then.
func normalSnapshot(s string) string {
	parts := strings.SplitN(s, ":", 3)
	if len(parts) != 3 {
		return s
	}
	low, errLow := strconv.ParseUint(parts[0], 10, 64)
	high, errHigh := strconv.ParseUint(parts[1], 10, 64)
	if errLow == nil && errHigh == nil && low > high {
		parts[1] = parts[0]
	}
	return strings.Join(parts, ":")
}
