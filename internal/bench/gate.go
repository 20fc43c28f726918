package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/outrider-cdc/outrider/relay"
)

// The part gate asks what the visibility gate costs, where it costs most: rows
// in transactions of their own. A relay without it and one with it take turns
// at three things: reading what was committed long ago (one snapshot sees all
// of it), following writers who commit as fast as they can (each snapshot sees
// a few), and the time from commit to consumer at a steady rate (as a rule one
// snapshot for each transaction).

// gateResult is a relay with one setting. Each figure is the best of the runs.
type gateResult struct {
	Gate    string  `json:"gate"`
	CatchUp float64 `json:"rows_per_second_catching_up"`
	Follow  float64 `json:"rows_per_second_following_writers"`
	Latency *steady `json:"latency,omitempty"` // without the fake broker there is none
}

func (b *bench) gate(ctx context.Context) error {
	rows := b.options.singleRows()
	b.say("loading %d rows in transactions of 1", rows)
	data, err := b.db.load(ctx, partGate, rows, 1)
	if err != nil {
		return err
	}
	off, on := &gateResult{Gate: relay.GateNone}, &gateResult{Gate: relay.GateVisible}
	for range b.options.repeat {
		for _, r := range []*gateResult{off, on} {
			err := b.calmly(ctx, partGate, func(run string) (others float64, err error) { return b.gateCatchUp(ctx, r, run, data) })
			if err != nil {
				return fmt.Errorf("gate %s, catching up: %w", r.Gate, err)
			}
		}
	}
	if err := b.db.unload(ctx); err != nil {
		return err
	}
	for range b.options.repeat {
		for _, r := range []*gateResult{off, on} {
			err := b.calmly(ctx, partGate, func(run string) (others float64, err error) { return b.gateFollow(ctx, r, run, max(rows/10, 1)) })
			if err != nil {
				return fmt.Errorf("gate %s, following: %w", r.Gate, err)
			}
			if !b.has(sinkFake) {
				continue
			}
			err = b.calmly(ctx, partGate, func(run string) (others float64, err error) { return b.gateLatency(ctx, r, run) })
			if err != nil {
				return fmt.Errorf("gate %s, latency: %w", r.Gate, err)
			}
		}
	}
	b.results.Gate = []*gateResult{off, on}
	return nil
}

func (r *gateResult) settings() []string { return []string{"OUTRIDER_GATE=" + r.Gate} }

func (b *bench) gateCatchUp(ctx context.Context, r *gateResult, run string, data *data) (others float64, err error) {
	slot := slotName(run, sinkStdout)
	if err := b.db.copyBase(ctx, slot); err != nil {
		return 0, err
	}
	if err := b.db.enroll(ctx, slot); err != nil {
		return 0, err
	}
	m, err := b.readSlot(ctx, slot, data, 0, func() (reader, error) {
		return b.startRelay(relaySettings{binary: b.binary, slot: slot, sink: sinkStdout, rows: data.rows, extra: r.settings()})
	})
	if err != nil {
		return 0, err
	}
	b.say("gate    %-8s catching up   %s", r.Gate, m)
	r.CatchUp = max(r.CatchUp, m.Rate)
	return m.Others, nil
}

// gateFollow is timed from the first commit until the relay counts all rows as
// durable. Writers, server and relay share the machine.
func (b *bench) gateFollow(ctx context.Context, r *gateResult, run string, rows int) (others float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, runLimit)
	defer cancel()
	slot := slotName(run, sinkStdout)
	if err := b.db.makeSlot(ctx, slot); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, b.db.leave(context.WithoutCancel(ctx), slot)) }()
	if err := b.db.enroll(ctx, slot); err != nil {
		return 0, err
	}
	p, err := b.startRelay(relaySettings{binary: b.binary, slot: slot, sink: sinkStdout, rows: rows, extra: r.settings()})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	if _, err := b.db.walsender(ctx, slot, p.ended); err != nil {
		return 0, err
	}
	n, err := watch()
	if err != nil {
		return 0, err
	}
	start := time.Now()
	written, err := b.write(ctx, rows, asFastAsTheyCan)
	if err != nil {
		return 0, errors.Join(err, p.ended())
	}
	if err := p.finished(ctx); err != nil {
		return 0, err
	}
	rate := float64(rows) / time.Since(start).Seconds()
	if others, err = n.others(); err != nil {
		return 0, err
	}
	b.say("gate    %-8s following     %6.1fk rows/s  written at %.1fk/s  (others %.2f cores)", r.Gate, rate/1e3, written/1e3, others)
	r.Follow = max(r.Follow, rate)
	return others, nil
}

// asFastAsTheyCan is a rate that nobody reaches.
const asFastAsTheyCan = 1_000_000

func (b *bench) gateLatency(ctx context.Context, r *gateResult, run string) (others float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, runLimit)
	defer cancel()
	n, err := watch()
	if err != nil {
		return 0, err
	}
	s, err := b.relayLatency(ctx, leg{sink: sinkFake, relay: true}, run, r.settings()...)
	if err != nil {
		return 0, err
	}
	if s.Others, err = n.others(); err != nil {
		return 0, err
	}
	b.say("gate    %-8s latency       p50 %5.2f ms  p99 %5.2f ms  max %5.1f ms  at %.0f/s  (others %.2f cores)", r.Gate, s.P50, s.P99, s.Max, s.Rate, s.Others)
	if r.Latency == nil || s.P99 < r.Latency.P99 {
		r.Latency = &s
	}
	return s.Others, nil
}

func (r *results) gateTable() string {
	rows := [][]string{{"gate", "catching up, k rows/s", "following, k rows/s", "p50 ms", "p99 ms"}}
	for _, g := range r.Gate {
		row := []string{g.Gate, fmt.Sprintf("%.1f", g.CatchUp/1e3), fmt.Sprintf("%.1f", g.Follow/1e3), "", ""}
		if g.Latency != nil {
			row[3], row[4] = fmt.Sprintf("%.2f", g.Latency.P50), fmt.Sprintf("%.2f", g.Latency.P99)
		}
		rows = append(rows, row)
	}
	off, on := r.Gate[0], r.Gate[1]
	ratio := []string{"ratio", fmt.Sprintf("%.2f", on.CatchUp/off.CatchUp), fmt.Sprintf("%.2f", on.Follow/off.Follow), "", ""}
	if off.Latency != nil && on.Latency != nil {
		ratio[3], ratio[4] = fmt.Sprintf("%.2f", on.Latency.P50/off.Latency.P50), fmt.Sprintf("%.2f", on.Latency.P99/off.Latency.P99)
	}
	return markdown(append(rows, ratio), 1)
}
