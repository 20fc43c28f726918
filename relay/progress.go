package relay

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// contract is the version of the tables that this relay writes.
const contract = 1

// Phases of a progress row.
const (
	phaseCreating  = "creating"  // a slot is about to be made; one of that name was never streamed from
	phaseStreaming = "streaming" // everything before the slot is published
)

// progressRow is what outbox.relays says of our slot.
type progressRow struct {
	contract   int
	phase      string
	systemID   string
	timeline   int32
	epoch      int64
	generation int64
	confirmed  LSN // flush is never reported above this
}

func parseLSN(s string) (LSN, error) { return pglogrepl.ParseLSN(s) }

// progressRow reads the row of our slot; nil if there is none.
func (db *database) progressRow(ctx context.Context) (*progressRow, error) {
	var row progressRow
	var confirmed string
	err := db.QueryRow(ctx, `SELECT contract, phase, system_id, timeline, epoch, generation, coalesce(confirmed_lsn, '0/0')::text
FROM `+db.relays()+` WHERE slot = $1`, db.relay.cfg.Slot).
		Scan(&row.contract, &row.phase, &row.systemID, &row.timeline, &row.epoch, &row.generation, &confirmed)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, db.relay.statementError("read the progress row", err)
	}
	row.confirmed, err = parseLSN(confirmed)
	return &row, err
}

// guard makes a statement on the progress row prove that it runs on the server
// that feeds us and that we still lead: a multi-host address or a pooler may
// lead the ordinary connection elsewhere, and a newer leader raises the epoch.
// It takes $1 = slot, $2 = epoch, $3 = our walsender's pid.
const guard = `slot = $1 AND epoch = $2 AND NOT pg_is_in_recovery()
AND EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1 AND active_pid = $3)`

// errNotLeading ends a session whose guard failed.
var errNotLeading = errors.New("the progress row is not ours any more: another relay leads, or the connection leads to another server")

// leadership is what taking the slot gave us.
type leadership struct {
	epoch, generation int64
	pid               uint32 // of our walsender
	confirmed         LSN    // as the row had it
}

// lead raises the epoch, after the slot was taken and before the first Publish.
func (db *database) lead(ctx context.Context, row *progressRow, pid uint32, timeline int32, history string, timeout time.Duration) (leadership, error) {
	l := leadership{pid: pid, confirmed: row.confirmed}
	cfg := db.relay.cfg
	err := db.QueryRow(ctx, `UPDATE `+db.relays()+` SET epoch = epoch + 1, write_seq = write_seq + 1, contract = $4,
 generation = generation + CASE WHEN timeline <> $5 THEN 1 ELSE 0 END, timeline = $5, history = $6, options_hash = $9, delivery = 'at-least-once',
 instance = $7, timeout_ms = $8, released = false, stuck_since = NULL, updated_at = clock_timestamp()
WHERE `+guard+` RETURNING epoch, generation`,
		cfg.Slot, row.epoch, pid, contract, timeline, history, cfg.Instance, timeout.Milliseconds(), db.relay.optionsHash()).Scan(&l.epoch, &l.generation)
	if errors.Is(err, pgx.ErrNoRows) {
		return l, errNotLeading
	}
	if err != nil {
		return l, db.relay.statementError("take the leadership", err)
	}
	return l, nil
}

// progress writes the row ahead of what the stream confirms. It has a goroutine
// and the ordinary connection to itself; with the stream it shares atomics only.
type progress struct {
	relay   *Relay
	db      *database // nil while disconnected
	lead    leadership
	segment LSN // wal_segment_size in bytes
}

// progressInterval is how often at most the row is written while rows flow.
const progressInterval = time.Second

// run writes until ctx ends or the leadership does.
func (p *progress) run(ctx context.Context) error {
	for p.listen(ctx); ctx.Err() == nil; p.listen(ctx) {
		if p.db == nil {
			continue
		}
		switch err := p.writeIfDue(ctx); {
		case errors.Is(err, errNotLeading):
			return err
		case err != nil:
			p.disconnected(err)
		}
	}
	return nil
}

// listen spends one interval on the connection, reading it, so that the
// server's farewell (57P01 on a fast shutdown) is heard at once: while the
// budget is full nobody reads the replication connection, and the walsender,
// blocked in its send, can tell us nothing there.
func (p *progress) listen(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, progressInterval)
	defer cancel()
	if p.db == nil {
		p.reconnect(ctx)
	}
	for p.db != nil && ctx.Err() == nil {
		if _, err := p.db.WaitForNotification(ctx); err != nil && ctx.Err() == nil && !pgconn.Timeout(err) {
			p.disconnected(err)
		}
	}
	<-ctx.Done()
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

// writeIfDue writes the row when rows were settled since the last write, and on
// an idle database only when a whole WAL segment lies between, so that the
// relay's own writes do not keep the server awake.
func (p *progress) writeIfDue(ctx context.Context) error {
	r := p.relay
	settled, durable := LSN(r.settledLSN.Load()), LSN(r.durable.Load())
	if LSN(r.rowsEnd.Load()) > durable || settled > durable && settled-durable >= p.segment {
		return p.write(ctx, settled, false)
	}
	return nil
}

// write commits confirmed_lsn. Only then may a status carry it: a slot that is
// ahead of the row proves that somebody else has moved it.
func (p *progress) write(ctx context.Context, confirmed LSN, released bool) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), statementTimeout)
	defer cancel()
	tag, err := p.db.Exec(ctx, `UPDATE `+p.db.relays()+` SET confirmed_lsn = $4::text::pg_lsn, write_seq = write_seq + 1,
 released = $5, updated_at = clock_timestamp() WHERE `+guard,
		p.relay.cfg.Slot, p.lead.epoch, p.lead.pid, confirmed.String(), released)
	switch {
	case err != nil:
		p.relay.metrics.writes.WithLabelValues("error").Inc()
		return fmt.Errorf("write the progress row: %w", err)
	case tag.RowsAffected() == 0:
		p.relay.metrics.writes.WithLabelValues("fenced").Inc()
		return errNotLeading
	}
	p.relay.metrics.writes.WithLabelValues("ok").Inc()
	p.relay.durable.Store(uint64(confirmed))
	return nil
}

// last is the last write of a session, after run has returned. released says
// that the sink holds nothing any more.
func (p *progress) last(ctx context.Context, released bool) error {
	if p.db == nil {
		return errors.New("no ordinary connection")
	}
	return p.write(ctx, LSN(p.relay.settledLSN.Load()), released)
}

func (p *progress) close() {
	if p.db != nil {
		p.db.close()
	}
}
