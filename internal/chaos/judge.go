package chaos

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
)

// Over marks the moment from which rows could flow again as far as the fault is
// concerned: the server is back, the network passes, the relay was started.
func (s *Stage) Over() { s.over = time.Now() }

// Flow waits until a row is on Kafka whose commit was acknowledged after Over,
// and returns how long that took.
func (s *Stage) Flow(ctx context.Context) (time.Duration, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, 2*s.cfg.Step, fmt.Errorf("not within %s", 2*s.cfg.Step))
	defer cancel()
	id, err := s.Load.NextCommitted(ctx)
	if err != nil {
		return 0, err
	}
	if err := s.Reader.WaitFor(ctx, []ID{id}, s.cfg.Step); err != nil {
		return 0, fmt.Errorf("wait for rows to flow again: %w", err)
	}
	return time.Since(s.over), nil
}

// Quiet lets the writers end, and waits until all that was committed is on Kafka.
func (s *Stage) Quiet(ctx context.Context) error {
	if err := s.endWriters(ctx); err != nil {
		return err
	}
	return s.complete(ctx, s.Load.Outcome())
}

func (s *Stage) endWriters(ctx context.Context) error {
	s.quiet = true
	if err := s.writing(); err != nil {
		return err
	}
	return s.within(ctx, s.Load.Resolve)
}

// complete waits until all that was committed is on Kafka.
func (s *Stage) complete(ctx context.Context, out Outcome) error {
	ids := make([]ID, len(out.Committed))
	for i, row := range out.Committed {
		ids[i] = row.ID
	}
	return s.Reader.WaitFor(ctx, ids, s.cfg.Step)
}

// within gives f a step: servers may be gone for good where a fault went wrong.
func (s *Stage) within(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, s.cfg.Step, fmt.Errorf("not within %s", s.cfg.Step))
	defer cancel()
	return f(ctx)
}

// End lets the writers end, waits for the last row, stops the relays and
// judges. The error is for what no report can say: a relay that did not end in
// order, a server that did not answer, rows that did not arrive in time.
func (s *Stage) End(ctx context.Context) (Report, error) {
	if err := s.endWriters(ctx); err != nil {
		return Report{}, err
	}
	out := s.Load.Outcome()
	errs := []error{s.complete(ctx, out), s.stopAll(ctx)}
	if err := s.within(ctx, s.Reader.CatchUp); err != nil {
		return Report{}, errors.Join(append(errs, err)...)
	}
	hanging, err := s.openTransactions(ctx)
	if err != nil {
		return Report{}, errors.Join(append(errs, err)...)
	}
	table, err := s.Load.TableIDs(ctx)
	if err != nil {
		return Report{}, errors.Join(append(errs, err)...)
	}
	samples := s.sampler.Samples()
	if len(samples) == 0 {
		errs = append(errs, errors.New("nobody looked at the slot"))
	}
	return Verify(History{
		Committed: out.Committed, RolledBack: out.RolledBack, Vanished: out.Vanished, KeyContention: out.Meetings,
		Records: s.Reader.Records(), Table: table, Samples: samples, Hanging: hanging, ExactlyOnce: s.exactlyOnce() && !s.cfg.Repeats,
	}), errors.Join(errs...)
}

// transactionsEnd is how long a transaction may be open when no relay runs any
// more: its timeout, and the brokers' round of looking for such.
const transactionsEnd = 20 * time.Second

// openTransactions waits until no transaction is open in the partitions of rows
// and of checkpoints, and returns those in which one still is. An open one holds
// back the last stable offset from the end of the log.
func (s *Stage) openTransactions(ctx context.Context) (hanging []string, err error) {
	if !s.exactlyOnce() {
		return nil, nil
	}
	topic, err := s.checkpoints(ctx)
	if err != nil {
		return nil, err
	}
	deadline := time.Now().Add(transactionsEnd)
	err = s.until(ctx, "the brokers tell how far the partitions go", func(ctx context.Context) (bool, error) {
		hanging = nil
		err := s.admin(func(admin *kadm.Client) error {
			stable, err := admin.ListCommittedOffsets(ctx, s.topic, topic)
			if err != nil {
				return err
			}
			ends, err := admin.ListEndOffsets(ctx, s.topic, topic)
			if err != nil {
				return err
			}
			ends.Each(func(end kadm.ListedOffset) {
				if at, ok := stable.Lookup(end.Topic, end.Partition); end.Err == nil && ok && at.Offset < end.Offset {
					hanging = append(hanging, fmt.Sprintf("%s/%d: stable up to %d of %d", end.Topic, end.Partition, at.Offset, end.Offset))
				}
			})
			return nil
		})
		return err == nil && (hanging == nil || time.Now().After(deadline)), err
	})
	return hanging, err
}

// checkpoints is the topic of the relays' checkpoints.
func (s *Stage) checkpoints(ctx context.Context) (string, error) {
	system, err := ask[string](ctx, s, `SELECT system_identifier::text FROM pg_control_system()`)
	return "outrider." + s.name() + ".checkpoint." + system, err
}
