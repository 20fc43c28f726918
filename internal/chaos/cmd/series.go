package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/outrider-cdc/outrider/internal/chaos"
	"github.com/outrider-cdc/outrider/internal/harness/kafka"
	"github.com/outrider-cdc/outrider/relay"
)

// sideBySide is how many faults strike at once, each in an arena of its own. It
// is not the number of cores: more at once would turn waits into failures.
const sideBySide = 2

// step is how long any one thing may take in a repetition.
const step = 60 * time.Second

// series is all repetitions of a run.
type series struct {
	o     *options
	log   *slog.Logger
	dir   string
	jobs  []job
	began time.Time

	mu     sync.Mutex
	given  int // jobs, over all rounds
	done   []chaos.Repetition
	failed int
}

// job is a fault on a major.
type job struct {
	fault chaos.Fault
	major int
}

func newSeries(ctx context.Context, o *options, log *slog.Logger) (*series, error) {
	s := &series{o: o, log: log, began: time.Now()}
	for _, f := range chaos.Faults() {
		majors := o.majors
		if f.Majors != nil && !o.chosen {
			majors = f.Majors
		}
		for _, major := range majors {
			if f.On(major) && (!f.Exactly || o.delivery == relay.ExactlyOnce) && o.faults.MatchString(f.Name) {
				s.jobs = append(s.jobs, job{f, major})
			}
		}
	}
	if len(s.jobs) == 0 {
		return nil, fmt.Errorf("no fault is called %q", o.faults)
	}
	var err error
	if s.dir = o.dir; s.dir == "" {
		s.dir, err = os.MkdirTemp("", "outrider-chaos-")
	} else {
		err = os.MkdirAll(s.dir, 0o755)
	}
	if err != nil {
		return nil, fmt.Errorf("make a folder for evidence: %w", err)
	}
	if o.binary == "" {
		log.Info("building the relay")
		if o.binary, err = chaos.Build(ctx, s.dir, false); err != nil {
			return nil, err
		}
	}
	log.Info("seed", "seed", o.seed)
	return s, nil
}

// play repeats until everything has had its turn, or the time is over. It
// returns how many repetitions failed.
func (s *series) play(ctx context.Context) (failed int, err error) {
	var wg sync.WaitGroup
	for i := range sideBySide {
		dir := s.arena(i)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return 0, fmt.Errorf("make a folder for evidence: %w", err)
		}
		wg.Go(func() {
			arena := &chaos.Arena{Binary: s.o.binary, Dir: dir, Timeout: s.o.timeout, Rate: s.o.rate, Delivery: s.o.delivery, Kafka: s.o.kafka, Java: s.o.reader == "java", Step: step, Log: s.log}
			defer arena.Close()
			for {
				j, seed, ok := s.next(ctx)
				if !ok {
					return
				}
				s.take(ctx, j, arena.Repeat(ctx, j.fault, j.major, seed))
			}
		})
	}
	wg.Wait()
	if s.failed == 0 {
		s.clear()
	}
	return s.failed, nil
}

// clear removes what was made and proves nothing; never a folder that was given
// with something in it.
func (s *series) clear() {
	for i := range sideBySide {
		_ = os.RemoveAll(s.arena(i))
	}
	if s.o.binary == filepath.Join(s.dir, filepath.Base(s.o.binary)) && s.o.dir == "" {
		_ = os.Remove(s.o.binary)
	}
	_ = os.Remove(s.dir) // if empty
}

func (s *series) arena(i int) string { return filepath.Join(s.dir, fmt.Sprintf("arena-%d", i+1)) }

// next gives out the jobs in an order that is another one in each round, with a
// seed that depends on job and round only, not on who was faster.
func (s *series) next(ctx context.Context) (j job, seed uint64, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	round, turn := s.given/len(s.jobs), s.given%len(s.jobs)
	over := round >= s.o.repeat
	if s.o.duration > 0 {
		over = time.Since(s.began) >= s.o.duration
	}
	if over || ctx.Err() != nil {
		return j, 0, false
	}
	s.given++
	order := rand.New(rand.NewPCG(s.o.seed, uint64(round))).Perm(len(s.jobs))
	j = s.jobs[order[turn]]
	h := fnv.New64a()
	_, _ = fmt.Fprint(h, j.fault.Name, " ", j.major, " ", round)
	return j, rand.New(rand.NewPCG(s.o.seed, h.Sum64())).Uint64(), true
}

func (s *series) take(ctx context.Context, j job, r chaos.Repetition) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ctx.Err() != nil && r.Err != nil {
		return // broken off, not broken
	}
	s.done = append(s.done, r)
	args := []any{
		"n", len(s.done), "fault", j.fault.Name, "postgres", r.Postgres, "seed", r.Seed, "evidence", r.Evidence, "voids", len(r.Voids),
		"report", r.Report.String(), "flowing", r.Flowing.Round(time.Millisecond),
	}
	for _, why := range r.Voids {
		s.log.Info("void", "fault", j.fault.Name, "postgres", r.Postgres, "error", why)
	}
	if r.Err != nil {
		s.failed++
		s.log.Error("failed", append(args, "folder", r.Folder, "error", r.Err)...)
		return
	}
	s.log.Info("kept its promises", args...)
}

// result gathers what was done.
func (s *series) result() *result {
	res := &result{
		Date: s.began.UTC().Format(time.DateOnly), Commit: commit(), Seed: s.o.seed, Seconds: int(time.Since(s.began).Seconds()),
		Kafka: cmp.Or(s.o.kafka, kafka.Version), Timeout: s.o.timeout.String(), Rate: s.o.rate, Delivery: s.o.delivery, Reader: s.o.reader, Runs: 1,
	}
	for _, j := range s.jobs {
		r := row{Fault: j.fault.Name, Major: j.major}
		for _, rep := range s.done {
			if rep.Fault == j.fault.Name && rep.Major == j.major {
				r.count(rep)
			}
		}
		if r.Repetitions > 0 {
			res.Rows = append(res.Rows, r)
		}
	}
	return res
}

func (r *row) count(rep chaos.Repetition) {
	r.Repetitions++
	r.Void += len(rep.Voids)
	if rep.Postgres != "" {
		r.Postgres = rep.Postgres
	}
	if rep.Err != nil {
		r.Failed++
		r.Failures = append(r.Failures, failure{rep.Seed, rep.Err.Error()})
	}
	if errors.Is(rep.Err, chaos.ErrVoid) {
		return // nothing was judged that counts
	}
	r.Committed += rep.Report.Committed
	r.Lost += rep.Report.Lost.Count
	r.Ghosts += rep.Report.Ghosts.Count
	r.OutOfOrder += rep.Report.OutOfOrder.Count
	r.LastValue += rep.Report.LastValueErrors.Count
	r.Duplicates += rep.Report.Duplicates.Count
	if rep.Flowing > 0 {
		r.Flowing = append(r.Flowing, float64(rep.Flowing.Milliseconds())/1000)
	}
}
