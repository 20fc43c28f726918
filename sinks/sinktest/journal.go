package sinktest

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/outrider-cdc/outrider/relay"
)

// journal notes what was published and how it was settled.
type journal struct {
	rig   *Rig
	calls []*call // in the order of Publish; one goroutine appends

	mu   sync.Mutex
	open int           // calls not settled
	done chan struct{} // closed when open falls to zero; made anew by publish
}

// call is one call of Publish.
type call struct {
	stream
	number  int // of the row in the journal; a replay has the number of the row
	value   []byte
	settled bool // guarded by the journal, as err
	err     error
}

// stream is what has an order.
type stream struct{ topic, key string }

func newJournal(rig *Rig) *journal { return &journal{rig: rig} }

// begin begins a leadership of the sink.
func (j *journal) begin(ctx context.Context) error {
	return within(ctx, "Begin", func() error {
		if _, err := j.rig.Sink.Begin(ctx, relay.Source{SystemID: "1", Timeline: 1, Slot: "test", Generation: 1}); err != nil {
			return fmt.Errorf("begin: %w", err)
		}
		return nil
	})
}

// publishRow publishes a new row of size bytes or a little more, key "" for none.
func (j *journal) publishRow(topic, key string, size int) {
	number := len(j.calls)
	value := append(strconv.AppendInt(nil, int64(number), 10), ' ')
	value = append(value, bytes.Repeat([]byte("x"), size)...)
	j.publish(&call{stream: stream{topic, key}, number: number, value: value})
}

// publishRows publishes n rows over all topics and five keys, and some without a key.
func (j *journal) publishRows(n, size int) {
	for i := range n {
		key := ""
		if i%7 != 0 {
			key = "key-" + strconv.Itoa(i%5)
		}
		j.publishRow(j.rig.Topics[(i/3)%len(j.rig.Topics)], key, size)
	}
}

func (j *journal) publish(c *call) {
	j.calls = append(j.calls, c)
	j.mu.Lock()
	if j.open == 0 {
		j.done = make(chan struct{})
	}
	j.open++
	j.mu.Unlock()
	m := &relay.Message{
		ID: []byte(strconv.Itoa(c.number)), Topic: c.topic, Value: c.value,
		Position: relay.Position{LSN: relay.LSN(len(j.calls)), Ordinal: 0}, CommittedAt: time.Now(),
	}
	if c.key != "" {
		m.Key = []byte(c.key)
	}
	own := []relay.Header{{Key: "traceparent", Value: []byte("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")}}
	j.rig.Sink.Publish(relay.NewMessage(m, own, func(err error) { j.settle(c, err) }))
}

func (j *journal) settle(c *call, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	c.settled, c.err = true, err
	if j.open--; j.open == 0 {
		close(j.done)
	}
}

// wait returns when everything is settled.
func (j *journal) wait(ctx context.Context) error {
	j.mu.Lock()
	open, done := j.open, j.done
	j.mu.Unlock()
	if open == 0 {
		return nil
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%d messages are not settled: %w", j.unsettled(), context.Cause(ctx))
	}
}

func (j *journal) unsettled() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.open
}

// failed returns the calls from the given one on that settled with an error.
func (j *journal) failed(from int) []*call {
	j.mu.Lock()
	defer j.mu.Unlock()
	var failed []*call
	for _, c := range j.calls[from:] {
		if c.settled && c.err != nil {
			failed = append(failed, c)
		}
	}
	return failed
}

// allNil returns an error if something settled with one.
func (j *journal) allNil() error {
	if failed := j.failed(0); len(failed) > 0 {
		return fmt.Errorf("%d of %d messages settled with an error, the first with: %w", len(failed), len(j.calls), failed[0].err)
	}
	return nil
}

// prefix returns an error unless the calls that settled nil are a prefix per stream. Rows without a key have no order.
func (j *journal) prefix() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	broken := make(map[stream]*call)
	for _, c := range j.calls {
		first := broken[c.stream]
		switch {
		case c.key == "" || !c.settled:
		case c.err != nil && first == nil:
			broken[c.stream] = c
		case c.err == nil && first != nil:
			return fmt.Errorf("message %d of %v settled nil, but message %d before it with %w", c.number, c.stream, first.number, first.err)
		}
	}
	return nil
}
