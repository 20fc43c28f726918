package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/outrider-cdc/outrider/internal/harness/child"
	"github.com/outrider-cdc/outrider/internal/harness/kafka"
	"github.com/outrider-cdc/outrider/internal/harness/postgres"
	"github.com/outrider-cdc/outrider/relay"
)

// Rows that a real Kafka refuses, from a real Postgres, through "outrider run".

// poisonWorld is a relay between a database and topics of its own.
type poisonWorld struct {
	*deadOutbox
	cluster     *kafka.Cluster
	topic, dead string
	address     string
	output      *lockedText
	stop        func()
}

// lockedText is what a running relay has logged.
type lockedText struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lockedText) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}
func (l *lockedText) String() string { l.mu.Lock(); defer l.mu.Unlock(); return l.text.String() }

// eachDelivery runs f under both, on one cluster.
func eachDelivery(t *testing.T, f func(t *testing.T, cluster *kafka.Cluster, delivery string)) {
	t.Helper()
	cluster := kafka.Start(t, 1, "auto.create.topics.enable=false")
	for _, delivery := range []string{relay.AtLeastOnce, relay.ExactlyOnce} {
		t.Run(delivery, func(t *testing.T) { f(t, cluster, delivery) })
	}
}

func newPoisonWorld(t *testing.T, cluster *kafka.Cluster, configs map[string]string, environ ...string) *poisonWorld {
	t.Helper()
	port, err := child.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	w := &poisonWorld{
		deadOutbox: deadOutboxIn(t, postgres.Start(t, 0).URL()), cluster: cluster, output: &lockedText{},
		topic: cluster.Topic(t, 1, configs), address: fmt.Sprintf("127.0.0.1:%d", port),
	}
	w.dead = w.topic + ".dead"
	name := "p_" + strings.ToLower(rand.Text()) // the servers are copies of one: nothing else tells their checkpoints apart
	w.environ = append([]string{"OUTRIDER_DATABASE_URL=" + w.url, "OUTRIDER_NAME=" + name}, "OUTRIDER_KAFKA_BROKERS="+strings.Join(cluster.Brokers(), ","), "OUTRIDER_HTTP_ADDR="+w.address,
		"OUTRIDER_WAL_SENDER_TIMEOUT=3s", "OUTRIDER_DEAD_LETTER_TOPIC="+w.dead)
	w.environ = append(w.environ, environ...)
	w.start()
	return w
}

func (w *poisonWorld) start() {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan int, 1)
	go func() {
		done <- run(ctx, process{environ: w.environ, stdout: io.Discard, stderr: w.output}, []string{"run"})
	}()
	stopped := false
	w.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if code := <-done; code != 0 {
			w.t.Errorf("outrider run: exit code %d\n%s", code, w.output)
		}
	}
	w.t.Cleanup(w.stop)
	w.awaitStatus("leader", "")
}

type poisonStatus struct {
	Role, Reason, Error, Hint string
	Sessions                  int64
	Conditions                []relay.Condition
}

func (w *poisonWorld) status() (s poisonStatus) {
	r, err := http.Get("http://" + w.address + "/status")
	if err != nil {
		return s
	}
	defer func() { _ = r.Body.Close() }()
	if err := json.NewDecoder(r.Body).Decode(&s); err != nil {
		w.t.Error(err)
	}
	return s
}

func (w *poisonWorld) awaitStatus(role, reason string) (s poisonStatus) {
	w.t.Helper()
	w.await(func() error {
		if s = w.status(); s.Role != role || s.Reason != reason {
			return fmt.Errorf("status %+v, want %s %s", s, role, reason)
		}
		return nil
	})
	return s
}

func (w *poisonWorld) await(f func() error) {
	w.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("%v\n%s", err, w.output)
		}
		<-time.After(20 * time.Millisecond)
	}
}

// write commits events n, n+1 … of one key in one transaction; null names those without a key.
func (w *poisonWorld) write(from, to int, null ...int) {
	w.t.Helper()
	w.exec(`INSERT INTO outbox.events (topic, key, payload) SELECT $1, CASE WHEN n = ANY($4::int[]) THEN NULL ELSE 'k' END, to_json(n) FROM generate_series($2::int, $3::int) n`,
		w.topic, from, to, slices.Concat(null, []int{}))
}

