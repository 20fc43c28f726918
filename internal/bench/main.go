// Command bench measures Outrider on this machine, beside two baselines of the
// same run: a reader that takes the same rows from Postgres and throws them
// away, and a producer that sends the same records to Kafka without a database.
// What it measures and how is told in docs/benchmarks.md; make bench runs it.
//
// It promises that every figure of a relay comes from the binary that people
// deploy, with nothing but environment variables; that relay and raw reader
// read the same WAL from copies of one slot, are timed by the same rule from
// outside, and take turns; and that a run in which a row is missing or doubled
// is an error, not a figure.
//
// It does not promise the same figure twice: what counts are ratios within one
// run. It needs Linux (proc(5)), the distribution's Postgres, and for the legs
// into real Kafka Java and Kafka's jars.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if errors.Is(err, flag.ErrHelp) {
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) == 2 && args[0] == workerArgument {
		return work(ctx, args[1], os.Stdin, stdout)
	}
	o, err := parseOptions(args, os.LookupEnv, stderr)
	if err != nil {
		return err
	}
	b, err := open(ctx, o, stderr)
	if err != nil {
		return err
	}
	results, err := b.measure(ctx)
	if err := errors.Join(err, b.close()); err != nil {
		return err
	}
	text := results.table()
	if _, err := fmt.Fprint(stdout, text); err != nil {
		return err
	}
	return results.save(o, text)
}
