package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/outrider-cdc/outrider/relay"
)

// deadAnswerCommand makes divert and skip: the answer to a relay that waits.
func deadAnswerCommand(load func() (relay.Config, error), answer, short string) *cobra.Command {
	return &cobra.Command{
		Use:   answer + " <id>...",
		Short: short,
		Args:  someIDs,
		RunE: func(cmd *cobra.Command, ids []string) error {
			return withDeadLetters(cmd, load, func(ctx context.Context, d *deadLetters) error {
				answered, err := d.answer(ctx, ids, answer)
				if err != nil {
					return err
				}
				for _, r := range answered {
					_, _ = fmt.Fprintf(cmd.OutOrStdout(), "%s %s at %s: the relay does it at its next attempt\n", answer, r.name(), r.Position)
				}
				return nil
			})
		},
	}
}

// answer writes the answer to all halted rows that ids name, or to none if one
// of the ids names no halted row.
func (d *deadLetters) answer(ctx context.Context, ids []string, answer string) (answered []deadRow, err error) {
	err = pgx.BeginFunc(ctx, d.conn, func(tx pgx.Tx) error {
		found, err := d.named(ctx, tx, ids, forUpdate)
		if err != nil {
			return err
		}
		if err := eachHasHalted(ids, found, answer); err != nil {
			return err
		}
		for _, r := range found {
			if r.State != stateHalted {
				continue // the same event at a place that was answered before
			}
			if _, err := tx.Exec(ctx, `UPDATE `+d.table+` SET state = $4, updated_at = now() WHERE slot = $1 AND source = $2 AND position = $3`,
				r.Slot, r.Source, r.Position, answer); err != nil {
				return fmt.Errorf("answer for row %s: %w", r.name(), err)
			}
			answered = append(answered, r)
		}
		return nil
	})
	return answered, err
}

// eachHasHalted tells of each id that names no row at which the relay waits.
func eachHasHalted(ids []string, found []deadRow, answer string) error {
	var errs []error
	for _, id := range ids {
		var last deadRow
		halted := false
		for _, r := range found {
			if r.ID == id || r.Position == id {
				last, halted = r, halted || r.State == stateHalted
			}
		}
		switch {
		case halted:
		case last.final():
			errs = append(errs, hinted(fmt.Errorf("row %s is %s: no relay waits at it, so it cannot be told to %s it", id, last.State, answer),
				relay.Hint{Say: "publish it again", Shell: "outrider deadletter retry " + shellWord(id)},
				relay.Hint{Say: "remove it for good", Shell: "outrider deadletter drop " + shellWord(id)}))
		default:
			errs = append(errs, hinted(fmt.Errorf("row %s was answered with %s before, and the relay has not carried that out", id, last.State),
				relay.Hint{Say: "see what the relay is doing", Shell: "outrider status"}))
		}
	}
	return errors.Join(errs...)
}

func deadDropCommand(load func() (relay.Config, error)) *cobra.Command {
	var all, yes bool
	cmd := &cobra.Command{
		Use:   "drop <id>... | --all",
		Short: "Remove dead-lettered and skipped rows for good",
		Args:  idsOrAll(&all),
		RunE: func(cmd *cobra.Command, ids []string) error {
			return withDeadLetters(cmd, load, func(ctx context.Context, d *deadLetters) error {
				drop := func() (int64, error) { return d.drop(ctx, ids) }
				if all {
					drop = func() (int64, error) { return d.dropAll(ctx, yes) }
				}
				dropped, err := drop()
				if err != nil {
					return err
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "dropped %d\n", dropped)
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "all dead-lettered and skipped rows of this relay")
	cmd.Flags().BoolVar(&yes, "yes", false, "with --all: do it")
	return cmd
}

// drop removes all rows that ids name, or none if the relay is not done with one of them.
func (d *deadLetters) drop(ctx context.Context, ids []string) (dropped int64, err error) {
	err = pgx.BeginFunc(ctx, d.conn, func(tx pgx.Tx) error {
		found, err := d.named(ctx, tx, ids, forUpdate)
		if err != nil {
			return err
		}
		if err := allFinal(found); err != nil {
			return err
		}
		for _, r := range found {
			tag, err := tx.Exec(ctx, `DELETE FROM `+d.table+` WHERE slot = $1 AND source = $2 AND position = $3`, r.Slot, r.Source, r.Position)
			if err != nil {
				return fmt.Errorf("drop row %s: %w", r.name(), err)
			}
			dropped += tag.RowsAffected()
		}
		return nil
	})
	return dropped, err
}

// isFinal is [deadRow.final] as a condition.
const isFinal = `state IN ('` + stateDeadLettered + `', '` + stateSkipped + `')`

func (d *deadLetters) dropAll(ctx context.Context, yes bool) (dropped int64, err error) {
	if !yes {
		var n int64
		if err := d.conn.QueryRow(ctx, `SELECT count(*) FROM `+d.table+` WHERE slot = $1 AND `+isFinal, d.cfg.Slot).Scan(&n); err != nil {
			return 0, fmt.Errorf("count the rows to drop: %w", err)
		}
		return 0, hinted(fmt.Errorf("this would remove %d rows of slot %s for good; some may be nowhere else any more", n, d.cfg.Slot),
			relay.Hint{Say: "look at them", Shell: "outrider deadletter list"}, relay.Hint{Say: "do it", Shell: "outrider deadletter drop --all --yes"})
	}
	tag, err := d.conn.Exec(ctx, `DELETE FROM `+d.table+` WHERE slot = $1 AND `+isFinal, d.cfg.Slot)
	if err != nil {
		return 0, fmt.Errorf("drop rows: %w", err)
	}
	return tag.RowsAffected(), nil
}

// allFinal tells of each row with which the relay is not done.
func allFinal(found []deadRow) error {
	var errs []error
	for _, r := range found {
		switch {
		case r.final():
		case r.State == stateHalted:
			errs = append(errs, hinted(fmt.Errorf("row %s at %s is halted: the relay waits at it", r.name(), r.Position),
				relay.Hint{Say: "have it published to the dead-letter topic", Shell: "outrider deadletter divert " + shellWord(r.name())},
				relay.Hint{Say: "leave it out", Shell: "outrider deadletter skip " + shellWord(r.name())}))
		default:
			errs = append(errs, hinted(fmt.Errorf("row %s at %s was answered with %s, and the relay has not carried that out", r.name(), r.Position, r.State),
				relay.Hint{Say: "see what the relay is doing", Shell: "outrider status"}))
		}
	}
	return errors.Join(errs...)
}
