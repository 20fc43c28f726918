package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/outrider-cdc/outrider/internal/chaos"
)

// quiet is how long nothing new may arrive before what is missing counts as lost.
const quiet = 10 * time.Second

// judge waits for the last event, stops Outrider the way an operator does, and
// compares what was committed with what is on Kafka.
func (s *show) judge(ctx context.Context) error {
	s.screen.say(bold, "no more orders")
	if !s.outrider.Running() {
		if _, err := s.launch(ctx); err != nil {
			return err
		}
	}
	missing := s.reader.WaitFor(ctx, s.tally.ids(), quiet) // the verdict says more
	if err := s.outrider.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	code, err := s.outrider.Wait(ctx)
	if err != nil {
		return err
	}
	s.screen.say(plain, "Outrider was told to stop and ended with exit code %d", code)
	if code != 0 {
		return fmt.Errorf("exit code %d of Outrider\n%s", code, s.outrider.LogTail(4000))
	}
	if err := s.reader.CatchUp(ctx); err != nil {
		return err
	}
	rows, err := s.pool.Query(ctx, `SELECT id FROM outbox.events`)
	if err != nil {
		return fmt.Errorf("read the outbox table: %w", err)
	}
	table, err := pgx.CollectRows(rows, pgx.RowTo[[16]byte])
	if err != nil {
		return fmt.Errorf("read the outbox table: %w", err)
	}
	report := chaos.Verify(s.history(table))
	s.results(report)
	err = report.Err()
	if err == nil || s.hold && errors.Is(err, chaos.ErrVoid) { // a visit may be too quiet to prove anything
		return nil
	}
	return errors.Join(err, missing, fmt.Errorf("the end of Outrider's log:\n%s", s.outrider.LogTail(2000)))
}

func (s *show) history(table [][16]byte) chaos.History {
	h := chaos.History{
		Committed: s.tally.committed, RolledBack: s.tally.rolledBack, KeyContention: s.tally.meetings,
		Records: s.reader.Records(), Table: make([]chaos.ID, len(table)),
	}
	for i, id := range table {
		h.Table[i] = id
	}
	return h
}

// results prints the figures, and last the one line that counts.
func (s *show) results(r chaos.Report) {
	lines := []string{"", fmt.Sprintf("%-24s%8s%10s%10s%10s", "commit to consumer", "events", "p50", "p90", "p99")}
	for _, l := range s.tally.latencies(s.outages) {
		lines = append(lines, fmt.Sprintf("  %-22s%8d%10s%10s%10s", l.name, l.count, short(l.p50), short(l.p90), short(l.p99)))
	}
	lines = append(lines, "",
		fmt.Sprintf("records on Kafka %d: %d came again (same id), %d of rolled-back orders (there were %d)",
			r.Records, r.Duplicates.Count, r.Ghosts.Count, len(s.tally.rolledBack)),
		verdict(r))
	s.screen.text(strings.Join(lines, "\n"))
}

func verdict(r chaos.Report) string {
	return fmt.Sprintf("committed %d, delivered %d, lost %d, out of order %d", r.Committed, r.Delivered, r.Lost.Count, r.OutOfOrder.Count)
}
