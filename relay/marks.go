package relay

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// A mark says: when everything up to lsn is settled, everything visible in the
// snapshot is downstream. Both are read in one statement, the snapshot first: a
// transaction that it sees has written its commit record below lsn. Marks die
// with the session, since another server may follow.
type mark struct {
	snapshot    *snapshot
	lsn         LSN
	fingerprint string
	taken       time.Time
	pushed      bool // a row was written only to have the server flush up to lsn
}

// overdue reports whether m waits for WAL that nobody flushes: hint bits of a
// read page are logged, with checksums on, and on an idle server stay in
// memory, where no walsender sees them. A commit of ours flushes them.
func (m *mark) overdue() bool { return !m.pushed && time.Since(m.taken) >= lookInterval }

// fingerprintSQL identifies what decides whether a row is decoded: the
// publication, its membership of our table with columns and filter, and the
// table itself. Dropping and adding again leaves the same definition with other
// oids and another xmin, and rows committed in between in no stream. A server
// may not know all catalogs.
func (db *database) fingerprintSQL() string {
	r := db.relay
	schemas := ""
	if db.version >= 150000 {
		schemas = ` || coalesce((SELECT string_agg(n.xmin::text || to_jsonb(n)::text, ',' ORDER BY n.oid) FROM pg_publication_namespace n
 JOIN pg_publication p ON p.oid = n.pnpubid WHERE p.pubname = {pub}), '')`
	}
	sql := `(SELECT md5(coalesce((SELECT p.xmin::text || to_jsonb(p)::text FROM pg_publication p WHERE p.pubname = {pub}), '')
 || coalesce((SELECT string_agg(m.xmin::text || to_jsonb(m)::text, ',' ORDER BY m.oid) FROM pg_publication_rel m JOIN pg_publication p ON p.oid = m.prpubid
 WHERE p.pubname = {pub} AND (m.prrelid = to_regclass({table}) OR m.prrelid IN (SELECT relid FROM pg_partition_ancestors(to_regclass({table}))))), '')` + schemas + `
 || coalesce(to_regclass({table})::oid::text, '')))`
	return strings.NewReplacer("{pub}", literal(r.cfg.Publication), "{table}", literal(r.tableSQL())).Replace(sql)
}

// fingerprintChanged reports whether rows may have been left out between two
// fingerprints. Partitions are not part of them: what was committed before one
// went is decoded by the catalogs of that moment, so the stream still has it,
// and the table has not.
func fingerprintChanged(old, now string) bool { return old != "" && old != now }

func (db *database) fingerprint(ctx context.Context) (f string, err error) {
	if err := db.QueryRow(ctx, `SELECT `+db.fingerprintSQL()).Scan(&f); err != nil {
		return "", db.relay.statementError("look at the publication", err)
	}
	return f, nil
}

// markColumns is what a statement of the progress writer returns for the next mark.
func (db *database) markColumns() string {
	return `pg_current_snapshot()::text, pg_current_wal_insert_lsn()::text, ` + db.fingerprintSQL()
}

func newMark(snap, lsn, fingerprint string) (*mark, error) {
	s, err := parseSnapshot(snap)
	if err != nil {
		return nil, err
	}
	at, err := parseLSN(lsn)
	return &mark{snapshot: s, lsn: at, fingerprint: fingerprint, taken: time.Now()}, err
}

// errLeftOut ends a session in which rows may have been kept from the stream.
// The next one finds why in the progress row, and recovers the interval.
var errLeftOut = errors.New("rows may have been kept from the stream; what was committed since the last mark is published again from the table")

// maxTallied bounds the memory of tally.
const maxTallied = 1 << 20

// tally counts the rows that the stream brought, by the marks that see their
// transactions: the other half of a double entry whose first half is the table.
// The stream adds, the progress writer moves the mark.
type tally struct {
	mu     sync.Mutex
	newest *snapshot         // mark taken last; nil before the first
	recent map[uint32]uint32 // rows by xid, of transactions that newest does not see
	seen   int               // rows of transactions that newest sees and the anchor does not
	fresh  bool              // some of those are not in published either
	full   bool              // too many transactions came without a mark
}

func newTally() *tally { return &tally{recent: map[uint32]uint32{}} }

// add enters a transaction of the stream. Stream's goroutine.
func (t *tally) add(xid uint32, rows int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.newest != nil && t.newest.sees(t.newest.widen(xid)):
		t.seen += rows
		t.fresh = true
	case len(t.recent) >= maxTallied:
		t.full = true
	default:
		t.recent[xid] += uint32(rows)
	}
}

// move makes s the newest mark and returns how many rows the one before saw
// beyond the anchor. complete is false where transactions were not counted.
func (t *tally) move(s *snapshot) (seen int, complete bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	seen, complete = t.seen, !t.full && t.newest != nil
	if t.full {
		t.full, t.seen, seen = false, 0, 0
	}
	for xid, rows := range t.recent {
		if s.sees(s.widen(xid)) {
			t.seen += int(rows)
			t.fresh = true
			delete(t.recent, xid)
		}
	}
	t.newest = s
	return seen, complete
}

