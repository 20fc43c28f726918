package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// Legs of a throughput part: who reads or writes, and where it goes.
const (
	legRaw      = "raw reader"
	legStdout   = "outrider → stdout"
	legFake     = "outrider → kfake"
	legKafka    = "outrider → kafka"
	legExact    = "outrider → kafka, exactly-once"
	legBareFake = "producer → kfake"
	legBare     = "producer → kafka"
)

// leg is one thing to measure.
type leg struct {
	name  string
	sink  string // "" for the raw reader
	relay bool
	exact bool // exactly-once
}

// legs are those that the options ask for, in the order in which they take
// turns: each relay after its baseline of the same repetition.
func (b *bench) legs() []leg {
	list := []leg{{name: legRaw}}
	for _, l := range []leg{
		{legStdout, sinkStdout, true, false},
		{legBareFake, sinkFake, false, false},
		{legFake, sinkFake, true, false},
		{legBare, sinkKafka, false, false},
		{legKafka, sinkKafka, true, false},
		{legExact, sinkKafka, true, true},
	} {
		if b.has(l.sink) {
			list = append(list, l)
		}
	}
	return list
}

// throughput measures all legs on one body of data.
func (b *bench) throughput(ctx context.Context, part string, rows, size int) error {
	b.say("loading %d rows in transactions of %d", rows, size)
	data, err := b.db.load(ctx, part, rows, size)
	if err != nil {
		return err
	}
	for range b.options.repeat {
		for _, l := range b.legs() {
			if err := b.runLeg(ctx, l, data); err != nil {
				return err
			}
		}
	}
	if err := b.profiles(ctx, data); err != nil {
		return err
	}
	return b.db.unload(ctx)
}

func (m measurement) String() string {
	text := fmt.Sprintf("%6.1fk rows/s  %5.2f CPU-s/M  %3.0f MiB", m.Rate/1e3, m.Process.CPU, m.Process.Peak)
	if m.Walsender != nil {
		text += fmt.Sprintf("  walsender %5.2f", m.Walsender.CPU)
	}
	if m.Broker != nil {
		text += fmt.Sprintf("  broker %5.2f", m.Broker.CPU)
	}
	return text + fmt.Sprintf("  (others %.2f cores)", m.Others)
}

// runLeg measures one leg once.
func (b *bench) runLeg(ctx context.Context, l leg, data *data) error {
	var m measurement
	err := b.calmly(ctx, data.part, func(run string) (others float64, err error) {
		m, err = b.makeRun(ctx, l, run, data)
		return m.Others, err
	})
	if err != nil {
		return fmt.Errorf("%s, %s: %w", data.part, l.name, err)
	}
	b.say("%-7s %-30s %s", data.part, l.name, m)
	b.results.add(data.part, l.name, m)
	return nil
}

func (b *bench) makeRun(ctx context.Context, l leg, run string, data *data) (measurement, error) {
	switch {
	case l.relay:
		return b.relayRun(ctx, l, run, data, b.binary, "")
	case l.sink != "":
		return b.bareProducer(ctx, l.sink, run, data.rows)
	default:
		return b.rawRun(ctx, run, data)
	}
}

// reader is a process that reads a slot.
type reader interface {
	Pid() int
	ended() error
	finished(ctx context.Context) error
	close() error
}

var (
	_ reader = (*worker)(nil)
	_ reader = (*relayProcess)(nil)
)

// rawRun has the raw reader read the data.
func (b *bench) rawRun(ctx context.Context, run string, data *data) (m measurement, err error) {
	slot := slotName(run, "raw")
	if err := b.db.copyBase(ctx, slot); err != nil {
		return m, err
	}
	return b.readSlot(ctx, slot, data, 0, func() (reader, error) {
		return b.startWorker(ctx, job{Role: roleRaw, URL: b.db.url(), Slot: slot, Rows: data.rows})
	})
}

