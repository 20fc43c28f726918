package relay

import (
	"context"
	"errors"
	"time"
)

// A leader that gets no acknowledgement says so in the row; a standby that
// reaches the sink answers there; only then the leader lets go. With nobody to
// take over, nothing is released: a slot kept through an outage loses nothing.

// Prober is a sink that can tell whether it would reach its destination,
// before it is begun.
type Prober interface {
	// Probe returns nil if the destination answers. Any goroutine; ctx bounds it.
	Probe(ctx context.Context) error
}

// errYield ends the leadership of a relay whose sink is stuck, in favour of another.
var errYield = errors.New("the sink has acknowledged nothing for long, and a standby reaches it: it may lead")

// stuckness watches acknowledgements.
type stuckness struct {
	acked int64
	since time.Time // no acknowledgement since, although rows wait; zero: none waits
	now   bool
	told  bool // as the row has it
}

// look returns whether the sink counts as stuck now.
func (s *stuckness) look(f *flight, busy bool, after time.Duration) bool {
	acked := f.acked.Load()
	switch {
	case !busy || acked != s.acked:
		s.since = time.Time{}
	case s.since.IsZero():
		s.since = time.Now()
	}
	s.acked = acked
	s.now = !s.since.IsZero() && after > 0 && time.Since(s.since) >= after
	return s.now
}

// offer makes this standby a candidate if the leader is stuck and we reach the sink.
func (r *Relay) offer(ctx context.Context, db *database) {
	prober, ok := r.sink.(Prober)
	if !ok {
		return
	}
	var stuck bool
	err := db.QueryRow(ctx, `SELECT stuck_since IS NOT NULL FROM `+db.relays()+` WHERE slot = $1`, r.cfg.Slot).Scan(&stuck)
	if err != nil || !stuck {
		return // no row yet, or no connection: the next look tells
	}
	probing, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	if err := prober.Probe(probing); err != nil {
		r.log.Info("the leader is stuck, and this standby does not reach the sink either", "error", err)
		return
	}
	if _, err := db.Exec(ctx, `UPDATE `+db.relays()+` SET candidate = $2, candidate_at = clock_timestamp()
WHERE slot = $1 AND stuck_since IS NOT NULL`, r.cfg.Slot, r.cfg.Instance); err != nil {
		r.log.Warn("could not offer to lead", "error", err)
		return
	}
	r.log.Info("the leader is stuck; this standby reaches the sink and offers to lead")
}

// standbyConnection is how long a standby looks over one connection. For a new
// one the server starts a process, so it must not be one a look; and it must not
// be one for ever, since the address may lead to another server by now.
const standbyConnection = 15 * time.Second

// awaitSlot looks at the slot until nobody holds it, or with [standbyError] for standbyConnection.
func (r *Relay) awaitSlot(ctx context.Context, db *database) (c candidacy, err error) {
	for began := time.Now(); ; {
		r.turn()
		looking, cancel := context.WithTimeout(ctx, connectTimeout) // a host that vanished does not answer
		c, err = r.look(looking, db)
		cancel()
		if _, held := errors.AsType[*standbyError](err); !held || time.Since(began) > standbyConnection {
			return c, err
		}
		r.setRole(RoleStandby, "slot_held", err)
		select {
		case <-ctx.Done():
			return c, err
		case <-time.After(jittered(standbyInterval)):
		}
	}
}

// yielded keeps a relay that let go from taking the slot back at once.
func (r *Relay) yielded() error {
	if time.Now().Before(r.abstain) {
		return &standbyError{"nobody yet; this relay let it go because its sink is stuck"}
	}
	return nil
}
