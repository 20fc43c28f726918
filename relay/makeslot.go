package relay

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/outrider-cdc/outrider/relay/internal/replication"
)

// makeSlot makes the slot under a row in phase creating that was committed
// before: whatever dies in between, a slot beside such a row was never streamed
// from, and is made again. It leaves the row in phase backlog.
func (r *Relay) makeSlot(ctx context.Context, db *database, conn *replication.Conn, c *candidacy, p plan) error {
	if c.readable && p.cutoff == "" {
		if err := db.restamp(ctx); err != nil {
			return err
		}
	}
	if err := db.creating(ctx, c, p); err != nil {
		return err
	}
	r.metrics.recoveries.WithLabelValues(p.reason).Inc()
	crashpoint("after phase creating")
	if c.slot.exists {
		if err := conn.DropSlot(ctx, r.cfg.Slot); err != nil {
			return fmt.Errorf("drop the slot that is made anew: %w", err)
		}
		crashpoint("after the old slot was dropped")
	}
	created, err := r.createSlot(ctx, db, conn)
	if err != nil {
		return err
	}
	crashpoint("after the slot was created")
	base, err := db.inSnapshot(ctx, created.Snapshot, c.readable)
	if errors.Is(err, errNotEmpty) {
		if err := conn.DropSlot(ctx, r.cfg.Slot); err != nil {
			return fmt.Errorf("drop the new slot: %w", err)
		}
		return r.tableNotEmpty()
	}
	if err != nil {
		return err
	}
	// Positions of the backlog lie above everything published before, and below everything that is streamed.
	tag, err := db.Exec(ctx, `UPDATE `+db.relays()+` SET phase = 'backlog', generation = generation + 1, write_seq = write_seq + 1,
 base = $2::text::pg_snapshot, cursor = 0, confirmed_lsn = $3::text::pg_lsn, updated_at = clock_timestamp(),
 base_lsn = (SELECT restart_lsn FROM pg_replication_slots WHERE slot_name = $1) WHERE slot = $1 AND phase = 'creating'`,
		r.cfg.Slot, base, created.ConsistentPoint.String())
	if err != nil {
		return r.statementError("write the progress row", err)
	}
	if tag.RowsAffected() == 0 {
		return errNotLeading
	}
	crashpoint("after phase backlog")
	r.log.Info("replication slot created", "lsn", created.ConsistentPoint.String(), "reason", p.reason)
	c.row, err = db.progressRow(ctx)
	return err
}

// creating commits that a slot is about to be made, and what will count as
// published. No transaction id may stay open while it is made.
func (db *database) creating(ctx context.Context, c *candidacy, p plan) error {
	r := db.relay
	cutoff := "$6::text::pg_snapshot"
	if p.nothing {
		cutoff = "coalesce($6::text::pg_snapshot, pg_current_snapshot())"
	}
	var epoch int64
	if c.row != nil {
		epoch = c.row.epoch
	}
	tag, err := db.Exec(ctx, `INSERT INTO `+db.relays()+` AS r (slot, contract, system_id, timeline, history, phase, instance, cutoff, paid_base, paid_cursor, fingerprint, generation)
VALUES ($1, $2, $3, $4, $5, 'creating', $7, `+cutoff+`, $8::text::pg_snapshot, $9, $10, $12)
ON CONFLICT (slot) DO UPDATE SET phase = 'creating', system_id = excluded.system_id, timeline = excluded.timeline, history = excluded.history,
 cutoff = excluded.cutoff, paid_base = excluded.paid_base, paid_cursor = excluded.paid_cursor, fingerprint = excluded.fingerprint,
 base = NULL, cursor = NULL, write_seq = r.write_seq + 1, generation = r.generation + CASE WHEN r.timeline <> excluded.timeline THEN 1 ELSE 0 END
WHERE r.epoch = $11`,
		r.cfg.Slot, contract, c.here.systemID, c.here.timeline, c.here.history, orNull(p.cutoff), r.cfg.Instance,
		orNull(p.paidBase), orNull(p.paidCursor), c.fingerprint, epoch, c.published)
	if err != nil {
		return r.statementError("write the progress row", err)
	}
	if tag.RowsAffected() == 0 {
		return errNotLeading
	}
	return nil
}

func orNull[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}

// adopt notes a slot that another tool has made, with everything before it published.
func (r *Relay) adoptSlot(ctx context.Context, db *database, c *candidacy) error {
	at, err := c.slot.confirmed()
	if err != nil {
		return err
	}
	_, err = db.Exec(ctx, `INSERT INTO `+db.relays()+` (slot, contract, system_id, timeline, history, phase, instance, generation, confirmed_lsn, fingerprint)
VALUES ($1, $2, $3, $4, $5, 'streaming', $6, $9, $7::text::pg_lsn, $8)`,
		r.cfg.Slot, contract, c.here.systemID, c.here.timeline, c.here.history, r.cfg.Instance, at.String(), c.fingerprint, c.published+1)
	if err != nil {
		return r.statementError("write the progress row", err)
	}
	r.log.Info("replication slot adopted", "lsn", at.String())
	c.row, err = db.progressRow(ctx)
	return err
}

// restamp gives rows that carry transaction ids of another server, as after a
// restore, one of this server: they would be visible in no snapshot here, so
// never published, and never deleted. What a writer of this server has committed
// is visible in the statement's own snapshot, hence never touched.
func (db *database) restamp(ctx context.Context) error {
	const foreign = ` WHERE tx::text::bigint >= pg_snapshot_xmin(pg_current_snapshot())::text::bigint AND NOT pg_visible_in_snapshot(tx, pg_current_snapshot())`
	r := db.relay
	var any bool
	if err := db.QueryRow(ctx, `SELECT EXISTS (SELECT FROM `+r.tableSQL()+foreign+`)`).Scan(&any); err != nil {
		return r.statementError("look for rows of another server", err)
	}
	if !any {
		return nil
	}
	tag, err := db.Exec(ctx, `UPDATE `+r.tableSQL()+` SET tx = pg_current_xact_id()`+foreign)
	if err != nil {
		return r.statementError("give rows of another server a transaction id of this one", err)
	}
	r.log.Warn("rows carried transaction ids of another server and were given one of this server", "rows", tag.RowsAffected())
	return nil
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

var errNotEmpty = errors.New("the table holds rows that cannot be read in order")

// inSnapshot returns where the slot begins as a snapshot: a row visible there
// will not be streamed, every other will. As a value it can be used long after
// the exported snapshot is gone. A table whose rows carry neither tx nor seq
// must have none.
func (db *database) inSnapshot(ctx context.Context, name string, readable bool) (base string, err error) {
	tx, err := db.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
	if err != nil {
		return "", fmt.Errorf("read in the slot's snapshot: %w", err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	if _, err := tx.Exec(ctx, `SET TRANSACTION SNAPSHOT `+literal(name)); err != nil {
		return "", fmt.Errorf("import the slot's snapshot: %w", err)
	}
	if err := tx.QueryRow(ctx, `SELECT pg_current_snapshot()::text`).Scan(&base); err != nil {
		return "", fmt.Errorf("read in the slot's snapshot: %w", err)
	}
	if !readable {
		var rows bool
		if err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM `+db.relay.tableSQL()+`)`).Scan(&rows); err != nil {
			return "", db.relay.statementError("read in the slot's snapshot", err)
		}
		if rows {
			return "", errNotEmpty
		}
	}
	return normalSnapshot(base), nil
}
