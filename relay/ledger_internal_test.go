package relay

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// The model: a naive server that keeps every transaction and replays from its
// confirmed position, a sink of a few partitions that keeps the prefix rule, and
// the ledger between them through random sessions. What is checked is what an
// outsider sees: the server's position and the order of what arrived.

type modelRow struct {
	tx, key, n int // n counts per key, in commit order
}

type modelTx struct {
	final, end LSN
	rows       []modelRow
}

type model struct {
	t         *testing.T
	rng       *rand.Rand
	log       []modelTx
	ends      LSN // of the log so far
	counter   [5]int
	confirmed LSN // the server's slot

	ledger  ledger
	flight  *flight
	inSink  [2][]*Message
	arrived []modelRow
	byMsg   map[*Message]modelRow
	entered []*Message // rows of this session; nil for one that an earlier one settled
	failed  [2]bool
	gaps    bool // a broker that refused a batch takes later ones of the partition
}

var modelTopic = &topic{name: "t", events: prometheus.NewCounter(prometheus.CounterOpts{Name: "a"}), bytes: prometheus.NewCounter(prometheus.CounterOpts{Name: "b"})}

func testFlight(limit int64) *flight { return newFlight(limit, func(*Message) {}) }

func (m *model) write() {
	tx := modelTx{final: m.ends + LSN(1+m.rng.IntN(3))}
	tx.end = tx.final + LSN(1+m.rng.IntN(3))
	for range m.rng.IntN(40) {
		k := m.rng.IntN(len(m.counter))
		m.counter[k]++
		tx.rows = append(tx.rows, modelRow{len(m.log), k, m.counter[k]})
	}
	m.ends = tx.end
	m.log = append(m.log, tx)
}

// ack makes the head of a partition durable, or fails all of it.
func (m *model) ack(fail bool) {
	p := m.rng.IntN(len(m.inSink))
	if len(m.inSink[p]) == 0 {
		return
	}
	if fail {
		m.failed[p] = true
		unclear := m.rng.IntN(len(m.inSink[p]) + 1)
		for i, msg := range m.inSink[p] { // the broker may have some although the sink gave up
			if m.gaps && m.rng.IntN(2) == 0 || !m.gaps && i < unclear {
				m.arrived = append(m.arrived, m.byMsg[msg])
			}
			msg.Settle(errors.New("refused"))
		}
		m.inSink[p] = nil
		return
	}
	for range 1 + m.rng.IntN(30) {
		if len(m.inSink[p]) == 0 {
			return
		}
		msg := m.inSink[p][0]
		m.inSink[p] = m.inSink[p][1:]
		m.arrived = append(m.arrived, m.byMsg[msg])
		msg.Settle(nil)
	}
}

func (m *model) session(last bool) {
	m.flight = testFlight(1 << 30)
	m.ledger.restart(m.flight)
	m.failed, m.entered = [2]bool{}, nil
	steps := m.rng.IntN(200)
	for _, tx := range m.log {
		if tx.final < m.confirmed { // as the server: strictly below
			continue
		}
		if m.rng.IntN(3) == 0 { // an idle position: everything before tx was sent
			m.ledger.keepalive(max(m.confirmed, m.endBefore(tx)))
		}
		if _, err := m.ledger.begin(tx.final, time.Unix(int64(tx.final), 0)); err != nil {
			m.t.Fatal(err)
		}
		for _, row := range tx.rows {
			if m.flight.err() != nil || !last && steps <= 0 {
				return
			}
			steps--
			m.publish(row)
			m.ledger.keepalive(tx.final) // what the server sends inside a transaction
			for m.rng.IntN(3) == 0 {
				m.ack(!last && m.rng.IntN(60) == 0)
			}
			m.confirm()
		}
		if err := m.ledger.commit(tx.end); err != nil {
			m.t.Fatal(err)
		}
		m.confirm()
	}
}

func (m *model) endBefore(tx modelTx) (end LSN) {
	for _, t := range m.log {
		if t.final < tx.final {
			end = t.end
		}
	}
	return end
}

