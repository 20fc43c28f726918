package relay_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/outrider-cdc/outrider/internal/harness"
	"github.com/outrider-cdc/outrider/internal/harness/postgres"
	"github.com/outrider-cdc/outrider/internal/migrate"
	"github.com/outrider-cdc/outrider/internal/secret"
	"github.com/outrider-cdc/outrider/relay"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a private server with the outbox in it.
type world struct {
	t  *testing.T
	pg *postgres.Server
	db *pgx.Conn // superuser, in the outbox's database
}

func newWorld(t *testing.T, major int, settings ...string) *world {
	t.Helper()
	return newWorldOn(t, postgres.Start(t, major, settings...))
}

func newWorldOn(t *testing.T, pg *postgres.Server) *world {
	t.Helper()
	w := &world{t: t, pg: pg, db: postgres.Connect(t, pg.URL())}
	w.migrate(w.db)
	return w
}

func (w *world) migrate(db *pgx.Conn) {
	w.t.Helper()
	if _, err := migrate.Up(w.t.Context(), db, migrate.Options{}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) exec(sql string, args ...any) {
	w.t.Helper()
	if _, err := w.db.Exec(w.t.Context(), sql, args...); err != nil {
		w.t.Fatalf("%s: %v", sql, err)
	}
}

func (w *world) text(sql string, args ...any) string {
	w.t.Helper()
	var s *string
	if err := w.db.QueryRow(w.t.Context(), sql, args...).Scan(&s); err != nil {
		w.t.Fatalf("%s: %v", sql, err)
	}
	if s == nil {
		return ""
	}
	return *s
}

// write commits one event of topic t and key k, with n as its value.
func (w *world) write(ns ...int) {
	w.t.Helper()
	for _, n := range ns {
		w.exec(`INSERT INTO outbox.events (topic, key, payload) VALUES ('t', 'k', $1)`, fmt.Sprint(n))
	}
}

// config of a relay in this world, with short times.
func (w *world) config() relay.Config {
	return relay.Config{
		Name: "test", DatabaseURL: secret.New(w.pg.URL()), Publication: "outrider", Table: "outbox.events", Schema: "outbox",
		ColumnID: "id", ColumnTopic: "topic", ColumnKey: "key", ColumnType: "type",
		ColumnPayload: "payload", ColumnPayloadBytes: "payload_bytes", ColumnHeaders: "headers",
		MaxInFlightBytes: 4 << 20, MaxAhead: 1_000_000, WALSenderTimeout: 3 * time.Second, ShutdownTimeout: 5 * time.Second,
	}
}

// running is a relay in this process.
type running struct {
	*relay.Relay
	t        *testing.T
	sink     *memory
	registry *prometheus.Registry
	stop     func()
	done     chan error
}

// start runs a relay until the test ends or stop is called, which waits for its end.
func (w *world) start(cfg relay.Config, sink *memory) *running {
	w.t.Helper()
	return w.startWith(cfg, sink, sink)
}

// startWith runs a relay over a sink around sink.
func (w *world) startWith(cfg relay.Config, around relay.Sink, sink *memory) *running {
	w.t.Helper()
	registry := prometheus.NewRegistry()
	r, err := relay.New(cfg, around, slog.New(slog.NewTextHandler(testLog{w.t}, nil)), registry)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	run := &running{Relay: r, t: w.t, sink: sink, registry: registry, done: make(chan error, 1)}
	go func() { run.done <- r.Run(ctx) }()
	run.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-run.done; err != nil {
			w.t.Errorf("Run: %v", err)
		}
	})
	w.t.Cleanup(run.stop)
	return run
}

func (r *running) awaitRole(role relay.Role, reason string) relay.Status {
	r.t.Helper()
	var s relay.Status
	await(r.t, func() error {
		if s = r.Status(); s.Role != role || reason != "" && s.Reason != reason {
			return fmt.Errorf("role %s, reason %q, error %q; want %s, %q", s.Role, s.Reason, s.Error, role, reason)
		}
		return nil
	})
	return s
}

// awaitTimeout is generous: the machine may be busy.
const awaitTimeout = 30 * time.Second

// await polls until f returns nil.
func await(t *testing.T, f func() error) {
	t.Helper()
	harness.Await(t, awaitTimeout, f)
}

// memory is a sink that keeps what it is given, and can hold or refuse.
type memory struct {
	mu     sync.Mutex
	held   []*relay.Message
	holds  bool
	refuse error
	begun  []relay.Source
	got    []event
}

type event struct{ topic, key, value, headers string }

func (m *memory) Begin(_ context.Context, s relay.Source) (relay.Checkpoint, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.begun = append(m.begun, s)
	held := m.held
	m.held = nil
	for _, msg := range held {
		msg.Settle(errors.New("dropped by Begin"))
	}
	return relay.Checkpoint{}, nil
}

func (m *memory) Publish(msg *relay.Message) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.refuse != nil:
		msg.Settle(m.refuse)
	case m.holds:
		m.held = append(m.held, msg)
	default:
		m.take(msg)
	}
}

func (m *memory) take(msg *relay.Message) {
	var h []string
	for k, v := range msg.Headers() {
		h = append(h, k+"="+string(v))
	}
	m.got = append(m.got, event{msg.Topic, string(msg.Key), string(msg.Value), strings.Join(h, " ")})
	msg.Settle(nil)
}

func (m *memory) hold(on bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.holds = on
	if !on {
		for _, msg := range m.held {
			m.take(msg)
		}
		m.held = nil
	}
}

func (m *memory) refuseWith(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.refuse = err
}

func (m *memory) Close() error { return nil }

func (m *memory) values() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var v []string
	for _, e := range m.got {
		v = append(v, e.value)
	}
	return v
}

func (m *memory) events() []event {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]event(nil), m.got...)
}

// awaitValues waits until exactly these values have arrived, in this order.
func (r *running) awaitValues(want ...string) {
	r.t.Helper()
	await(r.t, func() error {
		if got := strings.Join(r.sink.values(), " "); got != strings.Join(want, " ") {
			return fmt.Errorf("arrived: %s; want %s (status %+v)", got, strings.Join(want, " "), r.Status())
		}
		return nil
	})
}

type testLog struct{ t *testing.T }

func (l testLog) Write(b []byte) (int, error) {
	l.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

var _ io.Writer = testLog{}
