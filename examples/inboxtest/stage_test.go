package inboxtest_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/outrider-cdc/outrider/internal/chaos"
	"github.com/outrider-cdc/outrider/internal/harness/postgres"
)

const (
	shopName  = "shop"
	deadTopic = "outrider.shop.dead-letter"
)

// stage is a service with its outbox and relay, Kafka, and another service that consumes.
type stage struct {
	t        *testing.T
	primary  *postgres.Server
	relay    chaos.Relay
	running  *chaos.Process
	topic    string
	client   *kgo.Client // produces copies
	admin    *kadm.Client
	effects  *pgx.Conn
	group    *group
	injected int

	pool      atomic.Pointer[pgxpool.Pool]
	paused    sync.RWMutex // for reading: somebody writes
	mu        sync.Mutex
	committed map[string]bool
}

func newStage(t *testing.T) *stage {
	t.Helper()
	w := &stage{t: t, committed: map[string]bool{}}
	cluster := broker.Cluster(t)
	w.topic = cluster.Topic(t, 3, nil)
	binary, err := chaos.Build(t.Context(), t.TempDir(), false)
	if err != nil {
		t.Fatal(err)
	}
	w.relay = chaos.Relay{Binary: binary, Log: filepath.Join(t.TempDir(), "relay.log"), Env: []string{
		"", "OUTRIDER_NAME=" + shopName, "OUTRIDER_KAFKA_BROKERS=" + strings.Join(cluster.Brokers(), ","), "OUTRIDER_POISON=dead-letter",
		"OUTRIDER_WAL_SENDER_TIMEOUT=2s",
		"OUTRIDER_KAFKA_COMPRESSION=none", // under the race detector a reader takes 5 ms for each compressed batch
	}}
	primary := postgres.Start(t, 0)
	primary.Private(t)
	w.livesOn(primary)
	if out, err := w.relay.Command(t.Context(), "migrate", "up"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if w.client, err = kgo.NewClient(kgo.SeedBrokers(cluster.Brokers()...), kgo.RecordPartitioner(kgo.ManualPartitioner())); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.client.Close)
	w.admin = kadm.NewClient(w.client)
	if _, err := w.admin.CreateTopic(t.Context(), 1, 1, nil, deadTopic); err != nil {
		t.Fatal(err)
	}
	url := consumerDatabase(t, postgres.Start(t, 0))
	w.effects = connect(t, url)
	must(t, w.effects, "CREATE TABLE effects (consumer text, event uuid, record text)")
	w.group = gather(t, 2, cluster.Brokers(), []string{w.topic, deadTopic}, url)
	return w
}

// livesOn tells everybody where the service's database is.
func (w *stage) livesOn(s *postgres.Server) {
	w.t.Helper()
	w.primary = s
	pool, err := pgxpool.New(w.t.Context(), s.URL())
	if err != nil {
		w.t.Fatal(err)
	}
	if old := w.pool.Swap(pool); old != nil {
		old.Close()
	} else {
		w.t.Cleanup(func() { w.pool.Load().Close() })
	}
	w.relay.Env[0] = "OUTRIDER_DATABASE_URL=" + s.URL()
}

// start starts the relay and waits until it leads.
func (w *stage) start() {
	w.t.Helper()
	p, err := w.relay.Start()
	if err != nil {
		w.t.Fatal(err)
	}
	w.running = p
	w.t.Cleanup(func() {
		if w.t.Failed() {
			w.t.Logf("end of the relay's log:\n%s", p.LogTail(3000))
		}
		p.Kill()
	})
	await(w.t, func() error {
		s, err := p.Status(w.t.Context())
		if err == nil && s.Role != "leader" {
			err = fmt.Errorf("role %s, %s", s.Role, s.Reason)
		}
		return err
	})
}

