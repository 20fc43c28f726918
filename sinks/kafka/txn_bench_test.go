package kafka_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/outrider-cdc/outrider/internal/harness"
	brokers "github.com/outrider-cdc/outrider/internal/harness/kafka"
	"github.com/outrider-cdc/outrider/relay"
	"github.com/outrider-cdc/outrider/sinks/kafka"
)

// BenchmarkExactlyOnce compares both ways to deliver, over one broker: as many
// rows as it takes, and a thousand a second. It prints rates in rows per second,
// their ratio, and percentiles from Publish to Settle in milliseconds.
func BenchmarkExactlyOnce(b *testing.B) {
	c, err := brokers.Open(b.Context(), brokers.Options{Throughput: true})
	if errors.Is(err, brokers.ErrNoBuild) {
		harness.Missing(b, err)
	}
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = c.Close() })
	const rows = 500_000
	var rate [2][]float64
	var late [2][]time.Duration
	for b.Loop() {
		for i, opts := range []kafka.Options{{}, {ExactlyOnce: true}} {
			opts.Registerer = prometheus.NewRegistry()
			sink, err := kafka.New(config(c.Brokers()...), opts)
			if err != nil {
				b.Fatal(err)
			}
			source := relay.Source{SystemID: "1", Timeline: 1, Slot: "outrider_bench", Generation: 1}
			if _, err := sink.Begin(b.Context(), source); err != nil {
				b.Fatal(err)
			}
			topic := c.Topic(b, 12, nil)
			flood(b.Context(), sink, topic, rows/10) // warms the broker up
			began := time.Now()
			flood(b.Context(), sink, topic, rows)
			rate[i] = append(rate[i], rows/time.Since(began).Seconds())
			late[i] = append(late[i], trickle(sink, topic, 3000)...)
			if err := sink.Close(); err != nil {
				b.Fatal(err)
			}
		}
	}
	for i, name := range []string{"at-least-once", "exactly-once"} {
		slices.Sort(rate[i])
		slices.Sort(late[i])
		b.ReportMetric(rate[i][len(rate[i])/2], name+"-rows/s")
		for _, percent := range []int{50, 99} {
			b.ReportMetric(late[i][len(late[i])*percent/100].Seconds()*1000, name+"-p"+strconv.Itoa(percent)+"-ms")
		}
	}
	b.ReportMetric(rate[1][len(rate[1])/2]/rate[0][len(rate[0])/2], "ratio")
	b.ReportMetric(0, "ns/op")
}

// flood publishes n rows of 100 bytes with at most 64 MiB under way, as a relay
// with the default budget does, and waits for all.
func flood(ctx context.Context, sink *kafka.Sink, topic string, n int) {
	const inFlight = 64 << 20 / (512 + 300)
	free := make(chan struct{}, inFlight)
	var wg sync.WaitGroup
	wg.Add(n)
	value := bytes.Repeat([]byte("x"), 100)
	for i := range n {
		select {
		case free <- struct{}{}:
		case <-ctx.Done():
			return
		}
		sink.Publish(row(topic, i, value, func(err error) {
			if err != nil {
				panic(err)
			}
			<-free
			wg.Done()
		}))
	}
	wg.Wait()
}

// trickle publishes n rows, one a millisecond, and returns how long each took to settle.
func trickle(sink *kafka.Sink, topic string, n int) []time.Duration {
	late := make([]time.Duration, n)
	var wg sync.WaitGroup
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	for i := range n {
		<-ticker.C
		wg.Add(1)
		began := time.Now()
		sink.Publish(row(topic, i, []byte("value"), func(err error) {
			if err != nil {
				panic(err)
			}
			late[i] = time.Since(began)
			wg.Done()
		}))
	}
	wg.Wait()
	return late
}

func row(topic string, i int, value []byte, settle func(error)) *relay.Message {
	return relay.NewMessage(&relay.Message{
		ID: []byte("01919b52-6d5f-7d3e-8f0a-000000000000"), Topic: topic, Key: strconv.AppendInt(nil, int64(i%1000), 10), Value: value,
		Position: relay.Position{LSN: relay.LSN(i + 1)}, CommittedAt: time.Now(),
	}, nil, settle)
}
