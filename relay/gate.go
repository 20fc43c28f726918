package relay

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
)

// Values of OUTRIDER_GATE.
const (
	GateNone    = "none"    // rows are published as soon as they are decoded
	GateVisible = "visible" // not before other sessions can read them
)

// gate keeps rows back until their transaction is visible. A walsender decodes
// a commit once its record is flushed, and the backend takes its transaction
// off the list of running ones only afterwards (RecordTransactionCommit before
// ProcArrayEndTransaction); in between it waits for a synchronous standby, for
// ever if there is none. Whoever reads the row on the event meanwhile does not
// find it, and if the primary is lost meanwhile there never was such a row.
//
// The rule: the transaction's id, as Begin has it (for a prepared transaction
// the one it was prepared under, never a subtransaction's), is not in progress
// in a snapshot that an ordinary session of the same server has taken. Every
// later snapshot there then sees it, too. A replica may still be behind.
//
// The newest snapshot is kept: what it sees passes for nothing, so that one
// query lets through everything that became visible before it. It is forgotten
// at the end of a session, since another server may reuse transaction ids, and
// when it is old, since 32 bits of an id mean nothing far from it.
//
// While a transaction is held nothing is read, as when the budget is full: see
// unread.go for what goes on. The connection opens at the first transaction,
// and belongs to one goroutine at a time: the stream waits while that looks.
type gate struct {
	relay *Relay
	db    *database // nil while disconnected

	newest *snapshot // nil if there is none
	taken  time.Time
}

const (
	gateFirstPause = 200 * time.Microsecond // between two looks at one transaction
	gateLongest    = 20 * time.Millisecond
	gateReconnect  = time.Second
	gateTold       = time.Second // held for so long, a transaction is a condition
	gateKeeps      = time.Minute // no server uses up 2^31 transaction ids in it
)

const reasonGate = "gate_waiting"

// newGate is nil unless a gate is configured.
func newGate(r *Relay) *gate {
	if r.cfg.Gate != GateVisible {
		return nil
	}
	return &gate{relay: r}
}

// passGate returns when the open transaction is visible to other sessions.
func (s *stream) passGate(ctx context.Context) error {
	g, xid := s.gate, s.xid
	if g.sees(xid) {
		return nil
	}
	lead, began := s.progress.lead, time.Now()
	if err := s.aside(ctx, func(ctx context.Context) error { return g.await(ctx, xid, lead) }); err != nil {
		return err
	}
	s.relay.metrics.gate.Observe(time.Since(began).Seconds())
	return s.awaitLease(ctx) // with nothing in flight nobody has renewed it
}

func (g *gate) sees(xid uint32) bool { return g.newest != nil && g.newest.sees(g.newest.widen(xid)) }

// age forgets a snapshot that is too old. The stream calls it when its wheel
// has turned, not for each transaction: it looks at the clock.
func (g *gate) age() {
	if g != nil && time.Since(g.taken) > gateKeeps {
		g.newest = nil
	}
}

// await takes snapshots until one sees xid, or until it is known that none will
// or that this session is over. A connection that is lost is opened again.
func (g *gate) await(ctx context.Context, xid uint32, lead leadership) error {
	held := Condition{Reason: reasonGate, Since: time.Now()}
	defer func() {
		if held.Hint != "" {
			g.relay.report(Condition{Reason: reasonGate})
		}
	}()
	told := held.Since
	for pause := gateFirstPause; ; pause = min(2*pause, gateLongest) {
		err := g.look(ctx, lead)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, errNotLeading):
			return err
		case err == nil && g.sees(xid):
			return nil
		}
		late := time.Since(told) >= gateTold
		if late {
			told = time.Now()
			g.tell(&held, err)
		}
		rest := pause
		switch {
		case err != nil:
			g.lost(err)
			rest = gateReconnect
		case late:
			if err := g.circle(ctx); err != nil {
				return err
			}
		}
		select {
		case <-time.After(rest):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// look takes a snapshot, which proves in the same statement that it is of the
// server that feeds us.
func (g *gate) look(ctx context.Context, lead leadership) (err error) {
	if g.db == nil {
		if g.db, err = g.relay.openDatabase(ctx); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	var text string
	err = g.db.QueryRow(ctx, `SELECT pg_current_snapshot()::text FROM `+g.db.relays()+` WHERE `+guard,
		g.relay.cfg.Slot, lead.epoch, lead.pid).Scan(&text)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return errNotLeading
	case err != nil:
		return fmt.Errorf("look which transactions are visible: %w", err)
	}
	g.newest, err = parseSnapshot(text)
	g.taken = time.Now()
	return err
}

// lost closes a connection that has failed. Whether the server goes down is
// heard by the progress writer, who always listens.
func (g *gate) lost(err error) {
	if g.db != nil {
		g.relay.log.Warn("connection of the visibility gate lost; rows are held until it is back", "error", firstLine(err.Error()))
	}
	g.close()
}

// tell makes a transaction that is held a condition, with the reason.
func (g *gate) tell(held *Condition, failure error) {
	hint := "a committed transaction is not visible to other sessions, and its rows are held until it is; as a rule it waits for a synchronous standby: " +
		"SHOW synchronous_standby_names; SELECT pid, application_name, state_change FROM pg_stat_activity WHERE wait_event = 'SyncRep';"
	if failure != nil {
		hint = "rows are held because nobody can tell whether they are visible: " + firstLine(failure.Error())
	}
	if hint != held.Hint {
		held.Hint = hint
		g.relay.report(*held)
	}
}

// circle halts where commits have come to wait for this relay, since
// synchronous_standby_names was changed under it: both would wait for each other.
func (g *gate) circle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	var names string
	if err := g.db.QueryRow(ctx, `SELECT current_setting('synchronous_standby_names')`).Scan(&names); err != nil {
		return fmt.Errorf("look for whom commits wait: %w", err)
	}
	return g.relay.syncNames(ctx, g.db, names)
}

func (g *gate) close() {
	if g != nil && g.db != nil {
		g.db.close()
		g.db = nil
	}
}

func newGateMetric() prometheus.Histogram {
	return prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "outrider_gate_wait_seconds",
		Help:    "How long the stream waited at the visibility gate, once for each time that the snapshot at hand did not see a transaction.",
		Buckets: []float64{.0001, .0002, .0005, .001, .002, .005, .01, .02, .05, .1, 1, 10, 60},
	})
}
