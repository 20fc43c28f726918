package chaos

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/outrider-cdc/outrider/internal/harness/kafka"
	"github.com/outrider-cdc/outrider/internal/harness/postgres"
	"github.com/outrider-cdc/outrider/internal/harness/proxy"
)

// Arena is where faults strike, one after the other: it keeps the Kafka
// clusters between repetitions, each of which has a Postgres of its own. Arenas
// share nothing, so that several can be at work side by side. Its methods are
// for one goroutine.
type Arena struct {
	Binary   string        // of the relay
	Dir      string        // where the folders of repetitions are made; it exists
	Timeout  time.Duration // OUTRIDER_WAL_SENDER_TIMEOUT
	Rate     float64       // rows per second of all writers together
	Delivery string        // OUTRIDER_DELIVERY; "": the default
	Kafka    string        // version; "": kafka.Version
	Java     bool          // the Java client reads
	Stream   bool          // mode stream: events are messages, for faults that spare slot and writers
	Step     time.Duration // how long any one thing may take
	Patience int           // promises of time are multiplied by it, where much else runs on the machine; 0: 1
	Log      *slog.Logger

	grounds map[field]*ground
}

// ground is a cluster with a link before each node.
type ground struct {
	cluster *kafka.Cluster
	links   []*proxy.Proxy
	wire    wire
}

// Repetition is one fault, once.
type Repetition struct {
	Fault    string
	Major    int
	Seed     uint64
	Postgres string        // version
	Report   Report        // of the last try
	Flowing  time.Duration // from the fault's end until rows flowed again
	Evidence string        // that the fault bit
	Voids    []string      // tries that proved nothing, and why
	Folder   string        // evidence of a failure; "" without one
	Err      error         // a promise is broken, or the run went wrong
}

// tries is how often a fault may miss before that counts as a failure of ours.
const tries = 5

// limit is how long one try may take.
const limit = 6 * time.Minute

// Repeat lets the fault strike once, and again as long as it proves nothing.
func (a *Arena) Repeat(ctx context.Context, f Fault, major int, seed uint64) Repetition {
	r := Repetition{Fault: f.Name, Major: major, Seed: seed}
	for range tries {
		a.try(ctx, f, &r)
		if !errors.Is(r.Err, ErrVoid) {
			return r
		}
		r.Voids = append(r.Voids, r.Err.Error())
		r.Seed++
	}
	r.Err = fmt.Errorf("void %d times, last: %w", tries, r.Err)
	return r
}

func (a *Arena) try(ctx context.Context, f Fault, r *Repetition) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not within %s", limit))
	defer cancel()
	r.Report, r.Flowing, r.Evidence, r.Folder, r.Err = Report{}, 0, "", "", nil
	folder := filepath.Join(a.Dir, fmt.Sprintf("%s-%d-%d", f.Name, r.Major, r.Seed))
	if r.Err = os.MkdirAll(folder, 0o755); r.Err != nil {
		return
	}
	server, err := postgres.Open(ctx, postgres.Options{Major: r.Major, Settings: []string{"max_prepared_transactions=20"}})
	if err == nil {
		defer func() { _ = server.Close() }()
		r.Err = a.run(ctx, f, r, server, folder)
	} else {
		r.Err = err
	}
	if r.Err == nil || errors.Is(r.Err, ErrVoid) {
		_ = os.RemoveAll(folder)
		return
	}
	r.Folder = folder
	a.keep(f, r, server)
	a.leave(f.field()) // a fault that failed may have left brokers dead or links cut
}

