package poisontest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/outrider-cdc/outrider/internal/harness"
	"github.com/outrider-cdc/outrider/internal/harness/kafka"
	"github.com/outrider-cdc/outrider/internal/harness/postgres"
	"github.com/outrider-cdc/outrider/internal/migrate"
	"github.com/outrider-cdc/outrider/internal/secret"
	"github.com/outrider-cdc/outrider/relay"
	sink "github.com/outrider-cdc/outrider/sinks/kafka"
)

// patience is generous: the machine may be busy.
const patience = 60 * time.Second

// eachDelivery runs a test in both modes.
func eachDelivery(t *testing.T, test func(t *testing.T, delivery string)) {
	t.Helper()
	t.Parallel()
	for _, delivery := range []string{relay.AtLeastOnce, relay.ExactlyOnce} {
		t.Run(delivery, func(t *testing.T) {
			t.Parallel()
			test(t, delivery)
		})
	}
}

// world is a database with an outbox, a topic, and a topic of dead letters.
type world struct {
	t        *testing.T
	cluster  *kafka.Cluster
	admin    *kadm.Client
	url      string
	db       *pgx.Conn // superuser
	delivery string
	name     string // of the relay and of the database
	topic    string
	dead     string // topic of dead letters; the test makes it if it wants other settings
	network  *network
	seen     *readers
}

var worlds atomic.Int64

// newWorld makes a world whose topic has one partition, so that all rows can
// share a batch.
func newWorld(t *testing.T, delivery string) *world {
	t.Helper()
	pg := database.get(t)
	w := &world{
		t: t, cluster: broker.Cluster(t), delivery: delivery, network: newNetwork(),
		name: fmt.Sprintf("poison_%d_%d", time.Now().UnixMilli(), worlds.Add(1)),
	}
	admin := postgres.Connect(t, pg.URL())
	if _, err := admin.Exec(t.Context(), `CREATE DATABASE `+w.name); err != nil {
		t.Fatal(err)
	}
	w.url = pg.DatabaseURL(w.name)
	w.db = postgres.Connect(t, w.url)
	if _, err := migrate.Up(t.Context(), w.db, migrate.Options{}); err != nil {
		t.Fatal(err)
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(w.cluster.Brokers()...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	w.admin = kadm.NewClient(client)
	w.topic, w.dead = w.cluster.Topic(t, 1, nil), "outrider."+w.name+".dead-letter"
	w.seen = newReaders(t, w.cluster.Brokers(), w.topic, w.dead)
	return w
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

// write commits one event of that size at least and returns its id.
func (w *world) write(key string, size int) (id string) {
	w.t.Helper()
	return w.text(`INSERT INTO outbox.events (topic, key, payload) VALUES ($1, nullif($2, ''), to_json(`+padding+`)) RETURNING id`, w.topic, key, size)
}

// padding is text of $3 characters that no codec makes smaller than half.
const padding = `left((SELECT string_agg(md5(random()::text), '') FROM generate_series(1, $3::int / 32 + 1)), $3)`

// makeDead makes the topic of dead letters, with settings.
func (w *world) makeDead(settings ...string) {
	w.t.Helper()
	configs := map[string]*string{}
	for _, s := range settings {
		name, value, _ := strings.Cut(s, "=")
		configs[name] = &value
	}
	if _, err := w.admin.CreateTopic(w.t.Context(), 1, -1, configs, w.dead); err != nil {
		w.t.Fatalf("make topic %s: %v", w.dead, err)
	}
}

// deny keeps everybody from an operation on a topic, and from nothing else.
func (w *world) deny(topic string, operation kadm.ACLOperation) {
	w.t.Helper()
	// A resource with any rule is closed to whom none allows it.
	all := onTopic(topic).Allow(everybody).AllowHosts("*").Operations(kadm.OpAll)
	for _, rule := range []*kadm.ACLBuilder{all, denied(topic, operation)} {
		results, err := w.admin.CreateACLs(w.t.Context(), rule)
		for _, r := range results {
			err = errors.Join(err, r.Err)
		}
		if err != nil {
			w.t.Fatalf("deny %v on topic %s: %v", operation, topic, err)
		}
	}
}

// permit takes deny back.
func (w *world) permit(topic string, operation kadm.ACLOperation) {
	w.t.Helper()
	results, err := w.admin.DeleteACLs(w.t.Context(), denied(topic, operation))
	for _, r := range results {
		err = errors.Join(err, r.Err)
		if len(r.Deleted) != 1 {
			err = errors.Join(err, fmt.Errorf("%d rules removed", len(r.Deleted)))
		}
	}
	if err != nil {
		w.t.Fatalf("permit %v on topic %s: %v", operation, topic, err)
	}
}

// everybody is the name of who does not log in.
const everybody = "User:ANONYMOUS"

func onTopic(topic string) *kadm.ACLBuilder {
	return kadm.NewACLs().Topics(topic).ResourcePatternType(kadm.ACLPatternLiteral)
}

func denied(topic string, operation kadm.ACLOperation) *kadm.ACLBuilder {
	return onTopic(topic).Deny(everybody).DenyHosts("*").Operations(operation)
}

// hide keeps the settings of the topic from the relay, which then takes Kafka's
// defaults: what the broker refuses comes as a surprise each time.
func (w *world) hide() {
	w.t.Helper()
	w.deny(w.topic, kadm.OpDescribeConfigs)
}

// running is a relay in this process.
type running struct {
	*relay.Relay
	w    *world
	log  *testLog
	stop func()
}

// start runs a relay until the test ends or stop is called, which waits for its end.
func (w *world) start(policy string) *running {
	w.t.Helper()
	written := &testLog{t: w.t}
	log := slog.New(slog.NewTextHandler(written, nil))
	s, err := sink.New(sink.Config{
		Brokers: w.cluster.Brokers(), Compression: "lz4", CreatePartitions: -1, CreateReplication: -1, TransactionTimeout: 15 * time.Second,
	}, sink.Options{ClientID: "outrider." + w.name, ExactlyOnce: w.delivery == relay.ExactlyOnce, Logger: log, Dial: w.network.dial})
	if err != nil {
		w.t.Fatal(err)
	}
	r, err := relay.New(relay.Config{
		Name: w.name, DatabaseURL: secret.New(w.url), Publication: "outrider", Table: "outbox.events", Schema: "outbox",
		ColumnID: "id", ColumnTopic: "topic", ColumnKey: "key", ColumnType: "type",
		ColumnPayload: "payload", ColumnPayloadBytes: "payload_bytes", ColumnHeaders: "headers",
		MaxInFlightBytes: 64 << 20, MaxAhead: 1_000_000, WALSenderTimeout: 3 * time.Second, ShutdownTimeout: 5 * time.Second,
		Delivery: w.delivery, Poison: policy,
	}, s, log, prometheus.NewRegistry())
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- errors.Join(r.Run(ctx), s.Close()) }()
	run := &running{Relay: r, w: w, log: written}
	run.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("run: %v", err)
		}
	})
	w.t.Cleanup(run.stop)
	return run
}

