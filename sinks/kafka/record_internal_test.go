package kafka

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/outrider-cdc/outrider/relay"
)

// What AbstractRecords.estimateSizeInBytesUpperBound(2, NONE, key, value,
// headers) adds up to: 61 + 21 + lengths as varints + bytes.
func TestEstimateIsJavas(t *testing.T) {
	for _, c := range []struct {
		record kgo.Record
		want   int
	}{
		{kgo.Record{}, 61 + 21 + 1 + 1 + 1},
		{kgo.Record{Key: []byte("key"), Value: bytes.Repeat([]byte("v"), 100)}, 61 + 21 + 1 + 3 + 2 + 100 + 1},
		{kgo.Record{Value: make([]byte, 63)}, 61 + 21 + 1 + 1 + 63 + 1},
		{kgo.Record{Value: make([]byte, 64)}, 61 + 21 + 1 + 2 + 64 + 1},
		{kgo.Record{Value: make([]byte, 1<<20)}, 61 + 21 + 1 + 4 + 1<<20 + 1},
		{kgo.Record{Headers: []kgo.RecordHeader{{Key: "k", Value: []byte("vv")}, {Key: "null"}}}, 61 + 21 + 1 + 1 + 1 + 1 + 1 + 1 + 2 + 1 + 4 + 1},
	} {
		if got := (&record{kafka: c.record}).estimate(); got != c.want {
			t.Errorf("estimate %d, want %d", got, c.want)
		}
	}
}

func TestLimitsFromSettings(t *testing.T) {
	const never = "9223372036854775807"
	for name, c := range map[string]struct {
		settings map[string]string
		want     limits
	}{
		"kafka 4 defaults": {
			map[string]string{configMaxBytes: "1048588", configCleanup: "delete", configRetention: "604800000", configType: "CreateTime", configBefore: never, configAfter: "3600000"},
			limits{maxBytes: 1048588, retention: 7 * 24 * time.Hour, maxAhead: time.Hour},
		},
		"kafka 3.5 with a difference": {
			map[string]string{configCleanup: "delete", configRetention: "-1", configDifference: "60000"},
			limits{maxBytes: defaultMaxBytes, maxBehind: time.Minute, maxAhead: time.Minute},
		},
		"the stricter of both": {
			map[string]string{configCleanup: "delete", configBefore: "1000", configAfter: never, configDifference: "2000"},
			limits{maxBytes: defaultMaxBytes, maxBehind: time.Second, maxAhead: 2 * time.Second},
		},
		"compacted, and nothing is deleted": {
			map[string]string{configCleanup: "compact", configRetention: "1000"},
			limits{maxBytes: defaultMaxBytes, compacted: true},
		},
		"compacted and deleted": {
			map[string]string{configCleanup: "compact,delete", configRetention: "1000"},
			limits{maxBytes: defaultMaxBytes, compacted: true, retention: time.Second},
		},
		"the broker sets the time": {
			map[string]string{configCleanup: "compact", configType: "LogAppendTime", configBefore: "1", configAfter: "1"},
			limits{maxBytes: defaultMaxBytes, compacted: true},
		},
		"larger than any request": {
			map[string]string{configMaxBytes: "2147483647"},
			limits{maxBytes: maxRequestBytes - 1024},
		},
		"hidden": {nil, limits{maxBytes: defaultMaxBytes, unexplained: true}},
	} {
		c.want.partitions = 3
		if got := *newLimits(3, c.settings); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

func TestTimestampWithinLimits(t *testing.T) {
	now := time.Now()
	l := limits{retention: 10 * time.Hour, maxBehind: 4 * time.Hour, maxAhead: time.Hour}
	for age, kept := range map[time.Duration]bool{
		0: true, 119 * time.Minute: true, 121 * time.Minute: false, 11 * time.Hour: false,
		-29 * time.Minute: true, -31 * time.Minute: false,
	} {
		committed := now.Add(-age)
		if got := l.timestamp(committed, now); got.Equal(committed) != (kept || age == 0) || !kept && !got.Equal(now) {
			t.Errorf("committed %s ago: %s ago", age, now.Sub(got))
		}
	}
	long := now.Add(-1e6 * time.Hour)
	if got := new(limits).timestamp(long, now); !got.Equal(long) {
		t.Error("without limits the commit time was not kept")
	}
}

func message(settle func(error)) *relay.Message {
	return relay.NewMessage(&relay.Message{
		ID: []byte("0198b6a0-0000-7000-8000-000000000000"), Topic: "orders", Key: []byte("customer-17"),
		Value: make([]byte, 100), Type: []byte("order.created"), CommittedAt: time.Now(),
	}, nil, settle)
}

func TestRecordsAllocateNothing(t *testing.T) {
	s := new(Sink)
	m, topic, l := message(nil), &topic{name: "orders"}, newLimits(1, nil)
	allocs := testing.AllocsPerRun(1000, func() {
		r := s.newRecord()
		r.fill(m, topic, l.timestamp(m.CommittedAt, time.Now()))
		if _, err := l.check(r); err != nil {
			t.Fatal(err)
		}
		s.release(r)
	})
	if allocs != 0 {
		t.Errorf("%.0f allocations a message", allocs)
	}
}

// held is a sink with a topic that it knows, whose records stay with it: nothing may be sent any more.
func held(tb testing.TB, budget int64) *Sink {
	tb.Helper()
	c := kfake.MustCluster(kfake.NumBrokers(1), kfake.SeedTopics(12, "orders"))
	tb.Cleanup(c.Close)
	s, err := New(Config{Brokers: c.ListenAddrs(), Compression: "lz4", CreatePartitions: -1, CreateReplication: -1}, Options{MaxInFlightBytes: budget})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = s.Close() })
	var over atomic.Bool
	if _, err := s.Begin(tb.Context(), relay.Source{Lease: func() bool { return !over.Load() }}); err != nil {
		tb.Fatal(err)
	}
	settled := make(chan error, 1)
	s.Publish(message(func(err error) { settled <- err }))
	if err := <-settled; err != nil {
		tb.Fatal(err)
	}
	over.Store(true)
	return s
}