func (m *model) publish(row modelRow) {
	c, ordinal, err := m.ledger.row(uint64(row.key<<32 | row.n))
	if err != nil {
		m.t.Fatal(err)
	}
	if c == nil {
		if !m.ledger.skipping {
			m.entered = append(m.entered, nil)
		}
		return
	}
	msg := &Message{topic: modelTopic, charge: 1, texts: make([]byte, positionLen)}
	msg.place2(ordinal, c)
	m.byMsg[msg] = row
	m.entered = append(m.entered, msg)
	m.flight.took(msg)
	p := row.key % len(m.inSink)
	if m.failed[p] {
		msg.Settle(errors.New("refused"))
		return
	}
	m.inSink[p] = append(m.inSink[p], msg)
}

func (m *Message) place2(ordinal uint64, c *chunk) {
	m.place(Position{Ordinal: ordinal}, ordinal, time.Time{}, c)
}

// checkAhead compares ahead with a count; it may include what is settled in the
// chunk of the row that waits.
func (m *model) checkAhead() {
	if m.flight.err() != nil {
		return
	}
	ahead, waiting := uint64(0), false
	for _, msg := range m.entered {
		switch {
		case msg != nil && !msg.settled.Load():
			waiting = true
		case waiting:
			ahead++
		}
	}
	if got := m.ledger.ahead(); got < ahead || got > ahead+chunkRows {
		m.t.Fatalf("%d rows are said to be ahead, %d are", got, ahead)
	}
}

// confirm moves the server's slot as far as the ledger says, and checks that this loses nothing.
func (m *model) confirm() {
	settled := m.ledger.advance()
	m.checkAhead()
	if m.rng.IntN(4) == 0 {
		m.confirmed = max(m.confirmed, settled)
	}
	have := map[modelRow]bool{}
	for _, r := range m.arrived {
		have[r] = true
	}
	for _, tx := range m.log {
		if tx.final >= settled {
			break
		}
		for _, r := range tx.rows {
			if !have[r] {
				m.t.Fatalf("settled %d, but row %+v of the transaction at %d has not arrived", settled, r, tx.final)
			}
		}
	}
}

func TestLedgerAgainstNaiveServer(t *testing.T) {
	for seed := range uint64(400) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			m := &model{t: t, rng: rand.New(rand.NewPCG(seed, 7)), byMsg: map[*Message]modelRow{}, gaps: seed%4 == 0}
			m.ledger.sweepAt = int(seed % 3 * 8) // sweep often
			for range 2 + m.rng.IntN(8) {
				for range m.rng.IntN(6) {
					m.write()
				}
				m.session(false)
				for range m.rng.IntN(5) { // settles that come after the session's end count
					m.ack(false)
				}
				for p := range m.inSink { // what the sink drops before Begin returns
					for len(m.inSink[p]) > 0 {
						m.inSink[p][0].Settle(errors.New("dropped"))
						m.inSink[p] = m.inSink[p][1:]
					}
				}
			}
			m.session(true)
			for m.flight.rows.Load() > 0 {
				m.ack(false)
			}
			m.confirm()
			if got := m.ledger.advance(); len(m.log) > 0 && got < m.ends {
				t.Fatalf("all settled, but settled is %d of %d", got, m.ends)
			}
			m.checkOrder()
		})
	}
}

func (m *model) checkOrder() {
	var first, last [5]int
	for _, r := range m.arrived {
		if !m.gaps && r.n > first[r.key]+1 {
			m.t.Fatalf("key %d: row %d arrived before row %d", r.key, r.n, first[r.key]+1)
		}
		first[r.key] = max(first[r.key], r.n)
		last[r.key] = r.n
	}
	if first != m.counter {
		m.t.Fatalf("lost: arrived %v of %v", first, m.counter)
	}
	if last != m.counter {
		m.t.Fatalf("last record of a key is not the last committed: %v, want %v", last, m.counter)
	}
}

// A keepalive inside a transaction carries exactly Begin.final_lsn. A
// transaction whose final_lsn equals settled is not known.
func TestLedgerBoundaryIsStrict(t *testing.T) {
	l := &ledger{}
	l.startAnew(testFlight(1), 100)
	if known, _ := l.begin(100, time.Time{}); known {
		t.Error("a transaction that commits exactly at settled counts as known: it was never sent")
	}
	l.startAnew(testFlight(1), 100)
	if known, _ := l.begin(99, time.Time{}); !known {
		t.Error("a transaction that commits below settled is sent again")
	}
}

