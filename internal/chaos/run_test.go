package chaos_test

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/outrider-cdc/outrider/internal/chaos"
	"github.com/outrider-cdc/outrider/internal/harness/kafka"
	"github.com/outrider-cdc/outrider/internal/harness/postgres"
)

const (
	slot   = "outrider_chaos"
	budget = 8 << 20 // bytes in flight
	// step is how long a run waits for any one thing to happen.
	step = 90 * time.Second
)

// run is a relay between real servers, with writers before it and a reader behind.
type run struct {
	t        *testing.T
	ctx      context.Context // ends with the test, or when the run takes too long
	url      string
	rng      *rand.Rand
	load     *chaos.Workload
	reader   *chaos.Reader
	relay    chaos.Relay
	process  *chaos.Process
	db       *pgx.Conn
	started  time.Time
	finished func() []chaos.Sample // ends the sampler
	writing  func() error          // lets the writers end
}

// newRun starts a relay that has its slot, and then the writers, which go on
// until writing is called.
func newRun(t *testing.T, major int, limit time.Duration, settings ...string) *run {
	t.Helper()
	return newRunOn(t, broker.Cluster(t), postgres.Start(t, major, settings...), limit, chaos.WorkloadConfig{Prepared: len(settings) > 0})
}

// newRunOn is newRun on servers that the caller may do things to, and with
// another binary of the relay if one is named.
func newRunOn(t *testing.T, cluster *kafka.Cluster, server *postgres.Server, limit time.Duration, load chaos.WorkloadConfig, with ...string) *run {
	t.Helper()
	migrate(t, server.URL())
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	db, err := pgx.Connect(ctx, server.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close(context.Background()) })
	topic := cluster.Topic(t, 6, nil)
	seed := uint64(time.Now().UnixNano())
	r := &run{
		t: t, ctx: ctx, url: server.URL(), db: db, rng: rand.New(rand.NewPCG(seed, 0)),
		relay: chaos.Relay{
			Binary: first(append(with, binary(t))), Log: filepath.Join(t.TempDir(), "relay.log"),
			Env: []string{
				"OUTRIDER_DATABASE_URL=" + server.URL(), "OUTRIDER_NAME=chaos",
				"OUTRIDER_KAFKA_BROKERS=" + strings.Join(cluster.Brokers(), ","),
				"OUTRIDER_WAL_SENDER_TIMEOUT=5s", "OUTRIDER_MAX_IN_FLIGHT_BYTES=" + strconv.Itoa(budget), "OUTRIDER_LOG_FORMAT=json",
			},
		},
	}
	t.Logf("seed %d, Postgres %d", seed, server.Major())
	r.reader = reading(t, chaos.ReaderConfig{Brokers: cluster.Brokers(), Topics: []string{topic}})
	r.launch(0)
	t.Cleanup(func() {
		r.process.Kill()
		if t.Failed() {
			t.Logf("end of the relay's log:\n%s", r.process.LogTail(8000))
		}
	})
	load.DatabaseURL, load.Topics, load.Seed, load.LargeEvery = server.URL(), []string{topic}, seed, 5000
	r.load = newWorkload(t, load)
	r.sample()
	r.write()
	return r
}

// launch starts the relay and waits until it has the slot, which the walsender
// before had, and returns the pid of the new one.
func (r *run) launch(before int) int {
	r.t.Helper()
	process, err := r.relay.Start()
	if err != nil {
		r.t.Fatal(err)
	}
	r.process = process
	return r.led(before)
}

// led waits until a walsender other than before feeds the relay, and returns its pid.
func (r *run) led(before int) (pid int) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.ctx, step)
	defer cancel()
	until(ctx, r.t, "the relay has its slot", func() bool {
		if !r.process.Running() {
			r.t.Fatalf("the relay ended: %v", r.process.Err())
		}
		pid = r.walsender(ctx)
		return pid != 0 && pid != before
	})
	return pid
}

// walsender is the pid of the server process that has the slot, 0 if none has.
func (r *run) walsender(ctx context.Context) (pid int) {
	r.t.Helper()
	if err := r.db.QueryRow(ctx, `SELECT coalesce(max(active_pid), 0) FROM pg_replication_slots WHERE slot_name = $1`, slot).Scan(&pid); err != nil {
		r.t.Fatal(err)
	}
	return pid
}

