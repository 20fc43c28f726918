package poisontest_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// readers are the two kinds of consumers.
type readers struct{ committed, all *reader }

func newReaders(t *testing.T, brokers []string, topics ...string) *readers {
	t.Helper()
	return &readers{newReader(t, kgo.ReadCommitted(), brokers, topics), newReader(t, kgo.ReadUncommitted(), brokers, topics)}
}

// reader reads topics from their start, those that are made later, too.
type reader struct {
	client *kgo.Client
	topics []string

	mu      sync.Mutex
	records []*kgo.Record
	next    map[string]int64 // by topic, which have one partition here
}

func newReader(t *testing.T, isolation kgo.IsolationLevel, brokers, topics []string) *reader {
	t.Helper()
	client, err := kgo.NewClient(
		kgo.SeedBrokers(brokers...), kgo.ConsumeTopics(topics...), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(isolation), kgo.KeepControlRecords(), kgo.FetchMaxWait(200*time.Millisecond),
		kgo.MetadataMinAge(250*time.Millisecond), kgo.MetadataMaxAge(time.Second),
	)
	if err != nil {
		t.Fatal(err)
	}
	r := &reader{client: client, topics: topics, next: map[string]int64{}}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() { r.run(ctx) })
	t.Cleanup(func() {
		cancel()
		done.Wait()
		client.Close()
	})
	return r
}

func (r *reader) run(ctx context.Context) {
	for ctx.Err() == nil {
		fetches := r.client.PollFetches(ctx) // errors are of topics that are not there yet; the client retries
		r.mu.Lock()
		fetches.EachRecord(func(k *kgo.Record) {
			r.next[k.Topic] = k.Offset + 1
			if !k.Attrs.IsControl() { // kept because markers take offsets
				r.records = append(r.records, k)
			}
		})
		r.mu.Unlock()
	}
}

// of are the records of a topic so far, in order.
func (r *reader) of(topic string) (records []*kgo.Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, k := range r.records {
		if k.Topic == topic {
			records = append(records, k)
		}
	}
	return records
}

// catchUp waits until everything was read that is on Kafka now.
func (r *reader) catchUp(t *testing.T, admin *kadm.Client) {
	t.Helper()
	await(t, func() error {
		for _, topic := range r.topics {
			ends, err := admin.ListEndOffsets(t.Context(), topic) // of the log: an open transaction holds the other one back
			if err != nil {
				return err
			}
			end, ok := ends.Lookup(topic, 0)
			r.mu.Lock()
			next := r.next[topic]
			r.mu.Unlock()
			if ok && end.Err == nil && next < end.Offset {
				return fmt.Errorf("read up to %d of %d in %s", next, end.Offset, topic)
			}
		}
		return nil
	})
}

// header is the first header of that name; "" if there is none.
func header(r *kgo.Record, name string) string {
	at := slices.IndexFunc(r.Headers, func(h kgo.RecordHeader) bool { return h.Key == name })
	if at < 0 {
		return ""
	}
	return string(r.Headers[at].Value)
}

// arrives waits until readers of committed records have seen the event in its topic.
func (w *world) arrives(id string) {
	w.t.Helper()
	w.arrivesIn(w.topic, id)
}

// arrivesIn waits for the event in that topic and returns its record.
func (w *world) arrivesIn(topic, id string) (found *kgo.Record) {
	w.t.Helper()
	await(w.t, func() error {
		records := w.seen.committed.of(topic)
		at := slices.IndexFunc(records, func(r *kgo.Record) bool { return header(r, "id") == id })
		if at < 0 {
			return fmt.Errorf("event %s is not in %s, which has %d records", id, topic, len(records))
		}
		found = records[at]
		return nil
	})
	return found
}

// absent fails if any reader has seen the event in its topic.
func (w *world) absent(ids ...string) {
	w.t.Helper()
	for _, r := range w.seen.all.of(w.topic) {
		if id := header(r, "id"); slices.Contains(ids, id) {
			w.t.Errorf("event %s, which is refused, is in %s at offset %d", id, r.Topic, r.Offset)
		}
	}
}

// headersOf shows a record's headers, for comparison by parts.
func headersOf(r *kgo.Record) string {
	var parts []string
	for _, h := range r.Headers {
		parts = append(parts, h.Key+"="+string(h.Value))
	}
	return strings.Join(parts, "\n") + "\n"
}
