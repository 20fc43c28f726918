package relay

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Events that are due later wait in a table of their own; the relay that leads
// has the database move them into the outbox. It has a goroutine and a
// connection of its own: what holds up an INSERT must not hold up the progress
// row. Two relays that move at once, because one was frozen, do no harm: a row
// is moved by the transaction that deletes it.

const (
	scheduleInterval = time.Second // between two looks, unless something is due before
	scheduleBatch    = 500
	reasonSchedule   = "schedule"
)

// scheduler moves what is due.
type scheduler struct {
	relay *Relay
	db    *database // nil while disconnected
	since time.Time // when it began to fail; zero if it works
}

// run works until ctx ends.
func (s *scheduler) run(ctx context.Context) {
	defer s.disconnect()
	defer s.relay.report(Condition{Reason: reasonSchedule})
	for {
		pause, err := s.round(ctx)
		if ctx.Err() != nil {
			return
		}
		s.tell(err)
		if errors.Is(err, errNoSchedule) {
			return
		}
		if err != nil {
			s.disconnect()
			pause = scheduleInterval
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
	}
}

// errNoSchedule is for an installation from before the table, or a role without the grant.
var errNoSchedule = errors.New("nothing can be scheduled here")

// round moves one batch and returns how long to wait for the next. The move
// waits for synchronous standbys, unlike progress: an event must not be on Kafka
// while a server that takes over has it as scheduled still.
func (s *scheduler) round(ctx context.Context) (time.Duration, error) {
	if err := s.connect(ctx); err != nil {
		return 0, err
	}
	ctx, cancel := unhurried(ctx)
	defer cancel()
	var moved int64
	var left *float64 // seconds
	err := s.db.QueryRow(ctx, `SELECT moved, extract(epoch FROM next - clock_timestamp())::float8 FROM `+quote(s.relay.cfg.Schema, "publish_due")+`($1)`, scheduleBatch).Scan(&moved, &left)
	if err != nil {
		return 0, fmt.Errorf("move what is due: %w", err)
	}
	s.relay.metrics.scheduled.Add(float64(moved))
	switch {
	case moved == scheduleBatch:
		return 0, nil
	case left != nil && *left < scheduleInterval.Seconds():
		return time.Duration(max(0.001, *left) * float64(time.Second)), nil
	}
	return scheduleInterval, nil
}

func (s *scheduler) connect(ctx context.Context) error {
	if s.db != nil {
		return nil
	}
	db, err := s.relay.openDatabase(ctx)
	if err != nil {
		return err
	}
	s.db = db
	ctx, cancel := unhurried(ctx)
	defer cancel()
	if _, err := db.Exec(ctx, `SET synchronous_commit = on`); err != nil {
		return fmt.Errorf("look for scheduled events: %w", err)
	}
	var there, granted bool
	name := quote(s.relay.cfg.Schema, "publish_due") + "(integer)"
	err = db.QueryRow(ctx, `SELECT f IS NOT NULL, coalesce(has_function_privilege(f, 'EXECUTE'), false) FROM to_regprocedure($1) AS f`, name).Scan(&there, &granted)
	switch {
	case err != nil:
		return fmt.Errorf("look for scheduled events: %w", err)
	case !there:
		return errNoSchedule
	case !granted:
		return fmt.Errorf("the relay's role may not; as the owner of the tables: GRANT EXECUTE ON FUNCTION %s TO %s", name, s.relay.quotedUser())
	}
	return nil
}

func (s *scheduler) disconnect() {
	if s.db != nil {
		s.db.close()
		s.db = nil
	}
}

// tell reports that nothing is moved, from the first failure on until it works again.
func (s *scheduler) tell(err error) {
	if err == nil || errors.Is(err, errNoSchedule) {
		if !s.since.IsZero() {
			s.since = time.Time{}
			s.relay.report(Condition{Reason: reasonSchedule})
		}
		return
	}
	if !s.since.IsZero() {
		return
	}
	s.since = time.Now()
	s.relay.log.Warn("scheduled events are not moved", "error", firstLine(err.Error()))
	s.relay.report(Condition{Reason: reasonSchedule, Since: s.since, Hint: "scheduled events are not moved: " + firstLine(err.Error())})
}
