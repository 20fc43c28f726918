package relay

import (
	"context"
	"fmt"
	"time"
)

// From Postgres 17 on a slot made with failover is copied to standbys, so that a
// promoted one has it. Two things about that need a hand.
//
// A new slot's copy counts only when the slot has moved beyond what the standby
// had when it first saw it ("newly created replication slot is sync-ready now"
// in the standby's log). That takes a record of running transactions, and a
// client that confirms: on an idle server half a minute, in which a promotion
// would leave the slot behind.
//
// And while synchronized_standby_slots names a slot that nobody streams from,
// the walsender withholds all rows, keepalives going on, and tells so in nothing
// but a warning on the stream. A promoted server inherits the setting, not the slot.

// readying moves the slot until standbys may rely on their copies. The primary
// cannot see when that is, so it is done for a while after standbys have come,
// and then no more: often at first, then as often as the worker of a standby
// looks that has been idle.
type readying struct {
	standbys string // that stream from the server
	looked   time.Time
	rounds   int
	next     time.Time
	logs     bool // the role may call pg_log_standby_snapshot
}

const (
	readyingFast, readyingSlow           = 50, 12
	readyingFastPause, readyingSlowPause = 100 * time.Millisecond, 5 * time.Second
)

// look begins anew when standbys have come that may copy slots.
func (y *readying) look(ctx context.Context, db *database) error {
	if db.version < 170000 || time.Since(y.looked) < lookInterval {
		return nil
	}
	y.looked = time.Now()
	var standbys string
	err := db.QueryRow(ctx, `SELECT coalesce(string_agg(slot_name || '/' || active_pid, ' ' ORDER BY slot_name), ''),
 has_function_privilege('pg_log_standby_snapshot()', 'EXECUTE') FROM pg_replication_slots WHERE slot_type = 'physical' AND active`).Scan(&standbys, &y.logs)
	if err != nil {
		return fmt.Errorf("look for standbys: %w", err)
	}
	if standbys != y.standbys && standbys != "" {
		y.rounds = readyingFast + readyingSlow
	}
	y.standbys = standbys
	return nil
}

// due reports whether the slot should be moved now.
func (y *readying) due() bool { return y.rounds > 0 && !time.Now().Before(y.next) }

// round has the server log which transactions run; the caller then writes the
// row, by which the slot moves beyond that.
func (y *readying) round(ctx context.Context, db *database) error {
	y.rounds--
	pause := readyingSlowPause
	if y.rounds >= readyingSlow {
		pause = readyingFastPause
	}
	y.next = time.Now().Add(pause)
	if !y.logs {
		return nil
	}
	if _, err := db.Exec(ctx, `SELECT pg_log_standby_snapshot()`); err != nil {
		return fmt.Errorf("log the running transactions: %w", err)
	}
	return nil
}

// reasonStandbySlots is the condition of a stream that waits for a standby.
const reasonStandbySlots = "standby_slots"

// withheld makes the warning of a walsender that waits for standbys visible.
func (s *stream) withheld(message string) {
	if s.withholds {
		return
	}
	s.withholds = true
	s.relay.report(Condition{
		Reason: reasonStandbySlots, Since: time.Now(),
		Hint: "the server sends no rows, because synchronized_standby_slots names a slot that no standby streams from (" + message +
			"). Start that standby; or, if it will not come back: ALTER SYSTEM SET synchronized_standby_slots = ''; SELECT pg_reload_conf();",
	})
}

// sent ends that condition: a transaction has come.
func (s *stream) sent() {
	if s.withholds {
		s.withholds = false
		s.relay.report(Condition{Reason: reasonStandbySlots})
	}
}