// relayRun has the relay read the data into a sink, and counts what is there.
// profile is the file for a profile, if binary is one that makes it.
func (b *bench) relayRun(ctx context.Context, l leg, run string, data *data, binary, profile string) (m measurement, err error) {
	slot, prefix := slotName(run, l.sink), run+"."
	if err := b.db.copyBase(ctx, slot); err != nil {
		return m, err
	}
	if err := b.db.enroll(ctx, slot); err != nil {
		return m, err
	}
	br, err := b.brokerFor(ctx, l.sink, prefix+tableTopic)
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, br.close()) }()
	m, err = b.readSlot(ctx, slot, data, br.pid, func() (reader, error) {
		r, err := b.startRelay(relaySettings{binary: binary, slot: slot, sink: l.sink, exact: l.exact, broker: br, prefix: prefix, rows: data.rows, profile: profile})
		if err == nil && profile != "" {
			return &profiledRelay{r, profile}, nil
		}
		return r, err
	})
	if err == nil && br.pid != 0 {
		err = br.holds(ctx, data.rows, l.exact)
	}
	return m, err
}

func slotName(run, sink string) string {
	return "bench_" + strings.ReplaceAll(run, "-", "_") + "_" + sink
}

// readSlot measures one reader of a slot, and drops the slot. Clock and CPU
// time run from the moment when the server shows the slot as taken, until the
// walsender has sent the data and the reader is through with it. That is seen
// from outside, and in the same way for every reader.
func (b *bench) readSlot(ctx context.Context, slot string, data *data, broker int, start func() (reader, error)) (m measurement, err error) {
	defer func() { err = errors.Join(err, b.db.leave(context.WithoutCancel(ctx), slot)) }()
	r, err := start()
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	ctx, cancel := context.WithTimeout(ctx, runLimit)
	defer cancel()
	walsender, err := b.db.walsender(ctx, slot, r.ended)
	if err != nil {
		return m, err
	}
	w, err := openWindow(pids{process: r.Pid(), walsender: walsender, broker: broker})
	if err != nil {
		return m, err
	}
	if err := b.db.sent(ctx, walsender, data, r.ended); err != nil {
		return m, err
	}
	if err := r.finished(ctx); err != nil {
		return m, err
	}
	return w.close(data.rows)
}

// bareProducer sends records without a database.
func (b *bench) bareProducer(ctx context.Context, sink, run string, rows int) (m measurement, err error) {
	br, err := b.brokerFor(ctx, sink, run+".bare")
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, br.close()) }()
	w, err := b.startWorker(ctx, job{Role: roleProducer, Brokers: br.addresses, Topic: br.topic, Rows: rows})
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	win, err := openWindow(pids{process: w.Pid(), broker: br.pid})
	if err != nil {
		return m, err
	}
	if err := w.begin(); err != nil {
		return m, err
	}
	if err := w.finished(ctx); err != nil {
		return m, err
	}
	if m, err = win.close(rows); err != nil {
		return m, err
	}
	return m, br.holds(ctx, rows, false)
}

// holds fails unless the topic has exactly so many records, not counting the
// marks at the ends of transactions.
func (br *broker) holds(ctx context.Context, rows int, transactions bool) error {
	count := br.count
	if transactions {
		count = func(ctx context.Context) (int, error) { return br.read(ctx, rows) }
	}
	n, err := count(ctx)
	if err == nil && n != rows {
		err = fmt.Errorf("topic %s has %d records, not %d", br.topic, n, rows)
	}
	return err
}

// big measures one huge transaction: a relay that kept it in memory would show.
func (b *bench) big(ctx context.Context) error {
	rows := b.options.bigRows()
	b.say("loading %d rows in one transaction", rows)
	data, err := b.db.load(ctx, partBig, rows, rows)
	if err != nil {
		return err
	}
	for _, l := range b.legs() {
		if l.sink == sinkStdout || l.sink != "" && !l.relay {
			continue
		}
		if err := b.runLeg(ctx, l, data); err != nil {
			return err
		}
	}
	return b.db.unload(ctx)
}
