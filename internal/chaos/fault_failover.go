package chaos

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// failoverFaults move everybody to a standby that has a copy of the slot. Then
// the relay goes on with the copy, and recovers nothing.
func failoverFaults() []Fault {
	return []Fault{
		{
			Name: "failover", Description: "a standby with a synchronized copy of the slot is promoted with rows in the slot; everybody moves there",
			Majors: []int{17, 18}, Moves: true, strike: func(ctx context.Context, s *Stage) (string, error) { return s.failOver(ctx, "one") },
		},
		{
			Name: "failback", Description: "failover, a new standby behind the new primary, and the same again",
			Majors: []int{17, 18}, Moves: true, strike: failBack,
		},
	}
}

func failBack(ctx context.Context, s *Stage) (string, error) {
	there, err := s.failOver(ctx, "one")
	if err != nil {
		return "", err
	}
	if err := s.Arrived(ctx, 200+s.Rand.IntN(500)); err != nil {
		return "", err
	}
	back, err := s.failOver(ctx, "two")
	return there + "; back: " + back, err
}

func (s *Stage) failOver(ctx context.Context, name string) (string, error) {
	p := s.Relays[0]
	standby, err := s.server.Standby(ctx, name, "sync_replication_slots=on")
	if err != nil {
		return "", err
	}
	s.closing = append(s.closing, func() { _ = standby.Close() })
	if err := s.limitSlots(ctx, `ALTER SYSTEM SET synchronized_standby_slots = '`+name+`'`); err != nil {
		return "", err
	}
	db, err := pgx.Connect(ctx, standby.URL())
	if err != nil {
		return "", fmt.Errorf("connect to the standby: %w", err)
	}
	defer func() { _ = db.Close(context.WithoutCancel(ctx)) }()
	if err := s.ready(ctx, db); err != nil {
		return "", err
	}
	if _, err := s.FreezeOwing(ctx, p); err != nil {
		return "", err
	}
	if err := s.Committed(ctx, 100+s.Rand.IntN(500)); err != nil {
		return "", err
	}
	owed, err := s.backlog(ctx)
	if err != nil {
		return "", err
	}
	before, err := s.generation(ctx)
	if err != nil {
		return "", err
	}
	if err := s.moveTo(ctx, standby, name); err != nil {
		return "", err
	}
	// A prepared transaction that nobody ends would keep the slot's catalog_xmin
	// back, and no standby could ever copy the slot.
	if err := forgetPrepared(ctx, db); err != nil {
		return "", err
	}
	if err := p.Thaw(); err != nil {
		return "", err
	}
	s.Over()
	if _, err = s.Led(ctx, p, 0); err != nil {
		return "", err
	}
	if s.flowing, err = s.Flow(ctx); err != nil {
		return "", err
	}
	after, err := s.generation(ctx)
	expected := before + 1 // for the new timeline
	if s.exactlyOnce() {
		expected = before
	}
	if err == nil && after != expected {
		err = fmt.Errorf("generation %d → %d: the relay has recovered rows although it had a slot", before, after)
	}
	return fmt.Sprintf("%d rows in the slot", owed), err
}

// ready waits until a promotion of the standby would find the slot. Its worker
// naps for up to half a minute after it found nothing to do: that is waited for
// longer than for other things. It also has to build a consistent snapshot from
// the little WAL between the slot's two positions, which it never can where some
// transaction is always running: so it is given moments without one.
func (s *Stage) ready(ctx context.Context, standby *pgx.Conn) (err error) {
	for range 3 {
		err = s.until(ctx, "the slot is ready on the standby", func(ctx context.Context) (ready bool, err error) {
			for _, sql := range []string{`BEGIN`, `LOCK TABLE accounts IN EXCLUSIVE MODE`, `SELECT pg_log_standby_snapshot()`, `COMMIT`} {
				if err := s.Exec(ctx, sql); err != nil {
					return false, err
				}
			}
			if err := wait(ctx, 200*time.Millisecond); err != nil {
				return false, err
			}
			err = standby.QueryRow(ctx, `SELECT count(*) > 0 FROM pg_replication_slots WHERE slot_name = $1 AND synced AND NOT temporary`, s.slot()).Scan(&ready)
			return ready, err
		})
		if err == nil || ctx.Err() != nil {
			return err
		}
	}
	return errors.Join(err, fmt.Errorf("primary: %s", s.slotState(ctx, nil)), fmt.Errorf("standby: %s", s.slotState(ctx, standby)))
}

// slotState is what a server says of the slot, and of what may hold it up.
func (s *Stage) slotState(ctx context.Context, db *pgx.Conn) (state string) {
	if db == nil {
		var err error
		if db, err = s.DB(ctx); err != nil {
			return err.Error()
		}
	}
	err := db.QueryRow(ctx, `SELECT coalesce((SELECT to_jsonb(s)::text FROM pg_replication_slots s WHERE slot_name = $1), 'no slot') || ', prepared '
 || (SELECT coalesce(string_agg(gid || ' ' || transaction, ', '), 'none') FROM pg_prepared_xacts)`, s.slot()).Scan(&state)
	if err != nil {
		return err.Error()
	}
	return state
}
