package chaos

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
)

// plan is one transaction: its steps, and how it ends.
type plan struct {
	steps    []step
	rollback bool
	prepare  bool
}

// step writes some rows.
type step struct {
	kind stepKind
	keys []int // one entry a row; -1: a row without a key
}

type stepKind int

const (
	insert      stepKind = iota // one statement a row
	fromContext                 // headers come from SET LOCAL
	copyRows                    // COPY: all rows share one LSN
	undone                      // insert inside a savepoint that is rolled back
	nested                      // insert inside a savepoint that is kept
)

func (p plan) rows() (n int) {
	for _, s := range p.steps {
		if s.kind != undone {
			n += len(s.keys)
		}
	}
	return n
}

// plan draws a transaction. Business rows are locked in the order of the keys,
// so that writers wait for each other and deadlocks stay rare; what is undone
// with a savepoint uses only keys that are locked already, because rolling back
// to a savepoint gives up the locks taken after it.
func (wr *writer) plan() plan {
	rng := wr.rng
	keys := wr.drawKeys(1 + rng.IntN(4))
	more := func(n int) (out []int) {
		for range n {
			out = append(out, keys[rng.IntN(len(keys))])
		}
		return out
	}
	var p plan
	switch n := rng.IntN(100); {
	case n < 40:
		p.steps = []step{{insert, keys[:1]}}
	case n < 48:
		p.steps = []step{{insert, keys[:1]}, {fromContext, keys}}
	case n < 65:
		p.steps = []step{{insert, keys}, {insert, more(rng.IntN(15))}, {insert, []int{-1}}}
	case n < 78:
		p.steps = []step{
			{insert, keys},
			{undone, more(1 + rng.IntN(4))},
			{nested, more(1 + rng.IntN(3))},
			{undone, more(1 + rng.IntN(3))},
			{insert, more(rng.IntN(3))},
		}
	case n < 84:
		p.steps = []step{{insert, keys}, {copyRows, more(5)}}
		p.rollback = true
	case n < 98:
		p.steps = []step{{copyRows, slices.Concat(keys, more(5+rng.IntN(60)), []int{-1})}}
	default:
		p.steps = []step{{copyRows, slices.Concat(keys, more(200+rng.IntN(400)))}}
	}
	if wr.load.cfg.Keyed {
		for i := range p.steps {
			p.steps[i].keys = slices.DeleteFunc(p.steps[i].keys, func(key int) bool { return key < 0 })
		}
	}
	p.prepare = wr.load.cfg.Prepared && !p.rollback && rng.IntN(20) == 0
	return p
}

// drawKeys draws n different keys in the order in which they are to be locked.
func (wr *writer) drawKeys(n int) []int {
	keys := wr.rng.Perm(len(wr.load.keys))[:min(n, len(wr.load.keys))]
	slices.Sort(keys)
	return keys
}

func (p plan) write(ctx context.Context, wr *writer, tx pgx.Tx) error {
	for _, s := range p.steps {
		if err := s.write(ctx, wr, tx); err != nil {
			return err
		}
	}
	return nil
}

func (s step) write(ctx context.Context, wr *writer, tx pgx.Tx) error {
	switch s.kind {
	case insert:
		return s.each(ctx, wr, tx, wr.insert)
	case fromContext:
		wr.evidence.ContextHeaders += len(s.keys)
		return s.each(ctx, wr, tx, wr.insertFromContext)
	case copyRows:
		wr.evidence.Copies++
		return wr.copy(ctx, tx, s.keys)
	case undone, nested:
		return s.inSavepoint(ctx, wr, tx)
	}
	return fmt.Errorf("unknown step %d", s.kind)
}

func (s step) inSavepoint(ctx context.Context, wr *writer, tx pgx.Tx) error {
	wr.evidence.Savepoints++
	before := len(wr.open)
	savepoint, err := tx.Begin(ctx)
	if err != nil {
		return fmt.Errorf("savepoint: %w", err)
	}
	if err := s.each(ctx, wr, savepoint, wr.insert); err != nil {
		return err
	}
	if s.kind == nested {
		if err := savepoint.Commit(ctx); err != nil {
			return fmt.Errorf("release savepoint: %w", err)
		}
		return nil
	}
	if err := savepoint.Rollback(ctx); err != nil {
		return fmt.Errorf("roll back to savepoint: %w", err)
	}
	for _, row := range wr.open[before:] {
		wr.undone = append(wr.undone, row.ID)
	}
	wr.open = wr.open[:before]
	return nil
}

func (s step) each(ctx context.Context, wr *writer, tx pgx.Tx, write func(context.Context, pgx.Tx, *event, int) error) error {
	for _, key := range s.keys {
		if key >= 0 {
			wr.meet(key)
		}
		e := wr.compose(key)
		if err := write(ctx, tx, &e, key); err != nil {
			return fmt.Errorf("insert: %w", err)
		}
		if key >= 0 {
			wr.hold(key)
		}
		wr.open = append(wr.open, e.row)
	}
	return nil
}