// values are what a reader of committed records finds in a topic, in order.
func (w *poisonWorld) values(topic string) (values []string, records []*kgo.Record) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer cancel()
	client, err := kgo.NewClient(kgo.SeedBrokers(w.cluster.Direct()...), kgo.ConsumeTopics(topic), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.KeepControlRecords())
	if err != nil {
		w.t.Fatal(err)
	}
	defer client.Close()
	ends, err := kadm.NewClient(client).ListCommittedOffsets(ctx, topic)
	end, ok := ends.Lookup(topic, 0)
	if err := errors.Join(err, end.Err); err != nil || !ok {
		return nil, nil // no such topic yet
	}
	for next := int64(0); next < end.Offset; {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			w.t.Fatalf("read %s up to %d, at %d: %v", topic, end.Offset, next, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if next = r.Offset + 1; !r.Attrs.IsControl() {
				values, records = append(values, string(r.Value)), append(records, r)
			}
		})
	}
	return values, records
}

// awaitValues waits until the topic has these, each once, in this order.
func (w *poisonWorld) awaitValues(topic string, want ...string) (records []*kgo.Record) {
	w.t.Helper()
	w.await(func() error {
		var got []string
		if got, records = w.values(topic); !slices.Equal(got, want) {
			return fmt.Errorf("%s has %d records %.300v, want %d %.300v", topic, len(got), got, len(want), want)
		}
		return nil
	})
	return records
}

func (w *poisonWorld) createDead(configs map[string]*string) {
	w.t.Helper()
	w.admin(func(ctx context.Context, admin *kadm.Client) error {
		_, err := admin.CreateTopic(ctx, 1, 1, configs, w.dead)
		return err
	})
}

func (w *poisonWorld) admin(f func(context.Context, *kadm.Client) error) {
	w.t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(w.cluster.Direct()...))
	if err != nil {
		w.t.Fatal(err)
	}
	defer client.Close()
	if err := f(w.t.Context(), kadm.NewClient(client)); err != nil {
		w.t.Fatal(err)
	}
}

func numbers(from, to int, without ...int) (list []string) {
	for n := from; n <= to; n++ {
		if !slices.Contains(without, n) {
			list = append(list, fmt.Sprint(n))
		}
	}
	return list
}

// The brokers refuse a batch of many rows, for a rule that came while the relay
// ran: the rows that break it are found in few sessions, and nothing else is
// lost, repeated or out of order.
func TestKafkaRefusesRowsAmongTenThousand(t *testing.T) {
	eachDelivery(t, func(t *testing.T, cluster *kafka.Cluster, delivery string) {
		w := newPoisonWorld(t, cluster, nil, "OUTRIDER_DELIVERY="+delivery, "OUTRIDER_POISON=dead-letter")
		w.createDead(nil)
		w.write(1, 10)
		w.awaitValues(w.topic, numbers(1, 10)...)
		before := w.status().Sessions
		w.cluster.SetTopic(w.t, w.topic, "cleanup.policy=compact")
		began := time.Now()
		w.write(11, 10_010, 3000, 8000)
		w.await(func() error {
			if got, _ := w.values(w.dead); len(got) != 2 {
				return fmt.Errorf("dead letters %v", got)
			}
			return nil
		})
		_, letters := w.values(w.dead)
		if string(letters[0].Value) != "3000" || string(letters[1].Value) != "8000" || letters[0].Key != nil {
			t.Errorf("dead letters %s and %s", letters[0].Value, letters[1].Value)
		}
		headers := map[string]string{}
		for _, h := range letters[0].Headers {
			headers[h.Key] = string(h.Value)
		}
		if headers["id"] != w.text(`SELECT id::text FROM outbox.events WHERE payload::text = '3000'`) || headers[relay.HeaderDeadTopic] != w.topic ||
			!strings.Contains(headers[relay.HeaderDeadReason], "key") || headers["outrider-position"] == "" {
			t.Errorf("headers of the dead letter: %v", headers)
		}
		want := numbers(1, 10_010, 3000, 8000)
		if delivery == relay.ExactlyOnce {
			w.awaitValues(w.topic, want...)
		} else {
			w.await(func() error { return firstOccurrences(w, want) })
		}
		if got := w.text(`SELECT string_agg(convert_from(value, 'UTF8') || ' ' || state, ', ' ORDER BY position) FROM outbox.dead`); got != "3000 dead-lettered, 8000 dead-lettered" {
			t.Errorf("outbox.dead holds %s", got)
		}
		sessions := w.status().Sessions - before
		t.Logf("%d sessions, %s", sessions, time.Since(began).Round(time.Millisecond))
		if sessions > 40 {
			t.Errorf("it took %d sessions", sessions)
		}
	})
}

