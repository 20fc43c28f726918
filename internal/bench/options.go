package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Parts of a run.
const (
	partBatch     = "batch"     // rows in transactions of batchSize
	partSingle    = "single"    // rows in transactions of their own
	partLatency   = "latency"   // commit to consumer
	partBig       = "big"       // one transaction
	partRetention = "retention" // writers while old rows are deleted
	partCost      = "cost"      // bytes and commits that an event costs the database, by design
	partGate      = "gate"      // rows with and without the visibility gate
	partIdle      = "idle"      // relays that have nothing to do
)

// batchSize is the rows of a transaction in the part batch.
const batchSize = 1000

// Where rows go.
const (
	sinkStdout = "stdout"
	sinkFake   = "kfake"
	sinkKafka  = "kafka"
)

// budget is OUTRIDER_MAX_IN_FLIGHT_BYTES of every relay here: its default.
const budget = 64 << 20

// options say what is measured. Defaults are the run that docs/benchmarks.md shows.
type options struct {
	rows       int // of part batch; single has a fifth, big three times as many
	repeat     int
	rate       int // events a second in part latency
	seconds    int // of part latency, each repetition
	partitions int
	parts      []string
	sinks      []string
	dir        string
	json       string
	docs       bool
	profile    string
	settings   []string // NAME=value, for the relay
}

func (o *options) singleRows() int { return max(o.rows/5, 1) }

func (o *options) bigRows() int { return 3 * o.rows }

// warmUp is how many seconds of each latency repetition do not count.
const warmUp = 1

// docsFile holds the table of a run, as seen from the root of the repository.
const docsFile = "docs/benchmarks.md"

// parseOptions reads flags, and for each that is not given the variable
// BENCH_<FLAG>, so that make can pass them on.
func parseOptions(args []string, lookup func(string) (string, bool), stderr io.Writer) (*options, error) {
	o := &options{parts: []string{partBatch, partSingle, partLatency, partBig, partRetention, partGate, partCost, partIdle}, sinks: []string{sinkStdout, sinkFake, sinkKafka}}
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.IntVar(&o.rows, "rows", 1_000_000, "rows in transactions of 1000; a fifth of it in transactions of one row, three times as many in one transaction")
	f.IntVar(&o.repeat, "repeat", 3, "repetitions, of which the best counts")
	f.IntVar(&o.rate, "rate", 1000, "events a second when latency is measured")
	f.IntVar(&o.seconds, "seconds", 6, "seconds for which latency is measured, in each repetition")
	f.IntVar(&o.partitions, "partitions", 12, "partitions of a topic")
	f.Func("parts", "comma-separated list of: batch, single, latency, big, retention, gate, cost, idle (default all)", subset(&o.parts))
	f.Func("sinks", "comma-separated list of: stdout, kfake, kafka (default all)", subset(&o.sinks))
	f.StringVar(&o.dir, "dir", "", "folder for the servers' data (default memory if there is enough, else the temporary folder)")
	f.StringVar(&o.json, "json", "", "file to write the result to as JSON")
	f.BoolVar(&o.docs, "docs", false, "write the table into "+docsFile)
	f.StringVar(&o.profile, "profile", "", "folder for CPU profiles of the relay, made in runs of their own")
	f.Func("settings", "variables for the relay to try something, as in 'OUTRIDER_KAFKA_LINGER=5ms OUTRIDER_LOG_LEVEL=DEBUG'", func(value string) error {
		o.settings = strings.Fields(value)
		return nil
	})
	var errs []error
	f.VisitAll(func(f *flag.Flag) {
		name := "BENCH_" + strings.ToUpper(f.Name)
		if value, ok := lookup(name); ok && value != "" {
			if err := f.Value.Set(value); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", name, err))
			}
		}
	})
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	if min(o.rows, o.repeat, o.rate, o.seconds, o.partitions) < 1 {
		return nil, errors.New("rows, repeat, rate, seconds and partitions must be above 0")
	}
	if o.rows%batchSize != 0 {
		return nil, fmt.Errorf("rows must be a multiple of %d", batchSize)
	}
	return o, nil
}

// subset returns a setter that narrows list, which holds all there is.
func subset(list *[]string) func(string) error {
	all := slices.Clone(*list)
	return func(value string) error {
		chosen := strings.Split(value, ",")
		for _, name := range chosen {
			if !slices.Contains(all, name) {
				return fmt.Errorf("%q is none of %s", name, strings.Join(all, ", "))
			}
		}
		*list = chosen
		return nil
	}
}

func (o *options) part(name string) bool { return slices.Contains(o.parts, name) }

func (o *options) sink(name string) bool { return slices.Contains(o.sinks, name) }