// published is called when newest is stored in the row.
func (t *tally) published() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.fresh = false
}

// ahead reports whether the stream brought rows that published does not see.
// Positions cannot tell: a transaction may commit between a mark's snapshot and
// its LSN.
func (t *tally) ahead() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.fresh || len(t.recent) > 0
}

// forgive drops rows that an audit has accounted for.
func (t *tally) forgive(rows int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.seen -= rows
}

// auditInterval is how often at most table and stream are compared, lookInterval
// how often a mark is taken while nothing is written.
const (
	auditInterval = 10 * time.Second
	lookInterval  = auditInterval / 2
)

// audit compares what the table holds between two marks with what the stream
// brought. More in the table was kept from the stream; fewer was deleted by hand.
type audit struct {
	anchor *snapshot
	floor  uint64 // transactions that ran at the first mark of a session may have been streamed before it
	last   time.Time
}

// reached is called when everything up to m is settled; seen rows of it came
// through the stream since the anchor.
func (p *progress) reached(ctx context.Context, m *mark, seen int, complete bool) error {
	a := &p.audit
	if a.anchor == nil || !complete {
		a.anchor, a.floor, a.last = m.snapshot, m.snapshot.xmax, time.Now()
		p.tally.forgive(seen)
		return nil
	}
	if !p.audited || time.Since(a.last) < auditInterval-time.Second {
		return nil
	}
	var rows int
	err := p.db.QueryRow(ctx, `SELECT count(*) FROM `+p.relay.tableSQL()+` WHERE tx::text::bigint >= $1::bigint
 AND pg_visible_in_snapshot(tx, $2::text::pg_snapshot) AND NOT pg_visible_in_snapshot(tx, $3::text::pg_snapshot)`,
		int64(max(a.floor, a.anchor.xmin)), m.snapshot.text, a.anchor.text).Scan(&rows)
	if err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	a.last = time.Now()
	p.relay.metrics.audits.Inc()
	if rows < seen && a.floor == 0 {
		p.relay.metrics.mismatch.WithLabelValues("fewer").Add(float64(seen - rows))
	}
	if rows > seen {
		p.relay.metrics.mismatch.WithLabelValues("more").Add(float64(rows - seen))
		p.relay.log.Error("the table holds rows that the stream did not bring", "rows", rows, "streamed", seen)
		return p.condemn(ctx, "audit")
	}
	a.anchor, a.floor = m.snapshot, 0
	p.tally.forgive(seen)
	return nil
}

// condemn notes in the row that the interval since published must be recovered,
// so that it is also after a crash.
func (p *progress) condemn(ctx context.Context, why string) error {
	tag, err := p.db.Exec(ctx, `UPDATE `+p.db.relays()+` SET fingerprint = $4, write_seq = write_seq + 1 WHERE `+guard,
		p.relay.cfg.Slot, p.lead.epoch, p.lead.pid, why)
	if err != nil {
		return fmt.Errorf("note that rows were left out: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return errNotLeading
	}
	return errLeftOut
}

// look takes a mark without writing, so that an idle database stays idle, and
// what was kept from the stream is found although nothing flows.
func (p *progress) look(ctx context.Context) error {
	if time.Since(p.looked) < lookInterval && !p.asked.Load() {
		return nil
	}
	p.looked = time.Now()
	var snap, lsn, fingerprint string
	err := p.db.QueryRow(ctx, `SELECT `+p.db.markColumns()+` FROM `+p.db.relays()+` WHERE `+guard,
		p.relay.cfg.Slot, p.lead.epoch, p.lead.pid).Scan(&snap, &lsn, &fingerprint)
	if errors.Is(err, pgx.ErrNoRows) {
		return errNotLeading
	}
	if err != nil {
		return fmt.Errorf("look at the publication: %w", err)
	}
	if fingerprintChanged(p.fingerprint, fingerprint) {
		p.relay.log.Error("publication or table changed; what was committed meanwhile is published again from the table")
		return errLeftOut
	}
	if now, err := p.db.mode(ctx); err != nil {
		return err
	} else if now != p.mode {
		p.relay.log.Info("the mode of the outbox has changed", "appends", now.appends, "messages", now.messages)
		return errMode
	}
	if p.asked.Swap(false) {
		signal(p.written)
	}
	if p.mark != nil {
		if LSN(p.relay.settledLSN.Load()) < p.mark.lsn {
			return nil
		}
		return p.pass(ctx, snap, lsn, fingerprint)
	}
	return p.take(snap, lsn, fingerprint)
}

// take makes what a statement returned the pending mark.
func (p *progress) take(snap, lsn, fingerprint string) (err error) {
	if p.mark, err = newMark(snap, lsn, fingerprint); err != nil {
		return err
	}
	p.tally.move(p.mark.snapshot)
	return nil
}

// pass ends the pending mark, which was reached, with the next one.
func (p *progress) pass(ctx context.Context, snap, lsn, fingerprint string) error {
	reached := p.mark
	next, err := newMark(snap, lsn, fingerprint)
	if err != nil {
		return err
	}
	seen, complete := p.tally.move(next.snapshot)
	p.mark = next
	return p.reached(ctx, reached, seen, complete)
}