// firstOccurrences compares what a topic holds, repeats aside: the log cleaner
// does not touch the active segment.
func firstOccurrences(w *poisonWorld, want []string) error {
	seen := map[string]bool{}
	var first []string
	got, _ := w.values(w.topic)
	for _, v := range got {
		if !seen[v] {
			seen[v] = true
			first = append(first, v)
		}
	}
	if !slices.Equal(first, want) {
		return fmt.Errorf("%d first occurrences of %d records, want %d", len(first), len(got), len(want))
	}
	return nil
}

// What a person sees of a relay that waits, and each way out, to the letter.
func TestKafkaRefusesARowAndThePersonActs(t *testing.T) {
	eachDelivery(t, func(t *testing.T, cluster *kafka.Cluster, delivery string) {
		for name, act := range map[string]func(w *poisonWorld, s poisonStatus) (there, dead []string){
			"mends": func(w *poisonWorld, s poisonStatus) ([]string, []string) {
				setting := regexp.MustCompile(`--entity-name '(\S+)' --add-config (\S+)=(\d+)`).FindStringSubmatch(s.Hint)
				if len(setting) != 4 || setting[1] != w.topic {
					w.t.Fatalf("hint %q", s.Hint)
				}
				w.cluster.SetTopic(w.t, setting[1], setting[2]+"="+setting[3])
				return []string{"1", "2", "large", "3"}, nil
			},
			"diverts": func(w *poisonWorld, s poisonStatus) ([]string, []string) {
				w.follow(s.Hint, "divert")
				return []string{"1", "2", "3"}, []string{"large"}
			},
			"skips": func(w *poisonWorld, s poisonStatus) ([]string, []string) {
				w.follow(s.Hint, "skip")
				return []string{"1", "2", "3"}, nil
			},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				w := newPoisonWorld(t, cluster, nil, "OUTRIDER_DELIVERY="+delivery)
				w.createDead(nil)
				w.write(1, 1)
				w.awaitValues(w.topic, "1")
				w.cluster.SetTopic(w.t, w.topic, "max.message.bytes=20000")
				w.write(2, 2)
				w.exec(`INSERT INTO outbox.events (topic, key, payload_bytes) SELECT $1, 'k', sha512(g::text::bytea) || string_agg(sha512(i::text::bytea), '') FROM generate_series(1, 1) g, generate_series(1, 700) i GROUP BY g`, w.topic)
				w.write(3, 3)
				s := w.awaitStatus("halted", "poison")
				id := w.text(`SELECT id::text FROM outbox.events WHERE payload_bytes IS NOT NULL`)
				for _, part := range []string{id, w.text(`SELECT position FROM outbox.dead`), "max.message.bytes"} {
					if !strings.Contains(s.Error, part) {
						t.Errorf("error %q does not tell %q", s.Error, part)
					}
				}
				w.awaitValues(w.topic, "1", "2") // and nothing behind it
				there, dead := act(w, s)
				w.awaitShort(w.topic, there...)
				w.awaitShort(w.dead, dead...)
				w.awaitStatus("leader", "")
			})
		}
	})
}

// follow runs the command of the hint that holds the word.
func (w *poisonWorld) follow(hint, word string) {
	w.t.Helper()
	line := regexp.MustCompile(`outrider deadletter ` + word + ` \S+`).FindString(hint)
	if line == "" {
		w.t.Fatalf("no command to %s in %q", word, hint)
	}
	w.works(strings.Fields(line)[2:]...)
}

// awaitShort is awaitValues with a long value written as large.
func (w *poisonWorld) awaitShort(topic string, want ...string) {
	w.t.Helper()
	w.await(func() error {
		got, _ := w.values(topic)
		for i := range got {
			if len(got[i]) > 40_000 {
				got[i] = "large"
			}
		}
		if !slices.Equal(got, want) {
			return fmt.Errorf("%s has %.300v, want %v", topic, got, want)
		}
		return nil
	})
}

