package chaos_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/outrider-cdc/outrider/internal/chaos"
)

func newBroker(t *testing.T) []string {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(3, "accounts"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	return cluster.ListenAddrs()
}

// record is one as a relay sends it.
func record(id byte, key string) *kgo.Record {
	return &kgo.Record{
		Topic: "accounts", Key: []byte(key), Value: []byte("value of " + key),
		Headers: []kgo.RecordHeader{
			{Key: "id", Value: []byte(chaos.ID{15: id}.String())},
			{Key: "type", Value: []byte("made")},
			{Key: "n", Value: []byte("7")},
			{Key: "own", Value: []byte("x")},
			{Key: "null"},
			{Key: "outrider-position", Value: []byte("0000000000000010.0000000000000002")},
			{Key: "outrider-source", Value: []byte("7.1.s.1")},
			{Key: "outrider-committed-at", Value: []byte("2026-01-02T03:04:05.000006Z")},
		},
	}
}

// reading runs a reader for the length of the test.
func reading(t *testing.T, cfg chaos.ReaderConfig) *chaos.Reader {
	t.Helper()
	r, err := chaos.NewReader(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("reader: %v", err)
		}
	})
	return r
}

func ended(t *testing.T, client *kgo.Client, how kgo.TransactionEndTry) {
	t.Helper()
	if err := client.EndTransaction(t.Context(), how); err != nil {
		t.Fatal(err)
	}
}

func TestReaderSeesTheEndBehindMarkers(t *testing.T) {
	brokers := newBroker(t)
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.TransactionalID("t"), kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for i, how := range []kgo.TransactionEndTry{kgo.TryCommit, kgo.TryAbort, kgo.TryCommit} {
		if err := client.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		for _, key := range []string{"a", "", "c"} {
			if err := client.ProduceSync(t.Context(), record(byte(i+1), key)).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
		ended(t, client, how)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for committed, want := range map[bool]int{true: 6, false: 9} {
		r := reading(t, chaos.ReaderConfig{Brokers: brokers, Topics: []string{"accounts"}, ReadCommitted: committed})
		if err := r.CatchUp(ctx); err != nil {
			t.Fatalf("read committed %v: %v", committed, err)
		}
		records := r.Records()
		if len(records) != want {
			t.Errorf("read committed %v: %d records, want %d", committed, len(records), want)
		}
		for i, rec := range records {
			if rec.Missing != 0 || !rec.Keyed || rec.N != 7 || rec.Type != "made" || rec.Source != "7.1.s.1" || rec.Position != (chaos.Position{LSN: 16, Ordinal: 2}) ||
				rec.Value != chaos.Hash([]byte("value of "+rec.Key)) || rec.Headers != chaos.HashHeader("own", []byte("x"))+chaos.HashHeader("null", nil) {
				t.Errorf("record is %+v", rec)
			}
			if i > 0 && rec.Partition == records[i-1].Partition && rec.Offset <= records[i-1].Offset {
				t.Error("records are not in the order of their offsets")
			}
		}
	}
}

func TestReaderMissesHeaders(t *testing.T) {
	brokers := newBroker(t)
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	twice := record(1, "a")
	twice.Headers = append(twice.Headers, kgo.RecordHeader{Key: "id", Value: twice.Headers[0].Value})
	if err := client.ProduceSync(t.Context(), &kgo.Record{Topic: "accounts"}, twice).FirstErr(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	r := reading(t, chaos.ReaderConfig{Brokers: brokers, Topics: []string{"accounts"}})
	if err := r.CatchUp(ctx); err != nil {
		t.Fatal(err)
	}
	for _, rec := range r.Records() {
		if rec.Keyed {
			if want := record(1, "a"); rec.Headers == chaos.HashHeader("own", []byte("x"))+chaos.HashHeader("null", nil) {
				t.Errorf("a header that is there twice went unnoticed: %v", want.Headers)
			}
			continue
		}
		if got, want := rec.Missing.String(), "id, outrider-position, outrider-source, outrider-committed-at, n"; got != want {
			t.Errorf("missing %q, want %q", got, want)
		}
		if !rec.Tombstone {
			t.Error("a null value is not a tombstone")
		}
	}
}

func TestReaderWaits(t *testing.T) {
	brokers := newBroker(t)
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	arrived := make(chan chaos.Record, 10)
	r := reading(t, chaos.ReaderConfig{Brokers: brokers, Topics: []string{"accounts"}, OnRecord: func(rec *chaos.Record) { arrived <- *rec }})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	ids := []chaos.ID{{15: 1}, {15: 2}}
	waited := make(chan error, 1)
	go func() { waited <- r.WaitFor(ctx, ids, 10*time.Second) }()
	for i := range ids {
		if err := client.ProduceSync(ctx, record(byte(i+1), "a")).FirstErr(); err != nil {
			t.Fatal(err)
		}
		<-arrived
	}
	if err := <-waited; err != nil {
		t.Error(err)
	}
	if err := r.WaitRows(ctx, 2); err != nil || r.Distinct() != 2 {
		t.Errorf("%d rows, %v", r.Distinct(), err)
	}
	err = r.WaitFor(ctx, append(ids, chaos.ID{15: 3}), 50*time.Millisecond)
	if err == nil || !strings.Contains(err.Error(), "1 of 3 rows did not arrive: nothing new for 50ms") {
		t.Errorf("a row that never came: %v", err)
	}
}
