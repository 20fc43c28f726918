package chaos

import (
	"context"
	"errors"
	"fmt"

	"github.com/outrider-cdc/outrider/internal/harness/proxy"
)

// slotFaults happen to the slot while the relay is down, so that rows lie
// before whatever slot it finds: only the table still has them.
func slotFaults() []Fault {
	return []Fault{
		{
			Name: "slot-dropped", Description: "the slot is dropped while the relay is down and rows wait in it",
			Recovers: true, Repeats: true, strike: dropSlot,
		},
		{
			Name: "slot-advanced", Description: "the slot is advanced by hand past rows that wait in it, while the relay is down",
			Recovers: true, Repeats: true, strike: advanceSlot,
		},
		{
			Name: "slot-invalidated", Description: "the server invalidates the slot (max_slot_wal_keep_size) while the relay is down and rows wait in it",
			Recovers: true, Repeats: true, strike: invalidateSlot,
		},
		{
			Name: "slot-lost-twice", Description: "the server invalidates the slot twice while rows from before it are published: at a first start, and in the recovery that follows",
			Cold: true, Recovers: true, Repeats: true, strike: invalidateTwice,
		},
	}
}

// without does harm to the slot while the relay is down, killed or stopped, and
// starts it again.
func (s *Stage) without(ctx context.Context, harm func() (evidence string, err error)) (string, error) {
	p := s.Relays[0]
	if s.Rand.IntN(2) == 0 {
		p.Kill()
	} else if err := s.Stop(ctx, p); err != nil {
		return "", err
	}
	err := s.until(ctx, "the slot is free", func(ctx context.Context) (bool, error) {
		pid, err := s.Walsender(ctx)
		return pid == 0, err
	})
	if err != nil {
		return "", err
	}
	if err := s.Committed(ctx, 100+s.Rand.IntN(400)); err != nil {
		return "", err
	}
	owed, err := s.backlog(ctx)
	if err != nil {
		return "", err
	}
	if owed == 0 {
		return "", void("all rows were on Kafka already")
	}
	evidence, err := harm()
	if err != nil {
		return "", err
	}
	if err := s.Committed(ctx, 50+s.Rand.IntN(200)); err != nil {
		return "", err
	}
	s.Over()
	_, err = s.Launch(ctx, p, 0)
	return fmt.Sprintf("%s, with %d rows committed and not on Kafka", evidence, owed), err
}

func dropSlot(ctx context.Context, s *Stage) (string, error) {
	return s.without(ctx, func() (string, error) {
		return "slot dropped", s.Exec(ctx, `SELECT pg_drop_replication_slot($1)`, s.slot())
	})
}

func advanceSlot(ctx context.Context, s *Stage) (string, error) {
	return s.without(ctx, func() (string, error) {
		s.sampler.Pause() // what the slot confirms from here on is not the relay's word
		before, err := ask[string](ctx, s, `SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = $1`, s.slot())
		if err != nil {
			return "", err
		}
		after, err := ask[string](ctx, s, `SELECT end_lsn::text FROM pg_replication_slot_advance($1, pg_current_wal_flush_lsn())`, s.slot())
		if err == nil && after == before {
			err = void("the slot stays at %s", before)
		}
		return fmt.Sprintf("slot advanced from %s to %s", before, after), err
	})
}

// invalidateSlot lets the server have its way as soon as the slot holds a
// megabyte of WAL, and takes the limit back before the relay makes another slot.
func invalidateSlot(ctx context.Context, s *Stage) (string, error) {
	return s.without(ctx, func() (string, error) {
		if err := s.limitSlots(ctx, `ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'`); err != nil {
			return "", err
		}
		err := s.outrun(ctx, func(ctx context.Context) (bool, error) {
			status, err := ask[string](ctx, s, `SELECT coalesce(wal_status, '') FROM pg_replication_slots WHERE slot_name = $1`, s.slot())
			return status == "lost", err
		})
		if err != nil {
			return "", err
		}
		return "wal_status lost", s.limitSlots(ctx, `ALTER SYSTEM RESET max_slot_wal_keep_size`)
	})
}

// outrun writes WAL until the slot has lost what it needs.
func (s *Stage) outrun(ctx context.Context, lost func(context.Context) (bool, error)) error {
	return s.until(ctx, "the slot is lost", func(ctx context.Context) (bool, error) {
		for _, sql := range []string{
			`SELECT pg_logical_emit_message(false, 'chaos', repeat('x', 1000000)) FROM generate_series(1, 3)`,
			`SELECT pg_switch_wal()`,
			`CHECKPOINT`,
		} {
			if err := s.Exec(ctx, sql); err != nil {
				return false, err
			}
		}
		return lost(ctx)
	})
}

// invalidateTwice makes Kafka slow until some of the backlog is published and
// noted, and stops it then or leaves it slow, so that neither backlog ends before
// its slot is lost. By the end the relay has read the table under three slots.
func invalidateTwice(ctx context.Context, s *Stage) (string, error) {
	if err := s.Committed(ctx, 7000+s.Rand.IntN(3000)); err != nil {
		return "", err
	}
	s.eachLink(func(link *proxy.Proxy) { link.Slow(200_000) })
	defer s.eachLink((*proxy.Proxy).Pass)
	if _, err := s.Launch(ctx, s.Relays[0], 0); err != nil {
		return "", err
	}
	var cursor int64
	err := s.until(ctx, "some of the backlog is paid", func(ctx context.Context) (bool, error) {
		var err error
		cursor, err = ask[int64](ctx, s, `SELECT coalesce(max(cursor), 0) FROM outbox.relays WHERE phase = 'backlog'`)
		return cursor > 0, err
	})
	if err != nil {
		return "", err
	}
	if !s.exactlyOnce() { // which asks Kafka for its checkpoint before it makes a slot
		s.eachLink(func(link *proxy.Proxy) { link.Stall(proxy.Both) })
	}
	s.sampler.Pause() // the slot's position is not the relay's word until it streams
	for generation := 1; generation <= 2; generation++ {
		err := s.until(ctx, "the slot stands", func(ctx context.Context) (bool, error) {
			return ask[bool](ctx, s, `SELECT EXISTS (SELECT FROM outbox.relays WHERE phase = 'backlog' AND generation = $1)`, generation)
		})
		if err != nil {
			return "", err
		}
		if err := s.limitSlots(ctx, `ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'`); err != nil {
			return "", err
		}
		err = s.outrun(ctx, func(ctx context.Context) (bool, error) {
			return ask[bool](ctx, s, `SELECT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1 AND wal_status = 'lost') OR EXISTS (SELECT FROM outbox.relays WHERE generation > $2)`,
				s.slot(), generation)
		})
		if err := errors.Join(err, s.limitSlots(ctx, `ALTER SYSTEM RESET max_slot_wal_keep_size`)); err != nil {
			return "", err
		}
	}
	s.eachLink((*proxy.Proxy).Pass)
	s.Over()
	err = s.until(ctx, "the relay reads the table a third time", func(ctx context.Context) (bool, error) {
		generation, err := s.generation(ctx)
		return generation >= 3, err
	})
	return fmt.Sprintf("slot lost twice, first with the cursor at %d of %d", cursor, s.Load.Committed()), err
}

func (s *Stage) limitSlots(ctx context.Context, sql string) error {
	if err := s.Exec(ctx, sql); err != nil {
		return err
	}
	return s.Exec(ctx, `SELECT pg_reload_conf()`)
}
