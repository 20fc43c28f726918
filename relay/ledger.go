package relay

import (
	"errors"
	"math/bits"
	"sync/atomic"
	"time"
)

// ledger remembers what was handed to the sink and answers one question: up to
// which LSN is everything durable downstream? That LSN is settled. It is the
// end of the last entry of the unbroken settled prefix, never the highest
// acknowledgement, which says nothing about those below it.
//
// Entries are transactions and keepalives in the order of the byte stream: a
// keepalive may be confirmed when everything before it in this session is
// settled, and one that comes inside a transaction is ignored, since it carries
// exactly that transaction's Begin.final_lsn. Settled neighbours merge, so that
// the ledger's size follows what is unsettled and not what has flowed past it.
//
// The stream's goroutine calls every method; sinks reach in only through
// [Message.Settle], which sets a bit in a chunk.
type ledger struct {
	settled  LSN      // end of the settled prefix; grows, except when another history begins
	rowsEnd  LSN      // the same, of the last transaction that had rows
	entered  uint64   // rows of this session
	passed   uint64   // of them, those in entries that settled has passed
	entries  []*entry // oldest first
	open     *entry   // the transaction between Begin and Commit, or nil
	skipping bool     // inside a transaction that lies below settled

	flight *flight    // what this session has handed out
	replay []replayed // what earlier sessions settled beyond the prefix, by LSN

	size, sweepAt int // parts and entries held; when to merge next
	spareEntries  []*entry
	spareChunks   []*chunk
}

// entry is a transaction, a keepalive, or a run of settled ones.
type entry struct {
	first, final LSN       // Begin.final_lsn of the first and last transaction; both 0 for keepalives
	end          LSN       // Commit.end_lsn or keepalive: may be confirmed once this is settled
	committed    time.Time // commit time of the first transaction
	closed       bool      // Commit was read
	rows         uint64    // sent by the server in this transaction
	sum          uint64    // the same, of the whole run
	parts        []part    // those rows, without a gap
	whole        bool      // settled to the last row; parts are dropped
	lastID       uint64    // of the last row
	old          *replayed // what an earlier session settled of this transaction
}

// part is a run of rows, [from, to) by ordinal. Without a chunk all are settled.
type part struct {
	from, to uint64
	lastID   uint64 // of row to-1; see rowID
	live     *chunk
}

// chunkRows is how many neighbouring rows share one word of bits.
const chunkRows = 16

// chunk holds the bits of up to chunkRows rows. It is all that a message in
// flight knows of the ledger. A chunk of an ended session is referenced by
// nothing but late messages: their settles change nothing any more.
type chunk struct {
	flight *flight
	bits   atomic.Uint32 // bit i: row i is settled
	ids    [chunkRows]uint64
}

func (c *chunk) settle(m *Message, err error) {
	f := c.flight // c may be in use for other rows as soon as the bit is set
	if err == nil {
		c.bits.Or(1 << m.bit)
	}
	f.landed(m, err)
}

var (
	errReplayDiffers = errors.New("the server replays a transaction with other rows than before; it is sent again as a whole")
	errNesting       = errors.New("begin and commit do not alternate")
)

// begin opens the transaction whose commit record starts at final. It reports
// whether all its rows are known to be downstream; then none of them counts.
func (l *ledger) begin(final LSN, committed time.Time) (known bool, err error) {
	if l.open != nil || l.skipping {
		return false, errNesting
	}
	if l.isSettled(final) {
		l.skipping = true
		return true, nil
	}
	e := l.newEntry()
	e.first, e.final, e.committed = final, final, committed
	for len(l.replay) > 0 && l.replay[0].final < final {
		if l.replay[0].due {
			return false, errReplayDiffers // decoded to nothing: rows behind the checkpoint's would be left out
		}
		l.replay = l.replay[1:]
	}
	if len(l.replay) > 0 && l.replay[0].first <= final {
		e.old = &l.replay[0]
	}
	l.open = e
	l.entries = append(l.entries, e)
	return false, nil
}

// isSettled is the one place that compares a transaction with a position: it is
// known iff its commit record starts strictly below. A keepalive inside a
// transaction carries exactly that transaction's final_lsn, so "not above"
// would skip rows that were never sent (the server's own test in
// SnapBuildXactNeedsSkip is as strict).
func (l *ledger) isSettled(final LSN) bool { return final < l.settled }