// A remembered keepalive must not be confirmed by the next session: what was
// unsettled before it comes again and is not settled yet.
func TestLedgerForgetsKeepalivesOfAnEarlierSession(t *testing.T) {
	l := &ledger{}
	f := testFlight(1 << 20)
	l.startAnew(f, 0)
	mustBegin(t, l, 10)
	mustRow(t, l, f, 1)
	_ = l.commit(12)
	l.keepalive(900)
	l.restart(testFlight(1 << 20))
	if got := l.advance(); got != 0 {
		t.Errorf("settled is %d after a restart with an unsettled row, want 0", got)
	}
}

// The settle of a row that was handed out in an earlier session, after the next
// one has begun, must not stand for the row that was sent again.
func TestLedgerIgnoresSettlesOfAnEarlierSession(t *testing.T) {
	l := &ledger{}
	old := testFlight(1 << 20)
	l.startAnew(old, 0)
	mustBegin(t, l, 10)
	late := mustRow(t, l, old, 1)
	now := testFlight(1 << 20)
	l.restart(now)
	mustBegin(t, l, 10)
	mustRow(t, l, now, 1)
	_ = l.commit(12)
	late.Settle(nil)
	if got := l.advance(); got != 0 {
		t.Errorf("settled is %d by a settle of the session before, want 0", got)
	}
}

// The same WAL may decode to other rows after an upgrade: then nothing is skipped.
func TestLedgerSendsATransactionAgainWhenItsRowsChanged(t *testing.T) {
	l := &ledger{}
	f := testFlight(1 << 20)
	l.startAnew(f, 0)
	mustBegin(t, l, 10)
	mustRow(t, l, f, 1).Settle(nil)
	mustRow(t, l, f, 2).Settle(nil)
	mustRow(t, l, f, 3)
	_ = l.commit(12)

	f = testFlight(1 << 20)
	l.restart(f)
	mustBegin(t, l, 10)
	if c, _, err := l.row(1); c != nil || err != nil {
		t.Fatalf("first row: chunk %v, error %v; want it skipped", c, err)
	}
	if _, _, err := l.row(77); !errors.Is(err, errReplayDiffers) {
		t.Fatalf("another row in the place of a settled one: error %v, want %v", err, errReplayDiffers)
	}
	l.restart(testFlight(1 << 20))
	mustBegin(t, l, 10)
	for id := range uint64(3) {
		if c, _, err := l.row(id); c == nil || err != nil {
			t.Fatalf("row %d after the mismatch: chunk %v, error %v; want it sent", id, c, err)
		}
	}
}

// One row stuck at the head must not make the ledger grow with all that flows past it.
func TestLedgerStaysSmallBehindAStuckRow(t *testing.T) {
	l := &ledger{}
	f := testFlight(1 << 40)
	l.startAnew(f, 0)
	mustBegin(t, l, 1)
	stuck := mustRow(t, l, f, 1)
	_ = l.commit(2)
	lsn := LSN(2)
	for i := range 200_000 {
		mustBegin(t, l, lsn+1)
		for range i % 3 {
			mustRow(t, l, f, 1).Settle(nil)
		}
		lsn += 2
		_ = l.commit(lsn)
		l.keepalive(lsn)
		if i%64 == 0 {
			l.advance()
		}
	}
	if l.size > 4*sweepMin || len(l.entries) > 4*sweepMin {
		t.Errorf("ledger holds %d parts and entries (%d entries) for one unsettled row", l.size, len(l.entries))
	}
	if got := l.advance(); got != 0 {
		t.Errorf("settled %d past a stuck row", got)
	}
	stuck.Settle(nil)
	if got := l.advance(); got != lsn {
		t.Errorf("settled %d after the last row, want %d", got, lsn)
	}
}

func mustBegin(t *testing.T, l *ledger, final LSN) {
	t.Helper()
	if known, err := l.begin(final, time.Unix(1, 0)); known || err != nil {
		t.Fatalf("begin %d: known %v, error %v", final, known, err)
	}
}

func mustRow(t *testing.T, l *ledger, f *flight, id uint64) *Message {
	t.Helper()
	c, ordinal, err := l.row(id)
	if c == nil || err != nil {
		t.Fatalf("row %d: chunk %v, error %v", id, c, err)
	}
	m := &Message{topic: modelTopic, charge: 1, texts: make([]byte, positionLen)}
	m.place2(ordinal, c)
	f.took(m)
	return m
}