// A message may take of the sink what the relay charges for it beside its bytes, and no more.
func TestMemoryOfAMessage(t *testing.T) {
	const n = 100_000
	s := held(t, n*1024)
	messages := make([]*relay.Message, n)
	for i := range messages {
		messages[i] = message(func(error) {})
	}
	heap := func() uint64 {
		runtime.GC()
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return stats.HeapAlloc
	}
	before := heap()
	for _, m := range messages {
		s.Publish(m)
	}
	each := float64(heap()-before) / n
	t.Logf("%.0f bytes a message with %d headers", each, messages[0].HeaderCount())
	if s.pending.n.Load() != n {
		t.Fatalf("%d messages are held", s.pending.n.Load())
	}
	if each > messageOverhead {
		t.Errorf("%.0f bytes a message", each)
	}
	runtime.KeepAlive(messages)
}

// The budget is the only bound: what it allows is taken, whatever the number of messages.
func TestBudgetFullOfSmallMessages(t *testing.T) {
	const n = 2000
	s := held(t, n*messageOverhead)
	refused := make(chan error, n)
	for range n {
		s.Publish(message(func(err error) { refused <- err }))
	}
	if len(refused) > 0 {
		t.Fatal(<-refused)
	}
}

// BenchmarkPublish is the sink and a broker in the same process; bare is franz-go alone with the same records.
func BenchmarkPublish(b *testing.B) {
	for _, bare := range []bool{false, true} {
		b.Run(fmt.Sprintf("bare=%v", bare), func(b *testing.B) { benchmark(b, bare) })
	}
}

func benchmark(b *testing.B, bare bool) {
	b.Helper()
	c := kfake.MustCluster(kfake.NumBrokers(1), kfake.SeedTopics(12, "orders"))
	defer c.Close()
	// The messages' settles give back the places that the relay's budget would.
	places := make(chan struct{}, 50_000)
	var wg sync.WaitGroup
	wg.Add(b.N)
	settle := func(err error) {
		if err != nil {
			b.Error(err)
		}
		<-places
		wg.Done()
	}
	s, err := New(Config{Brokers: c.ListenAddrs(), Compression: "lz4", CreatePartitions: -1, CreateReplication: -1},
		Options{MaxInFlightBytes: 2 * messageOverhead * int64(cap(places))})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Begin(b.Context(), relay.Source{}); err != nil {
		b.Fatal(err)
	}
	client := s.current.Load().client
	messages := make([]*relay.Message, b.N)
	for i := range messages {
		messages[i] = message(settle)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for _, m := range messages {
		places <- struct{}{}
		if !bare {
			s.Publish(m)
			continue
		}
		r := new(record)
		r.fill(m, &topic{name: m.Topic}, m.CommittedAt)
		client.TryProduce(context.Background(), &r.kafka, func(_ *kgo.Record, err error) { settle(err) })
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msgs/s")
}
