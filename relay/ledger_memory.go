package relay

// What keeps the ledger small, and what it carries over from session to session.

// sweepMin is how much the ledger may hold before merging is worth a walk.
const sweepMin = 1024

func (l *ledger) grow() { l.size++ }

func (l *ledger) newEntry() *entry {
	l.size++
	if n := len(l.spareEntries); n > 0 {
		e := l.spareEntries[n-1]
		l.spareEntries = l.spareEntries[:n-1]
		return e
	}
	return &entry{}
}

func (l *ledger) newChunk() *chunk {
	if n := len(l.spareChunks); n > 0 {
		c := l.spareChunks[n-1]
		l.spareChunks = l.spareChunks[:n-1]
		c.bits.Store(0)
		return c
	}
	return &chunk{flight: l.flight}
}

// recycle takes back a settled entry. Nobody else holds it: messages know only
// chunks, and a chunk is taken back only when each of its messages has settled.
func (l *ledger) recycle(e *entry) {
	l.size -= 1 + len(e.parts)
	for i := range e.parts {
		l.close(&e.parts[i])
	}
	if len(l.spareEntries) < sweepMin {
		*e = entry{parts: e.parts[:0]}
		l.spareEntries = append(l.spareEntries, e)
	}
	if len(l.spareChunks) > sweepMin {
		clear(l.spareChunks[sweepMin:])
		l.spareChunks = l.spareChunks[:sweepMin]
	}
}

// sweep merges settled neighbours everywhere: rows inside a transaction, and
// transactions and keepalives among themselves. It runs when the ledger has
// doubled since the last time, so its cost is constant per row; without it a
// single stuck partition would let the ledger grow by all that flows past it.
func (l *ledger) sweep() {
	kept := l.entries[:0]
	l.size = 0
	for _, e := range l.entries {
		if !e.whole {
			l.mergeParts(e)
			e.whole = e.closed && (len(e.parts) == 0 || len(e.parts) == 1 && e.parts[0].live == nil)
		}
		if e.whole {
			e.parts = e.parts[:0]
			if n := len(kept); n > 0 && kept[n-1].whole {
				kept[n-1].absorb(e)
				continue
			}
		}
		kept = append(kept, e)
		l.size += 1 + len(e.parts)
	}
	clear(l.entries[len(kept):])
	l.entries = kept
	l.sweepAt = max(sweepMin, 2*l.size)
}

func (l *ledger) mergeParts(e *entry) {
	kept := e.parts[:0]
	for _, p := range e.parts {
		if l.close(&p) && len(kept) > 0 && kept[len(kept)-1].live == nil {
			last := &kept[len(kept)-1]
			last.to, last.lastID = p.to, p.lastID
			continue
		}
		kept = append(kept, p)
	}
	clear(e.parts[len(kept):])
	e.parts = kept
}

// absorb takes over next, a settled neighbour.
func (e *entry) absorb(next *entry) {
	e.end = max(e.end, next.end)
	e.sum += next.sum
	if next.final == 0 { // a keepalive
		return
	}
	if e.first == 0 {
		e.first, e.committed = next.first, next.committed
	}
	e.final, e.lastID, e.rows = next.final, next.lastID, next.rows
}

// replayed is what earlier sessions settled of a transaction that is still
// owed, or of a run of transactions: then every row of them. A replay skips
// exactly these rows. Skipping a whole transaction because one of its
// successors is settled would leave older rows of a key behind newer ones.
type replayed struct {
	first, final LSN
	whole        bool
	due          bool   // a checkpoint says that the server sends it again
	rows, lastID uint64 // of the last transaction, if whole
	parts        []part // settled rows, if not whole
}

// unknownID is the last row's where only a checkpoint tells of it.
const unknownID = 0

// has reports whether the row was settled. The last row of each range must have
// the id it had: the same WAL may decode to other rows after a minor upgrade or
// a change of the publication.
func (r *replayed) has(ordinal, id uint64) (bool, error) {
	if r.whole {
		return true, nil
	}
	for len(r.parts) > 0 && r.parts[0].to <= ordinal {
		r.parts = r.parts[1:]
	}
	if len(r.parts) == 0 || ordinal < r.parts[0].from {
		return false, nil
	}
	if last := r.parts[0].lastID; ordinal == r.parts[0].to-1 && id != last && last != unknownID {
		return false, errReplayDiffers
	}
	return true, nil
}

// fits reports whether the transaction that ended now had all the rows that were settled before.
func (r *replayed) fits(e *entry) bool {
	if r.whole {
		return e.final != r.final || e.rows == r.rows && (e.rows == 0 || e.lastID == r.lastID)
	}
	n := len(r.parts)
	return n == 0 || r.parts[n-1].to <= e.rows
}

// forget drops what earlier sessions settled from the open transaction on, so
// that the next session sends all of it. Keeping later transactions would leave
// their rows behind older ones of the same key that are sent again.
func (l *ledger) forget() {
	l.replay = nil
	l.entered -= l.open.sum
	l.open.old, l.open.parts, l.open.rows, l.open.sum = nil, nil, 0, 0
}

// restart begins a session. Everything unsettled is forgotten, since the server
// sends it again; so are keepalives, whose promise held for the stream that is
// gone. What stays are settled, and the settled rows of transactions still owed.
// It must be called when no settle of the session before can come any more.
func (l *ledger) restart(f *flight) {
	l.sweep()
	var carried []replayed
	var last LSN // the last transaction that this session saw to its end
	for _, e := range l.entries {
		if e.final == 0 {
			continue
		}
		r, ok := e.remember()
		if ok {
			carried = append(carried, r)
		}
		if ok || e.closed {
			last = e.final
		}
	}
	for _, r := range l.replay {
		if r.final > last {
			carried = append(carried, r)
		}
	}
	*l = ledger{settled: l.settled, replay: carried, flight: f, sweepAt: sweepMin}
}

// startAnew begins a session on another history: nothing that was learned
// before holds. confirmed is what the progress row in that history says.
func (l *ledger) startAnew(f *flight, confirmed LSN) {
	*l = ledger{settled: confirmed, flight: f, sweepAt: sweepMin}
}

// remember returns what is settled of e, unless the memory of an earlier session still says all of it.
func (e *entry) remember() (replayed, bool) {
	if !e.closed && e.old != nil && e.old.whole {
		return replayed{}, false
	}
	if e.whole {
		return replayed{first: e.first, final: e.final, whole: true, rows: e.rows, lastID: e.lastID}, true
	}
	r := replayed{first: e.final, final: e.final}
	add := func(from, to, id uint64) {
		if n := len(r.parts); n > 0 && r.parts[n-1].to == from {
			r.parts[n-1].to, r.parts[n-1].lastID = to, id
			return
		}
		r.parts = append(r.parts, part{from: from, to: to, lastID: id})
	}
	for _, p := range e.parts {
		if p.live == nil {
			add(p.from, p.to, p.lastID)
			continue
		}
		for o, set := p.from, p.live.bits.Load(); o < p.to; o++ {
			if set>>(o%chunkRows)&1 == 1 {
				add(o, o+1, p.live.ids[o%chunkRows])
			}
		}
	}
	if e.old != nil { // rows of an earlier session that this one did not reach
		for _, p := range e.old.parts {
			if p.to > e.rows {
				add(max(p.from, e.rows), p.to, p.lastID)
			}
		}
	}
	return r, len(r.parts) > 0
}
