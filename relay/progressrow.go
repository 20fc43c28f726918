package relay

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
)

// Versions of the tables, by what the relay that leads understands. The view
// that emits messages trusts in a row of the second; a relay that knows only the
// first refuses to follow on one, rather than to pass the messages over.
const (
	contract         = 1
	contractMessages = 2 // it asks for logical messages
)

// Phases of a progress row. A slot proves nothing about what lies before it:
// the row is written before the slot is made, and a slot is streamed from only
// when the row says so.
const (
	phaseCreating  = "creating"  // a slot is about to be made; one of that name was never streamed from
	phaseBacklog   = "backlog"   // the slot stands; rows visible in base and not in cutoff are owed
	phaseStreaming = "streaming" // what is visible in published is downstream, all else lies ahead of the slot
)

// progressRow is what outbox.relays says of our slot. Snapshots are the text of
// pg_snapshot, "" for NULL.
type progressRow struct {
	contract    int
	phase       string
	delivery    string // of the last leadership
	systemID    string
	timeline    int32
	history     string
	epoch       int64
	writeSeq    int64
	generation  int64
	confirmed   LSN // flush is never reported above this
	base        string
	baseLSN     LSN
	cutoff      string
	cursor      int64
	paidBase    string
	paidCursor  int64
	published   string
	position    string // of the newest row that is downstream, see reached
	fingerprint string
	released    bool
	offered     string        // standby that a stuck leader lets ahead
	timeout     time.Duration // wal_sender_timeout of the leader
	leaseLeft   time.Duration // how long it may still write to the sink, by the server's clock
}

func parseLSN(s string) (LSN, error) { return pglogrepl.ParseLSN(s) }

// progressRow reads the row of our slot; nil if there is none.
func (db *database) progressRow(ctx context.Context) (*progressRow, error) {
	var row progressRow
	var confirmed, baseLSN string
	var timeout, left int64
	err := db.QueryRow(ctx, `SELECT contract, phase, delivery, system_id, timeline, history, epoch, write_seq, generation,
 coalesce(confirmed_lsn, '0/0')::text, coalesce(base::text, ''), coalesce(base_lsn, '0/0')::text, coalesce(cutoff::text, ''),
 coalesce(cursor, 0), coalesce(paid_base::text, ''), coalesce(paid_cursor, 0), coalesce(published::text, ''), coalesce(position, ''), fingerprint,
 released, CASE WHEN stuck_since IS NOT NULL AND candidate_at > clock_timestamp() - interval '10 s' THEN candidate ELSE '' END, timeout_ms, greatest(0, timeout_ms - (extract(epoch FROM clock_timestamp() - updated_at) * 1000)::bigint)
FROM `+db.relays()+` WHERE slot = $1`, db.relay.cfg.Slot).
		Scan(&row.contract, &row.phase, &row.delivery, &row.systemID, &row.timeline, &row.history, &row.epoch, &row.writeSeq, &row.generation,
			&confirmed, &row.base, &baseLSN, &row.cutoff, &row.cursor, &row.paidBase, &row.paidCursor, &row.published,
			&row.position, &row.fingerprint, &row.released, &row.offered, &timeout, &left)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, db.relay.statementError("read the progress row", err)
	}
	row.timeout = time.Duration(timeout) * time.Millisecond
	row.leaseLeft = min(time.Duration(left)*time.Millisecond, row.timeout) // more would be a clock that was set back
	if row.baseLSN, err = parseLSN(baseLSN); err != nil {
		return nil, fmt.Errorf("read the progress row: %w", err)
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
	confirmed         LSN    // as the row has it
}

// In exactly-once another timeline is no new generation: the checkpoint of the
// one before still says up to where rows are published. The source names both.
//
// lead raises the epoch, after the slot was taken and before the first Publish.
// confirmed may lie above the row's only where the slot of a new timeline was
// synchronized after the row.
func (db *database) lead(ctx context.Context, row *progressRow, m mode, here here, pid uint32, timeout time.Duration) (leadership, error) {
	l := leadership{pid: pid}
	cfg := db.relay.cfg
	sent := time.Now()
	var confirmed string
	var writeSeq int64
	err := db.QueryRow(ctx, `UPDATE `+db.relays()+` SET epoch = epoch + 1, write_seq = write_seq + 1, contract = $4,
 generation = generation + CASE WHEN timeline <> $5 AND $11 <> 'exactly-once' OR epoch > 0 AND delivery <> $11 THEN 1 ELSE 0 END, timeline = $5, history = $6, options_hash = $9, delivery = $11,
 instance = $7, timeout_ms = $8, released = false, stuck_since = NULL, candidate = NULL, candidate_at = NULL, updated_at = clock_timestamp(),
 confirmed_lsn = greatest(confirmed_lsn, $10::text::pg_lsn)
WHERE `+guard+` RETURNING epoch, generation, write_seq, coalesce(confirmed_lsn, '0/0')::text`,
		cfg.Slot, row.epoch, pid, m.contract(), here.timeline, here.history, cfg.Instance, timeout.Milliseconds(), db.relay.optionsHash(), row.confirmed.String(), db.relay.delivery()).
		Scan(&l.epoch, &l.generation, &writeSeq, &confirmed)
	if errors.Is(err, pgx.ErrNoRows) {
		return l, errNotLeading
	}
	if err != nil {
		return l, db.relay.statementError("take the leadership", err)
	}
	db.relay.writeSeq.Store(writeSeq)
	db.relay.lease.lead(l.epoch, db.relay.history.epoch == row.epoch, timeout)
	db.relay.lease.renew(sent)
	l.confirmed, err = parseLSN(confirmed)
	return l, err
}