// row enters the next row that the server sent in the open transaction. A nil
// chunk means that the row is downstream already and must not be sent again.
func (l *ledger) row(id uint64) (c *chunk, ordinal uint64, err error) {
	if l.skipping {
		return nil, 0, nil
	}
	e := l.open
	if e == nil {
		return nil, 0, errNesting
	}
	ordinal = e.rows
	e.rows++
	e.sum++
	l.entered++
	e.lastID = id
	if e.old != nil {
		done, err := e.old.has(ordinal, id)
		if err != nil {
			l.forget()
			return nil, 0, err
		}
		if done {
			l.addSettled(e, ordinal, id)
			return nil, ordinal, nil
		}
	}
	return l.addLive(e, ordinal, id), ordinal, nil
}

func (l *ledger) addSettled(e *entry, ordinal, id uint64) {
	if n := len(e.parts); n > 0 && e.parts[n-1].live == nil {
		e.parts[n-1].to, e.parts[n-1].lastID = ordinal+1, id
		return
	}
	e.parts = append(e.parts, part{from: ordinal, to: ordinal + 1, lastID: id})
	l.grow()
}

func (l *ledger) addLive(e *entry, ordinal, id uint64) *chunk {
	n := len(e.parts)
	if n == 0 || e.parts[n-1].live == nil || ordinal%chunkRows == 0 {
		e.parts = append(e.parts, part{from: ordinal, to: ordinal, live: l.newChunk()})
		l.grow()
		n = len(e.parts)
	}
	p := &e.parts[n-1]
	p.to, p.lastID = ordinal+1, id
	p.live.ids[ordinal%chunkRows] = id
	return p.live
}

// commit closes the open transaction; end is its Commit.end_lsn.
func (l *ledger) commit(end LSN) error {
	if l.skipping {
		l.skipping = false
		return nil
	}
	e := l.open
	if e == nil {
		return errNesting
	}
	if e.old != nil && !e.old.fits(e) {
		l.forget()
		return errReplayDiffers
	}
	e.end, e.closed, l.open = end, true, nil
	return nil
}

// keepalive enters the position of a keepalive message.
func (l *ledger) keepalive(lsn LSN) {
	if l.open != nil || l.skipping {
		return
	}
	l.advance()
	n := len(l.entries)
	switch {
	case n == 0:
		l.settled = max(l.settled, lsn)
	case l.entries[n-1].whole:
		l.entries[n-1].end = max(l.entries[n-1].end, lsn)
	default:
		e := l.newEntry()
		e.end, e.closed, e.whole = lsn, true, true
		l.entries = append(l.entries, e)
	}
}

// advance moves settled over the settled prefix and returns it.
func (l *ledger) advance() LSN {
	n := 0
	for _, e := range l.entries {
		if !l.done(e) {
			break
		}
		l.settled = max(l.settled, e.end)
		if e.rows > 0 {
			l.rowsEnd = l.settled
		}
		l.passed += e.sum
		l.recycle(e)
		n++
	}
	l.entries = dropHead(l.entries, n)
	if l.size > l.sweepAt {
		l.sweep()
	}
	return l.settled
}

// done reports whether e is closed and settled, merging its settled head.
func (l *ledger) done(e *entry) bool {
	if e.whole {
		return true
	}
	n := 0
	for n < len(e.parts) && l.close(&e.parts[n]) {
		n++
	}
	if n > 1 {
		e.parts[n-1].from = e.parts[0].from
		e.parts = dropHead(e.parts, n-1)
		l.size -= n - 1
		n = 1
	}
	return e.closed && n == len(e.parts)
}

// dropHead removes the first n elements. A short rest moves to the front, which
// keeps the room for what comes; moving a long one each time would be quadratic.
func dropHead[T any](s []T, n int) []T {
	if rest := len(s) - n; n > 0 && rest <= 64 {
		copy(s, s[n:])
		clear(s[rest:])
		return s[:rest]
	}
	clear(s[:n])
	return s[n:]
}

// close turns a part whose rows are all settled into a mere range.
func (l *ledger) close(p *part) bool {
	if p.live == nil {
		return true
	}
	if bits.OnesCount32(p.live.bits.Load()) != int(p.to-p.from) {
		return false
	}
	l.spareChunks = append(l.spareChunks, p.live)
	p.live = nil
	return true
}

// ahead is how many rows are settled beyond the settled prefix: what a crash
// now would send again although it was delivered. It follows advance.
func (l *ledger) ahead() uint64 {
	waiting := uint64(max(0, l.flight.rows.Load()))
	prefix := uint64(0)
	if len(l.entries) > 0 && len(l.entries[0].parts) > 0 && l.entries[0].parts[0].live == nil {
		prefix = l.entries[0].parts[0].to
	}
	if done := l.passed + prefix + waiting; l.entered > done {
		return l.entered - done
	}
	return 0
}

// oldest returns the commit time of the oldest unsettled transaction; zero if there is none.
func (l *ledger) oldest() time.Time {
	for _, e := range l.entries {
		if !e.whole {
			return e.committed
		}
	}
	return time.Time{}
}
