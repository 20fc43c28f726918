package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// The part idle asks what relays cost that have nothing to do, as most of sixty
// services' have at night: one that leads and one that waits, at the default
// settings, on a database where nobody writes.

// idleTime is how long they are looked at; the slowest of the relay's timers
// (WAL_SENDER_TIMEOUT / 2 at the default) strikes four times.
const idleTime = 30 * time.Second

// idleResult is what an idle pair of relays costs.
type idleResult struct {
	Leader       idleProcess `json:"leader"`
	Waiting      idleProcess `json:"waiting"`
	Transactions float64     `json:"database_transactions_per_second"` // of both
	WAL          float64     `json:"wal_bytes_per_hour"`
}

type idleProcess struct {
	CPU  float64 `json:"cpu_ms_per_second"`
	Peak float64 `json:"rss_peak_mib"`
}

func (b *bench) idle(ctx context.Context) (err error) {
	sink := sinkStdout
	switch {
	case b.has(sinkKafka):
		sink = sinkKafka
	case b.has(sinkFake):
		sink = sinkFake
	}
	const slot = "idle"
	if err := b.db.makeSlot(ctx, slot); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.db.leave(context.WithoutCancel(ctx), slot)) }()
	if err := b.db.enroll(ctx, slot); err != nil {
		return err
	}
	settings := relaySettings{binary: b.binary, slot: slot, sink: sink}
	if sink != sinkStdout {
		br, err := b.brokerFor(ctx, sink, slot)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, br.close()) }()
		settings.broker = br
	}
	leader, err := b.startRelay(settings)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, leader.close()) }()
	if _, err := b.db.walsender(ctx, slot, leader.ended); err != nil {
		return err
	}
	waiting, err := b.startRelay(settings)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, waiting.close()) }()
	b.say("idle: a relay that leads and one that waits, %s", idleTime)
	if err := pause(ctx, 5*time.Second); err != nil { // what a start takes is over
		return err
	}
	r, err := b.look(ctx, leader, waiting)
	if err != nil {
		return err
	}
	b.results.Idle = r
	return nil
}

// look compares what both and the database have taken before and after idleTime.
func (b *bench) look(ctx context.Context, leader, waiting *relayProcess) (*idleResult, error) {
	r := &idleResult{}
	state := func() (l, w usage, transactions, wal float64, err error) {
		if l, err = usageOf(leader.Pid()); err == nil {
			w, err = usageOf(waiting.Pid())
		}
		if err == nil {
			err = b.db.QueryRow(ctx, `SELECT xact_commit + xact_rollback, (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::float8
FROM pg_stat_database WHERE datname = current_database()`).Scan(&transactions, &wal)
		}
		return l, w, transactions, wal, errors.Join(err, leader.ended(), waiting.ended())
	}
	l0, w0, transactions0, wal0, err := state()
	if err != nil {
		return nil, err
	}
	began := time.Now()
	if err := pause(ctx, idleTime); err != nil {
		return nil, err
	}
	l1, w1, transactions1, wal1, err := state()
	if err != nil {
		return nil, err
	}
	took := time.Since(began)
	process := func(before, after usage) idleProcess {
		return idleProcess{float64((after.cpu - before.cpu).Milliseconds()) / took.Seconds(), float64(after.peak) / (1 << 20)}
	}
	r.Leader, r.Waiting = process(l0, l1), process(w0, w1)
	r.Transactions, r.WAL = (transactions1-transactions0)/took.Seconds(), (wal1-wal0)/took.Hours()
	return r, nil
}

func (r *results) idleTable() string {
	rows := [][]string{{"relay", "CPU, ms a second", "RSS MiB"}}
	for _, p := range []struct {
		name string
		idleProcess
	}{{"leads", r.Idle.Leader}, {"waits", r.Idle.Waiting}} {
		rows = append(rows, []string{p.name, fmt.Sprintf("%.1f", p.CPU), fmt.Sprintf("%.0f", p.Peak)})
	}
	return markdown(rows, 1) + fmt.Sprintf("\nBoth together: %.1f short transactions a second in the database, %.0f bytes of WAL an hour.\n", r.Idle.Transactions, r.Idle.WAL)
}
