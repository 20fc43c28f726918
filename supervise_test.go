package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outrider-cdc/outrider/relay"
)

// fakeRelay drains for as long as it is told, and holds seven rows.
type fakeRelay struct {
	drain time.Duration
	halt  error
}

func (f fakeRelay) Run(ctx context.Context) error {
	if f.halt != nil {
		return f.halt
	}
	<-ctx.Done()
	<-time.After(f.drain)
	return nil
}

func (fakeRelay) Status() relay.Status { return relay.Status{InFlightRows: 7} }

type closer struct{ closed atomic.Bool }

func (c *closer) Close() error { c.closed.Store(true); return nil }

func TestStopping(t *testing.T) {
	const timeout = 10 * time.Second
	for name, c := range map[string]struct {
		drain  time.Duration
		again  bool // a second signal one second after the first
		wants  time.Duration
		closes bool
		says   string
	}{
		"drained":       {drain: 3 * time.Second, wants: 3 * time.Second, closes: true, says: `msg=stopped unconfirmed_rows=7`},
		"second signal": {drain: time.Hour, again: true, wants: time.Second, says: `second signal" unconfirmed_rows=7`},
		"timeout":       {drain: time.Hour, wants: timeout + overtime, says: `shutdown timeout" unconfirmed_rows=7`},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, stop := context.WithCancel(t.Context())
				again, sink, log := make(chan struct{}), &closer{}, &bytes.Buffer{}
				if c.again {
					time.AfterFunc(time.Second, func() { close(again) })
				}
				stop()
				began := time.Now()
				err := supervise(ctx, again, timeout, fakeRelay{drain: c.drain}, sink, slog.New(slog.NewTextHandler(log, nil)))
				if err != nil {
					t.Errorf("%v", err)
				}
				if took := time.Since(began); took != c.wants {
					t.Errorf("took %s, want %s", took, c.wants)
				}
				if got := sink.closed.Load(); got != c.closes {
					t.Errorf("sink closed: %t, want %t", got, c.closes)
				}
				if !strings.Contains(log.String(), c.says) {
					t.Errorf("log lacks %q:\n%s", c.says, log)
				}
				<-time.After(2 * time.Hour) // the bubble ends when the drain does
			})
		})
	}
}

func TestExitCodeOfWhatHalts(t *testing.T) {
	for code, halt := range map[int]error{
		exitOperator: hinted(errors.New("no such publication"), relay.Hint{Say: "make it"}),
		exitPoison:   fmt.Errorf("message 7: %w", relay.ErrPoison),
	} {
		err := supervise(t.Context(), nil, time.Second, fakeRelay{halt: halt}, &closer{}, slog.New(slog.DiscardHandler))
		if got := exitCode(&bytes.Buffer{}, err); got != code {
			t.Errorf("%v: exit code %d, want %d", halt, got, code)
		}
	}
}
