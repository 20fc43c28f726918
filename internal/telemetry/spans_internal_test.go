package telemetry

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/outrider-cdc/outrider/relay"
)

// recorded is batches whose spans are kept, and whose clock stands until it is moved.
type recorded struct {
	*batches
	spans *tracetest.InMemoryExporter
	clock time.Time
}

func newRecorded() *recorded {
	r := &recorded{spans: tracetest.NewInMemoryExporter(), clock: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(r.spans))
	r.batches = &batches{tracer: provider.Tracer("test"), now: func() time.Time { return r.clock }}
	return r
}

// message is published with these headers, name and value in turn.
func (r *recorded) message(topic string, headers ...string) *relay.Message {
	var own []relay.Header
	for pair := range slices.Chunk(headers, 2) {
		own = append(own, relay.Header{Key: pair[0], Value: []byte(pair[1])})
	}
	m := relay.NewMessage(&relay.Message{ID: []byte("id"), Topic: topic}, own, func(error) {})
	r.add(m)
	return m
}

func parent(n int) string { return fmt.Sprintf("00-%032x-%016x-01", n, n) }

func TestSpanOfABatch(t *testing.T) {
	r := newRecorded()
	began := r.clock
	batch := []*relay.Message{
		r.message("orders", "traceparent", parent(1), "tracestate", "vendor=x"),
		r.message("orders", "Traceparent", parent(1), "tracestate", "vendor=x"), // the same transaction
		r.message("orders"),
		r.message("orders", "traceparent", "00-not-a-parent"),
		r.message("orders", "traceparent", parent(2)),
	}
	r.clock = r.clock.Add(7 * time.Millisecond)
	for i, m := range batch {
		if got := len(r.spans.GetSpans()); got != 0 {
			t.Fatalf("%d spans while %d messages are on their way", got, len(batch)-i)
		}
		m.Settle(nil)
	}
	spans := r.spans.GetSpans()
	if len(spans) != 1 {
		t.Fatalf("%d spans", len(spans))
	}
	s := spans[0]
	if s.Name != "send orders" || !s.StartTime.Equal(began) || s.EndTime.Sub(s.StartTime) != 7*time.Millisecond || s.Status.Code != codes.Unset || s.Parent.IsValid() {
		t.Errorf("span %s from %s to %s, %v", s.Name, s.StartTime, s.EndTime, s.Status)
	}
	var links []string
	for _, l := range s.Links {
		links = append(links, l.SpanContext.TraceID().String()+" "+l.SpanContext.TraceState().String())
	}
	if diff := cmp.Diff([]string{fmt.Sprintf("%032x vendor=x", 1), fmt.Sprintf("%032x ", 2)}, links); diff != "" {
		t.Errorf("links (-want +got):\n%s", diff)
	}
	attributes := attribute.NewSet(s.Attributes...)
	for name, want := range map[attribute.Key]attribute.Value{
		"messaging.batch.message_count": attribute.IntValue(5), "messaging.destination.name": attribute.StringValue("orders"),
	} {
		if got, _ := attributes.Value(name); got != want {
			t.Errorf("%s is %v", name, got.String())
		}
	}
}

func TestWhatEndsABatch(t *testing.T) {
	r := newRecorded()
	full := make([]*relay.Message, 0, batchMessages+1)
	for range batchMessages + 1 { // one too many
		full = append(full, r.message("a"))
	}
	r.clock = r.clock.Add(batchTime + 1) // too late for the second batch
	late := r.message("b")
	late.Settle(nil)
	again := r.message("b") // the batch before is gone, though not full and not old
	again.Settle(errors.New("broker away"))
	for _, m := range full {
		m.Settle(nil)
	}
	var got []string
	for _, s := range r.spans.GetSpans() {
		attributes := attribute.NewSet(s.Attributes...)
		n, _ := attributes.Value("messaging.batch.message_count")
		got = append(got, fmt.Sprintf("%s %d %s %s", s.Name, n.AsInt64(), s.Status.Code, s.Status.Description))
	}
	want := []string{"send b 1 Unset ", "send b 1 Error broker away", "send a 128 Unset ", "send a 1 Unset "}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("spans (-want +got):\n%s", diff)
	}
}

func TestBatchOfSeveralTopicsNamesNone(t *testing.T) {
	r := newRecorded()
	one, other := r.message("a"), r.message("b")
	one.Settle(nil)
	other.Settle(nil)
	s := r.spans.GetSpans()[0]
	attributes := attribute.NewSet(s.Attributes...)
	if topic, ok := attributes.Value("messaging.destination.name"); s.Name != "send" || ok {
		t.Errorf("span %s, topic %s", s.Name, topic.String())
	}
}

// TestEveryMessageIsInOneSpan settles from many goroutines while messages come.
func TestEveryMessageIsInOneSpan(t *testing.T) {
	r := newRecorded()
	var settling sync.WaitGroup
	const n = 5000
	for range n {
		m := r.message("a")
		settling.Go(func() { m.Settle(nil) })
	}
	settling.Wait()
	total := int64(0)
	for _, s := range r.spans.GetSpans() {
		attributes := attribute.NewSet(s.Attributes...)
		count, _ := attributes.Value("messaging.batch.message_count")
		total += count.AsInt64()
	}
	if total != n {
		t.Errorf("spans speak of %d messages of %d", total, n)
	}
}