// run is one repetition on a fresh server.
func (a *Arena) run(ctx context.Context, f Fault, r *Repetition, server *postgres.Server, folder string) error {
	g, err := a.ground(ctx, f.field())
	if err != nil {
		return err
	}
	budget := f.Budget
	if budget == 0 {
		budget = defaultBudget
	}
	var client *Client
	if a.Java {
		client = JavaClient(g.cluster.Java())
	}
	s, err := OpenStage(ctx, StageConfig{
		Client: client,
		Server: server, Cluster: g.cluster, Links: g.links, Wire: &g.wire, Binary: a.Binary, Dir: folder, Seed: r.Seed,
		Load:   WorkloadConfig{Rate: a.Rate, Prepared: true, LargeEvery: 5000, Keys: 16, Keyed: f.Compacted, Stream: a.Stream},
		Budget: budget, Timeout: a.Timeout, Step: a.Step, Patience: a.Patience, Linked: true, Moves: f.Moves, Compacted: f.Compacted, Delivery: a.Delivery, Repeats: f.Repeats, Log: a.Log,
	})
	if err != nil {
		return err
	}
	defer s.Close()
	if r.Postgres, err = ask[string](ctx, s, `SHOW server_version`); err != nil {
		return err
	}
	if err := s.begin(ctx, f); err != nil {
		return fmt.Errorf("before the fault: %w", err)
	}
	return s.suffer(ctx, f, r)
}

// begin starts relays and writers, and lets rows flow for a random while.
func (s *Stage) begin(ctx context.Context, f Fault) error {
	for i := range max(f.Relays, 1) {
		p := s.AddRelay()
		if f.Cold {
			continue
		}
		if i == 0 {
			if _, err := s.Launch(ctx, p, 0); err != nil {
				return err
			}
			if err := s.Leads(ctx, p); err != nil {
				return err
			}
			continue
		}
		if err := p.Start(); err != nil {
			return err
		}
		if err := s.plays(ctx, p, "standby"); err != nil {
			return err
		}
	}
	s.Write(ctx)
	if f.Cold {
		return nil
	}
	return s.Arrived(ctx, 200+s.Rand.IntN(1500))
}

// suffer lets the fault strike, waits until rows flow, and judges. A broken
// promise weighs more than a fault that did not bite, and a fault that could
// not be done does not hide what the report says.
func (s *Stage) suffer(ctx context.Context, f Fault, r *Repetition) error {
	generation, err := s.generation(ctx)
	if err != nil {
		return err
	}
	evidence, struck := f.strike(ctx, s)
	if struck == nil {
		struck = s.settle(ctx, f, generation)
	}
	report, ended := s.End(ctx)
	r.Evidence, r.Flowing, r.Report = evidence, s.flowing, report
	found := report.Err()
	switch {
	case found != nil && !errors.Is(found, ErrVoid), ended != nil:
		return errors.Join(hidden(found), hidden(struck), ended)
	case struck != nil:
		return struck
	case f.within != nil && found == nil && s.flowing > f.within(s.cfg.Timeout)*time.Duration(max(1, s.cfg.Patience)):
		return fmt.Errorf("rows flowed again after %s; promised is %s", s.flowing.Round(time.Millisecond), f.within(s.cfg.Timeout))
	}
	return found
}

// hidden is err unless that says only that the run proves nothing.
func hidden(err error) error {
	if errors.Is(err, ErrVoid) {
		return nil
	}
	return err
}

// settle waits until rows flow again and some more have arrived.
func (s *Stage) settle(ctx context.Context, f Fault, generation int) (err error) {
	if s.flowing == 0 {
		if s.flowing, err = s.Flow(ctx); err != nil {
			return err
		}
	}
	if f.Recovers {
		err := s.until(ctx, "the relay streams under a new generation", func(ctx context.Context) (bool, error) {
			now, err := s.generation(ctx)
			if err != nil || now <= generation {
				return false, err
			}
			phase, err := ask[string](ctx, s, `SELECT phase FROM outbox.relays WHERE slot = $1`, s.slot())
			return phase == "streaming", err
		})
		if err != nil {
			return err
		}
		s.sampler.Resume()
	}
	if s.quiet {
		return nil
	}
	return s.Arrived(ctx, 200+s.Rand.IntN(500))
}

func (s *Stage) generation(ctx context.Context) (int, error) {
	return ask[int](ctx, s, `SELECT coalesce(max(generation), 0)::int FROM outbox.relays WHERE slot = $1`, s.slot())
}
