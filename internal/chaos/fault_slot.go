package chaos

import (
	"context"
	"fmt"
)

// slotFaults happen to the slot while the relay is down, so that rows lie
// before whatever slot it finds: only the table still has them.
func slotFaults() []Fault {
	return []Fault{
		{
			Name: "slot-dropped", Description: "the slot is dropped while the relay is down and rows wait in it",
			Recovers: true, strike: dropSlot,
		},
		{
			Name: "slot-advanced", Description: "the slot is advanced by hand past rows that wait in it, while the relay is down",
			Recovers: true, strike: advanceSlot,
		},
		{
			Name: "slot-invalidated", Description: "the server invalidates the slot (max_slot_wal_keep_size) while the relay is down and rows wait in it",
			Recovers: true, strike: invalidateSlot,
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
		return "slot dropped", s.Exec(ctx, `SELECT pg_drop_replication_slot($1)`, slotName)
	})
}

func advanceSlot(ctx context.Context, s *Stage) (string, error) {
	return s.without(ctx, func() (string, error) {
		s.sampler.Pause() // what the slot confirms from here on is not the relay's word
		before, err := ask[string](ctx, s, `SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = $1`, slotName)
		if err != nil {
			return "", err
		}
		after, err := ask[string](ctx, s, `SELECT end_lsn::text FROM pg_replication_slot_advance($1, pg_current_wal_flush_lsn())`, slotName)
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
		err := s.until(ctx, "the slot is lost", func(ctx context.Context) (bool, error) {
			for _, sql := range []string{
				`SELECT pg_logical_emit_message(false, 'chaos', repeat('x', 1000000)) FROM generate_series(1, 3)`,
				`SELECT pg_switch_wal()`,
				`CHECKPOINT`,
			} {
				if err := s.Exec(ctx, sql); err != nil {
					return false, err
				}
			}
			status, err := ask[string](ctx, s, `SELECT coalesce(wal_status, '') FROM pg_replication_slots WHERE slot_name = $1`, slotName)
			return status == "lost", err
		})
		if err != nil {
			return "", err
		}
		return "wal_status lost", s.limitSlots(ctx, `ALTER SYSTEM RESET max_slot_wal_keep_size`)
	})
}

func (s *Stage) limitSlots(ctx context.Context, sql string) error {
	if err := s.Exec(ctx, sql); err != nil {
		return err
	}
	return s.Exec(ctx, `SELECT pg_reload_conf()`)
}