func (r *run) sample() {
	sampler := &chaos.Sampler{DatabaseURL: r.url, Slot: slot, Reader: r.reader, Every: 50 * time.Millisecond}
	ctx, stop := context.WithCancel(r.ctx)
	done := make(chan struct{})
	go func() { defer close(done); sampler.Run(ctx) }()
	r.finished = func() []chaos.Sample { stop(); <-done; return sampler.Samples() }
	r.t.Cleanup(func() { r.finished() })
}

func (r *run) write() {
	r.started = time.Now()
	ctx, stop := context.WithCancel(r.ctx)
	done := make(chan error, 1)
	go func() { done <- r.load.Run(ctx) }()
	r.writing = func() error { stop(); return <-done }
	r.t.Cleanup(func() { stop() })
}

// owed freezes the relay and returns how many rows are committed and not on
// Kafka: what it has in hand, or has not read yet.
func (r *run) owed() int {
	r.t.Helper()
	if err := r.process.Freeze(r.ctx); err != nil {
		r.t.Fatal(err)
	}
	committed := r.load.Committed()
	if err := r.reader.CatchUp(r.ctx); err != nil {
		r.t.Fatal(err)
	}
	return committed - r.reader.Distinct()
}

// kill ends the relay with SIGKILL while rows are on their way, and starts it again.
func (r *run) kill() {
	r.t.Helper()
	before := r.walsender(r.ctx)
	owed := 0
	ctx, cancel := context.WithTimeout(r.ctx, step)
	defer cancel()
	until(ctx, r.t, "rows are on their way", func() bool {
		if owed = r.owed(); owed > 0 {
			return true
		}
		if err := r.process.Thaw(); err != nil {
			r.t.Fatal(err)
		}
		return false
	})
	r.process.Kill()
	delivered := r.reader.Distinct()
	after := r.launch(before)
	r.t.Logf("killed the relay: %d rows committed and not on Kafka, %d delivered; walsender %d → %d", owed, delivered, before, after)
}

// cut terminates the walsender while the relay has rows in hand.
func (r *run) cut() {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.ctx, step)
	defer cancel()
	var status chaos.Status
	before := 0
	until(ctx, r.t, "rows are in flight", func() bool {
		var err error
		if status, err = r.process.Status(ctx); err != nil || status.InFlightRows == 0 {
			return false
		}
		before = r.walsender(ctx)
		return before != 0
	})
	var terminated bool
	if err := r.db.QueryRow(ctx, `SELECT pg_terminate_backend($1)`, before).Scan(&terminated); err != nil || !terminated {
		r.t.Fatalf("terminate walsender %d: %v, %v", before, terminated, err)
	}
	after := r.led(before)
	r.t.Logf("terminated the walsender: %d rows in flight; walsender %d → %d", status.InFlightRows, before, after)
}

// end lets the writers end, waits for the last row, stops the relay and judges.
func (r *run) end() chaos.Report {
	t := r.t
	t.Helper()
	if err := r.writing(); err != nil {
		t.Fatal(err)
	}
	took := time.Since(r.started)
	if err := r.load.Resolve(r.ctx); err != nil {
		t.Fatal(err)
	}
	out := r.load.Outcome()
	ids := make([]chaos.ID, len(out.Committed))
	for i, row := range out.Committed {
		ids[i] = row.ID
	}
	if err := r.reader.WaitFor(r.ctx, ids, step); err != nil {
		t.Error(err) // the report says more
	}
	if err := r.process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code, err := r.process.Wait(r.ctx); code != 0 || err != nil {
		t.Errorf("the relay ended with %d, %v; want 0", code, err)
	}
	if strings.Contains(r.process.LogTail(1<<30), "DATA RACE") {
		t.Error("the relay has a data race")
	}
	if err := r.reader.CatchUp(r.ctx); err != nil {
		t.Fatal(err)
	}
	samples := r.finished()
	table, err := r.load.TableIDs(r.ctx)
	if err != nil {
		t.Fatal(err)
	}
	report := chaos.Verify(chaos.History{
		Committed: out.Committed, RolledBack: out.RolledBack, KeyContention: out.Meetings,
		Records: r.reader.Records(), Table: table, Samples: samples,
	})
	t.Logf("%s; wrote %.0f rows/s; %+v", report, float64(len(ids))/took.Seconds(), out.Evidence)
	if err := report.Err(); err != nil {
		t.Error(err)
	}
	if len(samples) == 0 {
		t.Error("nobody looked at the slot")
	}
	return report
}

// discard is a log for what tests do not look at.
func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

func first(s []string) string { return s[0] }
