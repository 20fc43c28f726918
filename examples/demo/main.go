// Command demo shows Outrider at work on one machine, without Docker and
// without Java: an order service that commits orders with their events in a
// Postgres of its own, Outrider as a process of its own, a Kafka within this
// process, and a consumer. Outrider is killed in the middle of the traffic and
// started again, then the broker is stopped and started again.
//
// It promises to judge the run by what was committed and what is on Kafka, to
// say so in its last line and its exit code, to end within a minute after
// everything is built and downloaded, and to leave no process and no file but
// the cache of downloads. With HOLD=1 it stays up instead, with slow traffic
// and without faults, for a look around.
//
// It does not measure: the broker is a fake one, and everything shares the
// cores. For figures see make bench.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// Exit codes.
const (
	exitOK          = 0
	exitFailed      = 1
	exitInterrupted = 130 // what a shell reports after Ctrl-C
)

func main() { os.Exit(run()) }

func run() int {
	o := options{rate: 400, calm: 5 * time.Second, away: 3 * time.Second, limit: 50 * time.Second}
	if hold := os.Getenv("HOLD"); hold != "" && hold != "0" {
		o.hold, o.rate = true, 2
	}
	ctx, abort := context.WithCancelCause(context.Background())
	defer abort(nil)
	visit, leave := context.WithCancelCause(ctx)
	defer leave(nil)
	if o.hold {
		onSignals(leave, abort)
	} else {
		onSignals(abort)
	}
	screen := newScreen(watched{os.Stdout, abort}, isTerminal(os.Stdout), o.hold)
	switch err := perform(ctx, visit, o, screen); {
	case err == nil:
		return exitOK
	case errors.Is(err, errInterrupted):
		_, _ = fmt.Fprintln(os.Stderr, err)
		return exitInterrupted
	default:
		_, _ = fmt.Fprintln(os.Stderr, "error:", err)
		return exitFailed
	}
}

var errInterrupted = errors.New("interrupted")

// onSignals calls the first of ends at the first signal, the next one at the
// next. A go run that was killed and left us alone counts as all of them:
// otherwise the demo would go on unseen.
func onSignals(ends ...context.CancelCauseFunc) {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) // told by the write instead, see watched
	parent := os.Getppid()
	go func() { // lives as long as the process
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for len(ends) > 0 {
			select {
			case <-signals:
				ends[0](errInterrupted)
				ends = ends[1:]
			case <-tick.C:
				for os.Getppid() != parent && len(ends) > 0 {
					ends[0](errInterrupted)
					ends = ends[1:]
				}
			}
		}
		// Cleaning up takes less. If it hangs, Ctrl-C ends us as it ends any program.
		time.AfterFunc(patience, func() { signal.Reset(os.Interrupt, syscall.SIGTERM) })
	}()
}

// watched ends the demo when nobody can see it any more.
type watched struct {
	io.Writer
	gone context.CancelCauseFunc
}

// Write implements io.Writer.
func (w watched) Write(b []byte) (int, error) {
	n, err := w.Writer.Write(b)
	if err != nil {
		w.gone(err)
	}
	return n, err
}

// isTerminal takes every character device for a terminal, as the relay does.
func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
