package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Latency is from the commit's time on the server, which the transaction gets
// just before its WAL is flushed, until the row is in the hands of whoever
// waits for it: the raw reader, or a consumer of the topic. For the bare
// producer it is from the call of Produce. All clocks are this machine's.

// latencyRows is how many events a repetition has, and how many of them do not
// count.
func (o *options) latencyRows() (rows, skip int) {
	return o.rate * (warmUp + o.seconds), o.rate * warmUp
}

// latencies measures all legs in turns.
func (b *bench) latencies(ctx context.Context) error {
	for range b.options.repeat {
		for _, l := range b.legs() {
			if l.sink == sinkStdout {
				continue
			}
			var s steady
			err := b.calmly(ctx, partLatency, func(run string) (others float64, err error) {
				s, err = b.latency(ctx, l, run)
				return s.Others, err
			})
			if err != nil {
				return fmt.Errorf("latency, %s: %w", l.name, err)
			}
			b.say("latency %-30s p50 %5.2f ms  p99 %5.2f ms  max %5.1f ms  at %.0f/s  (others %.2f cores)", l.name, s.P50, s.P99, s.Max, s.Rate, s.Others)
			b.results.addLatency(l.name, s)
		}
	}
	return nil
}

// steady is a latency at the rate that was really reached.
type steady struct {
	latency
	Rate   float64 `json:"events_per_second"`
	Others float64 `json:"cores_used_by_others"`
}

func (b *bench) latency(ctx context.Context, l leg, run string) (s steady, err error) {
	ctx, cancel := context.WithTimeout(ctx, runLimit)
	defer cancel()
	n, err := watch()
	if err != nil {
		return s, err
	}
	switch {
	case l.relay:
		s, err = b.relayLatency(ctx, l, run)
	case l.sink != "":
		s, err = b.producerLatency(ctx, l.sink, run)
	default:
		s, err = b.rawLatency(ctx, run)
	}
	if err != nil {
		return s, err
	}
	s.Others, err = n.others()
	return s, err
}

// rawLatency is from commit to raw reader.
func (b *bench) rawLatency(ctx context.Context, run string) (s steady, err error) {
	slot := slotName(run, "raw")
	if err := b.db.makeSlot(ctx, slot); err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, b.db.leave(context.WithoutCancel(ctx), slot)) }()
	rows, skip := b.options.latencyRows()
	w, err := b.startWorker(ctx, job{Role: roleRaw, URL: b.db.url(), Slot: slot, Rows: rows, Skip: skip, Timed: true})
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	return b.writeFor(ctx, w)
}

// relayLatency is from commit to consumer.
func (b *bench) relayLatency(ctx context.Context, l leg, run string, settings ...string) (s steady, err error) {
	slot, prefix := slotName(run, l.sink), run+"."
	if err := b.db.makeSlot(ctx, slot); err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, b.db.leave(context.WithoutCancel(ctx), slot)) }()
	if err := b.db.enroll(ctx, slot); err != nil {
		return s, err
	}
	br, err := b.brokerFor(ctx, l.sink, prefix+tableTopic)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, br.close()) }()
	r, err := b.startRelay(relaySettings{binary: b.binary, slot: slot, sink: l.sink, exact: l.exact, broker: br, prefix: prefix, extra: settings})
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	if _, err := b.db.walsender(ctx, slot, r.ended); err != nil {
		return s, err
	}
	w, err := b.consumer(ctx, br, l.exact)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	if s, err = b.writeFor(ctx, w); err != nil {
		return s, errors.Join(err, r.ended())
	}
	return s, nil
}

// producerLatency is from a bare producer to the consumer.
func (b *bench) producerLatency(ctx context.Context, sink, run string) (s steady, err error) {
	br, err := b.brokerFor(ctx, sink, run+".bare")
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, br.close()) }()
	consumer, err := b.consumer(ctx, br, false)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, consumer.close()) }()
	rows, _ := b.options.latencyRows()
	producer, err := b.startWorker(ctx, job{Role: roleProducer, Brokers: br.addresses, Topic: br.topic, Rows: rows, Rate: b.options.rate})
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, producer.close()) }()
	start := time.Now()
	if err := producer.begin(); err != nil {
		return s, err
	}
	if err := producer.finished(ctx); err != nil {
		return s, err
	}
	s.Rate = float64(rows) / time.Since(start).Seconds()
	err = s.take(ctx, consumer)
	return s, err
}

// consumer starts a consumer of the broker's topic, if asked for one of committed records only.
func (b *bench) consumer(ctx context.Context, br *broker, committed bool) (*worker, error) {
	rows, skip := b.options.latencyRows()
	return b.startWorker(ctx, job{Role: roleConsumer, Brokers: br.addresses, Topic: br.topic, Rows: rows, Skip: skip, Committed: committed})
}

// writeFor commits rows at the rate, and asks w when they came.
func (b *bench) writeFor(ctx context.Context, w *worker) (s steady, err error) {
	if s.Rate, err = b.write(ctx, w.rows, b.options.rate); err != nil {
		return s, err
	}
	err = s.take(ctx, w)
	return s, err
}

func (s *steady) take(ctx context.Context, w *worker) error {
	r, err := w.result(ctx)
	if err != nil {
		return err
	}
	if r.Latency == nil {
		return errors.New("no samples")
	}
	s.latency = *r.Latency
	return nil
}
