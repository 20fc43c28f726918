package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/outrider-cdc/outrider/internal/harness"
	"github.com/outrider-cdc/outrider/internal/harness/child"
	"github.com/outrider-cdc/outrider/internal/harness/kafka"
)

// bench is one run: its servers, the relay's binary, and what was found so far.
type bench struct {
	options *options
	out     io.Writer // progress
	log     *slog.Logger
	start   time.Time

	folder  *child.Folder
	binary  string
	db      *database
	kafka   *kafka.Cluster // nil if there is none to be had
	results *results

	patience time.Duration // left for noise
	runs     int           // made so far
}

// open builds the relay and starts the servers.
func open(ctx context.Context, o *options, out io.Writer) (b *bench, err error) {
	if runtime.GOOS != "linux" {
		return nil, errors.New("CPU time and memory of other processes are read as Linux tells them: run it there")
	}
	if o.dir == "" {
		o.dir = scratch(o)
	}
	b = &bench{
		options: o, out: out, start: time.Now(), results: newResults(o), patience: patience,
		log: slog.New(slog.NewTextHandler(out, nil)),
	}
	if err := b.openAll(ctx); err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

func (b *bench) openAll(ctx context.Context) (err error) {
	if b.folder, err = child.NewFolder(b.options.dir, "outrider-bench-"); err != nil {
		return err
	}
	b.say("building the relay; servers keep their data in %s", b.options.dir)
	if b.binary, err = b.buildRelay(ctx, "outrider"); err != nil {
		return err
	}
	if b.db, err = openDatabase(ctx, b.options.dir, b.log); err != nil {
		return err
	}
	b.results.Postgres = b.db.version
	if out, err := exec.CommandContext(ctx, "git", "describe", "--always", "--dirty").Output(); err == nil { // sources may come without git
		b.results.Commit = strings.TrimSpace(string(out))
	}
	if !b.options.sink(sinkKafka) {
		return nil
	}
	err = b.openKafka(ctx)
	if errors.Is(err, kafka.ErrNoBuild) && os.Getenv(harness.RequireServers) == "" {
		b.say("REAL KAFKA: NOT RUN. %v", err)
		return nil
	}
	b.results.Kafka = kafka.Version
	return err
}

// has reports whether a sink is asked for and to be had.
func (b *bench) has(sink string) bool {
	return b.options.sink(sink) && (sink != sinkKafka || b.kafka != nil)
}

// bytesPerRow is what a row takes of the data folders at the worst moment: heap
// and indexes, WAL, what the server spills of a large transaction, the broker's log.
const bytesPerRow = 2500

// scratch is the folder for data: memory where there is enough of it, so that
// no disk's mood is measured; else the temporary folder.
func scratch(o *options) string {
	dir := child.Scratch()
	var st syscall.Statfs_t
	need := uint64(o.bigRows()) * bytesPerRow
	if err := syscall.Statfs(dir, &st); err == nil && st.Bavail*uint64(st.Bsize) < need && os.Getenv(child.TempDir) == "" {
		return os.TempDir()
	}
	return dir
}

// measure runs the parts that are asked for.
func (b *bench) measure(ctx context.Context) (*results, error) {
	o := b.options
	if o.part(partBatch) {
		if err := b.throughput(ctx, partBatch, o.rows, batchSize); err != nil {
			return nil, err
		}
	}
	if o.part(partSingle) {
		if err := b.throughput(ctx, partSingle, o.singleRows(), 1); err != nil {
			return nil, err
		}
	}
	if o.part(partLatency) {
		if err := b.latencies(ctx); err != nil {
			return nil, err
		}
	}
	if o.part(partBig) {
		if err := b.big(ctx); err != nil {
			return nil, err
		}
	}
	if o.part(partRetention) {
		if err := b.retention(ctx); err != nil {
			return nil, err
		}
	}
	if o.part(partGate) {
		if err := b.gate(ctx); err != nil {
			return nil, err
		}
	}
	if o.part(partCost) {
		if err := b.cost(ctx); err != nil {
			return nil, err
		}
	}
	if o.part(partIdle) {
		if err := b.idle(ctx); err != nil {
			return nil, err
		}
	}
	b.results.Minutes = time.Since(b.start).Minutes()
	b.results.judge()
	return b.results, nil
}

// close ends everything that open has started.
func (b *bench) close() error {
	var errs []error
	if b.kafka != nil {
		errs = append(errs, b.kafka.Close())
	}
	if b.db != nil {
		errs = append(errs, b.db.close(context.Background()))
	}
	if b.folder != nil {
		errs = append(errs, b.folder.Remove())
	}
	return errors.Join(errs...)
}

// say tells how far the run is.
func (b *bench) say(format string, args ...any) {
	_, _ = fmt.Fprintf(b.out, "%5.0fs  %s\n", time.Since(b.start).Seconds(), fmt.Sprintf(format, args...))
}
