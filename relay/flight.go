package relay

import (
	"errors"
	"sync/atomic"
)

// messageOverhead is what a message costs beside the bytes of its row, charged
// to the budget, so that small rows do not slip past it.
const messageOverhead = 512

// flight counts what one session has handed to the sink and not got back. The
// sink's goroutines write to it through Message.Settle.
type flight struct {
	limit   int64 // bytes
	bytes   atomic.Int64
	rows    atomic.Int64
	acked   atomic.Int64          // messages that became durable
	failure atomic.Pointer[error] // the first error a sink settled with
	waiting atomic.Bool           // somebody waits on wake
	wake    chan struct{}
	latency func(m *Message) // told of each that is durable
	reached reached
	refused refusals
}

func newFlight(limit int64, latency func(m *Message)) *flight {
	return &flight{limit: limit, wake: make(chan struct{}, 1), latency: latency}
}

// took charges m, which is about to be published.
func (f *flight) took(m *Message) {
	f.bytes.Add(m.charge)
	f.rows.Add(1)
}

// landed gives back what m took. Any goroutine.
func (f *flight) landed(m *Message, err error) {
	if err != nil {
		failed := err // a copy: taking err's own address would cost every settle an allocation
		f.failure.CompareAndSwap(nil, &failed)
		if errors.Is(err, ErrPoison) {
			f.refused.add(m.Position)
		}
	} else {
		f.acked.Add(1)
		f.reached.note(m)
		m.topic.published(m)
		f.latency(m)
	}
	f.rows.Add(-1)
	f.bytes.Add(-m.charge)
	if f.waiting.Load() && (err != nil || f.bytes.Load() <= f.limit/8*7) { // not one wake-up for every row
		select {
		case f.wake <- struct{}{}:
		default:
		}
	}
}

// full reports whether the budget is used up. One message may overshoot it.
func (f *flight) full() bool { return f.bytes.Load() >= f.limit }

// empty reports whether the sink holds nothing.
func (f *flight) empty() bool { return f.rows.Load() == 0 }

// err is the first error a sink settled with, or nil.
func (f *flight) err() error {
	if p := f.failure.Load(); p != nil {
		return *p
	}
	return nil
}
