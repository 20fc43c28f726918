// Command chaos lets faults strike a relay between real servers, one after the
// other, and prints what came of each: make chaos runs it. The faults, the
// writers, the reader and the verifier are those of internal/chaos.
//
// It promises that it ends with 1 if any promise was broken or any fault could
// not be shown to bite, that a row of its table counts only repetitions that
// were judged, and that the logs of a failed repetition are kept in a folder
// whose name it prints.
//
// It does not promise the same run twice under one seed: the seed decides what
// is written and when a fault strikes, and the machine decides the rest. What
// can be set is told by parseOptions.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.LookupEnv, os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(1)
	}
}

// errBroken is the end of a run in which something failed; what it was is told already.
var errBroken = errors.New("a promise was broken, or could not be put to the test")

func run(ctx context.Context, lookup func(string) (string, bool), stdout, stderr io.Writer) error {
	o, err := parseOptions(lookup)
	if err != nil {
		return err
	}
	s, err := newSeries(ctx, o, slog.New(slog.NewTextHandler(stderr, nil)))
	if err != nil {
		return err
	}
	failed, err := s.play(ctx)
	if err != nil {
		return err
	}
	result := s.result()
	if _, err := fmt.Fprintf(stdout, "%s\n%s", result.headline(), result.table()); err != nil {
		return err
	}
	if err := result.save(o); err != nil {
		return err
	}
	if failed > 0 {
		return fmt.Errorf("%d repetitions failed: %w; see %s", failed, errBroken, s.dir)
	}
	return ctx.Err()
}
