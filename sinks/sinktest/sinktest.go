// Package sinktest holds the behaviour that every sink must show, as one suite:
// [Run] runs it against a sink and the downstream behind it.
//
// It promises to find a sink that changes the order of a key, settles a message
// never or twice, settles nil what is not downstream or what follows a refused
// message of its key, blocks in Publish, tells of an earlier leadership after
// Begin, or forgets messages in Close; its own tests show this with sinks that
// do so. A sink that settles twice from a goroutine of its own ends the test
// process with the panic of [relay.Message.Settle]. It does not test what is
// particular to one downstream.
package sinktest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/outrider-cdc/outrider/relay"
)

// Rig is one fresh sink and the empty downstream behind it.
type Rig struct {
	Sink relay.Sink
	// Topics exist downstream; at least two.
	Topics []string
	// Landed returns everything that is durable downstream, in its order per topic and key.
	Landed func(ctx context.Context) ([]Record, error)
	// Refuse makes the downstream refuse for good the n-th unit that the sink
	// hands over from now on, a batch or a write, and accept all others. n is from 1.
	Refuse func(n int)
	// Stall keeps the downstream from answering until resume is called. What
	// is called again does nothing.
	Stall func() (resume func())
}

// Record is one message as it lies downstream.
type Record struct {
	Topic string
	Key   []byte // nil: none
	Value []byte
}

// Harness opens rigs, one for each check; what it opens it closes by tb.Cleanup, the sink excepted.
type Harness struct {
	Open func(tb testing.TB) *Rig
	// Patience is how long a check may take; 0 means 30 s.
	Patience time.Duration
}

// check is one thing a sink must do.
type check struct {
	name string
	run  func(ctx context.Context, rig *Rig) error
}

func checks() []check {
	all := []check{
		{"keeps the order of each key", keepsOrder},
		{"begins again", beginsAgain},
		{"never blocks in Publish", neverBlocks},
		{"settles before Begin returns", settlesBeforeBegin},
		{"settles the rest in Close", settlesInClose},
		{"settles with an error after Close", settlesAfterClose},
		{"settles from inside Publish and beside it", settlesConcurrently},
	}
	for _, n := range []int{1, 2, 3, 7} {
		all = append(all, check{fmt.Sprintf("settles a prefix of each key when unit %d is refused", n), func(ctx context.Context, rig *Rig) error {
			return settlesPrefix(ctx, rig, n)
		}})
	}
	return all
}

// Run runs the suite, each check on a rig of its own.
func Run(t *testing.T, h Harness) {
	t.Helper()
	for _, c := range checks() {
		t.Run(c.name, func(t *testing.T) {
			if err := h.try(t, c); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// try runs one check and closes the sink behind it.
func (h Harness) try(tb testing.TB, c check) error {
	tb.Helper()
	patience := h.Patience
	if patience == 0 {
		patience = 30 * time.Second
	}
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	rig := h.Open(tb)
	err := c.run(ctx, rig)
	if closing := within(ctx, "Close", func() error { return rig.Sink.Close() }); err == nil && closing != nil {
		err = fmt.Errorf("at the end: %w", closing)
	}
	return err
}

// within runs f, and returns an error if it panics or lasts longer than ctx.
// It then leaves f behind, which a passing test never does.
func within(ctx context.Context, name string, f func() error) error {
	done := make(chan error, 1)
	go func() {
		defer func() {
			if p := recover(); p != nil {
				done <- fmt.Errorf("%s panics: %v", name, p)
			}
		}()
		done <- f()
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("%s blocks: %w", name, context.Cause(ctx))
	}
}