// write inserts an event with a value of that many octets, and remembers it once it is committed.
func (w *stage) write(ctx context.Context, size int) (id string, err error) {
	w.paused.RLock()
	defer w.paused.RUnlock()
	key, made := new(fmt.Sprint("k", rand.IntN(20))), "outbox.uuid_v7()"
	switch rand.IntN(10) {
	case 0:
		key = nil
	case 1:
		made = "gen_random_uuid()" // an id of the application's making
	}
	err = w.pool.Load().QueryRow(ctx, `INSERT INTO outbox.events (id, topic, key, payload)
SELECT `+made+`, $1, $2, to_json(left((SELECT string_agg(md5(random()::text), '') FROM generate_series(1, $3::int / 32 + 1)), $3)) RETURNING id::text`, w.topic, key, size).Scan(&id)
	if err == nil {
		w.mu.Lock()
		w.committed[id] = true
		w.mu.Unlock()
	}
	return id, err
}

// traffic writes from three sessions until stopped.
func (w *stage) traffic() (stop func()) {
	var writers sync.WaitGroup
	quit := make(chan struct{})
	for range 3 {
		writers.Go(func() {
			tick := time.NewTicker(8 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-tick.C:
				case <-quit:
					return
				}
				if _, err := w.write(w.t.Context(), 20+rand.IntN(100)); err != nil {
					w.t.Errorf("write: %v", err)
					return
				}
			}
		})
	}
	return sync.OnceFunc(func() { close(quit); writers.Wait() })
}

func (w *stage) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.committed)
}

// grow waits until n more events are committed.
func (w *stage) grow(n int) {
	w.t.Helper()
	before := w.count()
	await(w.t, func() error {
		if w.count() < before+n {
			return errors.New("nobody writes")
		}
		return nil
	})
}

// flow waits until n more events are committed and both consumers have had effects since.
func (w *stage) flow(n int) {
	w.t.Helper()
	ids, positions := len(w.effectsPer(byID)), len(w.effectsPer(byPosition))
	w.grow(n)
	await(w.t, func() error {
		if i, p := len(w.effectsPer(byID)), len(w.effectsPer(byPosition)); i < ids+n/2 || p < positions+n/2 {
			return fmt.Errorf("effects: %d, %d; %d, %d before", i, p, ids, positions)
		}
		return nil
	})
}

// effectsPer counts the effects of each event.
func (w *stage) effectsPer(consumer string) map[string]int {
	w.t.Helper()
	effects := map[string]int{}
	rows, err := w.effects.Query(w.t.Context(), "SELECT event::text, count(*)::int FROM effects WHERE consumer = $1 GROUP BY event", consumer)
	if err != nil {
		w.t.Fatal(err)
	}
	var id string
	var n int
	if _, err := pgx.ForEachRow(rows, []any{&id, &n}, func() error { effects[id] = n; return nil }); err != nil {
		w.t.Fatal(err)
	}
	return effects
}

// read returns all records of a topic, to its end as of now.
func (w *stage) read(topic string) (records []*kgo.Record) {
	w.t.Helper()
	ends, err := w.admin.ListEndOffsets(w.t.Context(), topic)
	if err != nil {
		w.t.Fatal(err)
	}
	offsets, left := map[string]map[int32]kgo.Offset{topic: {}}, int64(0)
	if err := ends.Error(); err != nil {
		w.t.Fatal(err)
	}
	ends.Each(func(o kadm.ListedOffset) {
		offsets[topic][o.Partition] = kgo.NewOffset().AtStart()
		left += o.Offset
	})
	client, err := kgo.NewClient(kgo.SeedBrokers(broker.Cluster(w.t).Brokers()...), kgo.ConsumePartitions(offsets))
	if err != nil {
		w.t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	for int64(len(records)) < left {
		fetches := client.PollFetches(ctx)
		if err := errors.Join(fetches.Err(), ctx.Err()); err != nil {
			w.t.Fatalf("%d of %d records of %s: %v; %v", len(records), left, topic, err, ends)
		}
		records = append(records, fetches.Records()...)
	}
	return records
}