// A topic of dead letters that is missing is waited for; one that refuses the letter gets a stub.
func TestKafkaRefusesTheDeadLetter(t *testing.T) {
	eachDelivery(t, func(t *testing.T, cluster *kafka.Cluster, delivery string) {
		w := newPoisonWorld(t, cluster, map[string]string{"max.message.bytes": "20000"}, "OUTRIDER_DELIVERY="+delivery, "OUTRIDER_POISON=dead-letter")
		w.exec(`INSERT INTO outbox.events (topic, key, payload_bytes) SELECT $1, 'k', string_agg(sha512(i::text::bytea), '') FROM generate_series(1, 700) i`, w.topic)
		w.write(2, 2)
		w.await(func() error {
			for _, c := range w.status().Conditions {
				if c.Topic == w.dead {
					return nil
				}
			}
			return fmt.Errorf("status %+v", w.status())
		})
		if got, _ := w.values(w.topic); len(got) != 0 {
			t.Errorf("arrived behind the row that waits: %v", got)
		}
		w.createDead(map[string]*string{"max.message.bytes": new("20000")})
		letters := w.awaitValues(w.dead, "")
		headers := map[string]string{}
		for _, h := range letters[0].Headers {
			headers[h.Key] = string(h.Value)
		}
		if headers[relay.HeaderDeadSize] != w.text(`SELECT octet_length(value)::text FROM outbox.dead`) || headers[relay.HeaderDeadSHA256] != w.text(`SELECT encode(sha256(value), 'hex') FROM outbox.dead`) {
			t.Errorf("headers of the stub: %v", headers)
		}
		w.awaitValues(w.topic, "2")
		if got := w.text(`SELECT state || (value = (SELECT payload_bytes FROM outbox.events WHERE payload_bytes IS NOT NULL))::text FROM outbox.dead`); got != "dead-letteredtrue" {
			t.Errorf("outbox.dead holds %s", got)
		}
	})
}

// A topic that nobody can have, in a table without its check.
func TestKafkaHasNoSuchTopic(t *testing.T) {
	eachDelivery(t, func(t *testing.T, cluster *kafka.Cluster, delivery string) {
		w := newPoisonWorld(t, cluster, nil, "OUTRIDER_DELIVERY="+delivery, "OUTRIDER_POISON=skip")
		w.exec(`ALTER TABLE outbox.events DROP CONSTRAINT topic_name`)
		w.write(1, 1)
		w.exec(`INSERT INTO outbox.events (topic, key, payload) VALUES ('no topic', 'k', '2')`)
		w.write(3, 3)
		w.awaitValues(w.topic, "1", "3")
		if got := w.text(`SELECT topic || ' ' || state FROM outbox.dead`); got != "no topic skipped" {
			t.Errorf("outbox.dead holds %s", got)
		}
	})
}

// A topic that takes no record from before its arrival, since a moment ago. At
// least once only: such a topic refuses the markers of transactions, too, so
// that none in it can end.
func TestKafkaRefusesTheTime(t *testing.T) {
	w := newPoisonWorld(t, kafka.Start(t, 1), nil)
	w.write(1, 1)
	w.awaitValues(w.topic, "1")
	w.cluster.SetTopic(w.t, w.topic, "message.timestamp.before.max.ms=0")
	w.write(2, 2)
	s := w.awaitStatus("halted", "poison")
	w.write(3, 3)
	setting := regexp.MustCompile(`--entity-name '(\S+)' --add-config ([a-z.]+)=(\S+)`).FindStringSubmatch(s.Hint)
	if len(setting) != 4 || setting[1] != w.topic || !strings.Contains(s.Error, "INVALID_TIMESTAMP") {
		t.Fatalf("error %q, hint %q", s.Error, s.Hint)
	}
	w.cluster.SetTopic(w.t, setting[1], setting[2]+"="+setting[3])
	w.awaitValues(w.topic, "1", "2", "3")
	if got := w.text(`SELECT count(*)::text FROM outbox.dead`); got != "0" {
		t.Errorf("%s rows in outbox.dead", got)
	}
}