// started is start, and what the relay knows once a first row has passed.
func (w *world) started(policy string) *running {
	w.t.Helper()
	r := w.start(policy)
	w.arrives(w.write("first", 10))
	return r
}

func (r *running) awaitRole(role relay.Role, reason string) (s relay.Status) {
	r.w.t.Helper()
	await(r.w.t, func() error {
		if s = r.Status(); s.Role != role || s.Reason != reason {
			return fmt.Errorf("role %s, reason %q, error %q; want %s, %q", s.Role, s.Reason, s.Error, role, reason)
		}
		return nil
	})
	return s
}

// deadRows are the rows of outbox.dead: id and state, in order of position.
func (w *world) deadRows() string {
	w.t.Helper()
	return w.text(`SELECT coalesce(string_agg(id || ' ' || state, ', ' ORDER BY source, position), '') FROM outbox.dead`)
}

func (w *world) awaitDead(want string) {
	w.t.Helper()
	await(w.t, func() error {
		if got := w.deadRows(); got != want {
			return fmt.Errorf("outbox.dead holds %q, want %q", got, want)
		}
		return nil
	})
}

// await polls until f returns nil.
func await(t *testing.T, f func() error) {
	t.Helper()
	harness.Await(t, patience, f)
}

// testLog shows the relay's log with the test, and remembers it.
type testLog struct {
	t    *testing.T
	mu   sync.Mutex
	text strings.Builder
}

var _ io.Writer = (*testLog)(nil)

// Write implements io.Writer.
func (l *testLog) Write(b []byte) (int, error) {
	l.t.Log(strings.TrimSuffix(string(b), "\n"))
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}
