package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/outrider-cdc/outrider/internal/harness/child"
)

// Baselines, consumer and fake broker are processes of their own, so that their
// CPU time and memory are theirs alone. They are this program again, with
// workerArgument and a job.
const workerArgument = "worker"

// Roles of a worker.
const (
	roleRaw      = "raw reader"
	roleProducer = "producer"
	roleConsumer = "consumer"
	roleFake     = "kfake"
)

// job is what a worker is told.
type job struct {
	Role      string   `json:"role"`
	URL       string   `json:"url,omitempty"`     // of the database
	Slot      string   `json:"slot,omitempty"`    // raw reader
	Brokers   []string `json:"brokers,omitempty"` // producer, consumer
	Topic     string   `json:"topic,omitempty"`
	Rows      int      `json:"rows,omitempty"` // after which it is done
	Skip      int      `json:"skip,omitempty"` // rows whose latency does not count
	Timed     bool     `json:"timed,omitempty"`
	Rate      int      `json:"rate,omitempty"`      // producer: records a second, 0 = as many as it can
	Committed bool     `json:"committed,omitempty"` // consumer: committed records only
	Port      int      `json:"port,omitempty"`      // fake broker
}

// report is what a worker tells, a line each: ready, then done. It stays until
// it is killed, so that its usage can be read.
type report struct {
	Done    bool     `json:"done"`
	Rows    int      `json:"rows,omitempty"`
	Latency *latency `json:"latency,omitempty"`
}

// work is a worker's main function.
func work(ctx context.Context, text string, stdin io.Reader, stdout io.Writer) error {
	var j job
	if err := json.Unmarshal([]byte(text), &j); err != nil {
		return fmt.Errorf("read the job: %w", err)
	}
	ready := func() error { return json.NewEncoder(stdout).Encode(report{}) }
	var result report
	var err error
	switch j.Role {
	case roleRaw:
		result, err = rawRead(ctx, j, ready)
	case roleProducer:
		result, err = produce(ctx, j, func() error {
			if err := ready(); err != nil {
				return err
			}
			_, err := stdin.Read(make([]byte, 1)) // the word go
			return err
		})
	case roleConsumer:
		result, err = consume(ctx, j, ready)
	case roleFake:
		err = fakeBroker(ctx, j, ready)
	default:
		err = fmt.Errorf("unknown role %q", j.Role)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", j.Role, err)
	}
	result.Done = true
	if err := json.NewEncoder(stdout).Encode(result); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// worker is a worker as its parent sees it.
type worker struct {
	*child.Process
	role    string
	rows    int
	reports *json.Decoder
	out     *os.File
	in      io.WriteCloser
	log     string
}

// startWorker starts a worker and waits until it is ready.
func (b *bench) startWorker(ctx context.Context, j job) (*worker, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(j)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, workerArgument, string(text))
	log, err := os.CreateTemp(b.folder.Path(), "worker-*.log")
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }()
	r, out, err := os.Pipe() // not StdoutPipe, which Wait would close under the reader
	if err != nil {
		return nil, err
	}
	defer func() { _ = out.Close() }()
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	cmd.Stdout, cmd.Stderr = out, log
	p, err := child.Start(cmd, syscall.SIGKILL)
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	w := &worker{Process: p, role: j.Role, rows: j.Rows, reports: json.NewDecoder(r), out: r, in: in, log: filepath.Clean(log.Name())}
	if _, err := w.next(ctx, startLimit); err != nil {
		return nil, errors.Join(err, w.close())
	}
	return w, nil
}

// Limits of a start and of a run, beyond which something is broken.
const (
	startLimit = time.Minute
	runLimit   = 5 * time.Minute
)

// next waits for the next report.
func (w *worker) next(ctx context.Context, limit time.Duration) (r report, err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	defer context.AfterFunc(ctx, w.Kill)() // ends the read
	if err := w.reports.Decode(&r); err != nil {
		text, _ := os.ReadFile(w.log)
		return r, fmt.Errorf("wait for the %s: %w\n%s", w.role, errors.Join(context.Cause(ctx), err), text)
	}
	return r, nil
}

// begin gives a producer the word.
func (w *worker) begin() error {
	_, err := w.in.Write([]byte("\n"))
	return err
}

// ended is an error if the worker has ended, with what it said.
func (w *worker) ended() error {
	if w.Running() {
		return nil
	}
	text, _ := os.ReadFile(w.log)
	return fmt.Errorf("the %s has ended: %w\n%s", w.role, w.Err(), text)
}

// finished waits until all rows are through.
func (w *worker) finished(ctx context.Context) error {
	_, err := w.result(ctx)
	return err
}

// result is finished with what the worker found out.
func (w *worker) result(ctx context.Context) (report, error) {
	r, err := w.next(ctx, runLimit)
	if err == nil && r.Rows != w.rows {
		err = fmt.Errorf("%s: %d rows of %d", w.role, r.Rows, w.rows)
	}
	return r, err
}

// close ends the worker.
func (w *worker) close() error {
	w.Kill()
	_ = w.in.Close() // exec may have done so
	return w.out.Close()
}
