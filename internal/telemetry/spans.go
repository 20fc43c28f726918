package telemetry

import (
	"context"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/outrider-cdc/outrider/relay"
)

// A batch takes no more messages than this, and none that comes later than that
// after its first: so a span tells how long *these* rows took. The number is
// that of links which a span keeps by default.
const (
	batchMessages = 128
	batchTime     = 20 * time.Millisecond
)

// traced is a sink with spans.
type traced struct {
	relay.Sink

	batches *batches
}

// Publish implements [relay.Sink].
func (s *traced) Publish(m *relay.Message) {
	s.batches.add(m)
	s.Sink.Publish(m)
}

// capable is a sink that does all that the relay may ask of one.
type capable interface {
	relay.Transactional
	relay.Prober
}

type tracedCapable struct {
	capable

	batches *batches
}

// Publish implements [relay.Sink].
func (s *tracedCapable) Publish(m *relay.Message) {
	s.batches.add(m)
	s.capable.Publish(m)
}

// batches makes a span of the messages that were published together.
type batches struct {
	tracer tracer
	now    func() time.Time
	common []attribute.KeyValue

	mu   sync.Mutex
	open *batch // takes messages; nil: none
}

// batch is a span to be: from the first message's publication until the last one's settlement.
type batch struct {
	began       time.Time
	messages    int
	unsettled   int
	topic       string // "" if there are several
	first, last relay.Position
	links       []trace.Link
	err         error
}

// add puts m into a batch. The goroutine that publishes calls it.
func (b *batches) add(m *relay.Message) {
	link, linked := origin(m)
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	o := b.open
	if o == nil || o.messages == batchMessages || now.Sub(o.began) > batchTime {
		o = &batch{began: now, topic: m.Topic, first: m.Position}
		b.open = o
	}
	o.messages++
	o.unsettled++
	o.last = m.Position
	if m.Topic != o.topic {
		o.topic = ""
	}
	// Events of one transaction mostly have one origin.
	if n := len(o.links); linked && (n == 0 || !o.links[n-1].SpanContext.Equal(link.SpanContext)) {
		o.links = append(o.links, link)
	}
	m.Watch(func(err error) { b.settled(o, err) })
}

// settled is called once a message, from any goroutine.
func (b *batches) settled(o *batch, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if o.err == nil {
		o.err = err
	}
	if o.unsettled--; o.unsettled > 0 {
		return
	}
	if b.open == o {
		b.open = nil
	}
	b.end(o)
}

// end makes the span. The batch is in no one's hands any more.
func (b *batches) end(o *batch) {
	name := "send"
	attributes := append([]attribute.KeyValue{
		attribute.Int("messaging.batch.message_count", o.messages),
		attribute.String("outrider.position.first", o.first.String()), attribute.String("outrider.position.last", o.last.String()),
	}, b.common...)
	if o.topic != "" {
		name += " " + o.topic
		attributes = append(attributes, attribute.String("messaging.destination.name", o.topic))
	}
	_, span := b.tracer.Start(context.Background(), name, trace.WithSpanKind(trace.SpanKindProducer), trace.WithTimestamp(o.began),
		trace.WithAttributes(attributes...), trace.WithLinks(o.links...), trace.WithNewRoot())
	if o.err != nil {
		span.SetStatus(codes.Error, o.err.Error())
	}
	span.End(trace.WithTimestamp(b.now()))
}

// origin is the span in which the application wrote the event, as W3C Trace
// Context writes it down. A header that is none is the application's business.
func origin(m *relay.Message) (trace.Link, bool) {
	context := propagation.TraceContext{}.Extract(context.Background(), carrier{m})
	link := trace.LinkFromContext(context)
	return link, link.SpanContext.IsValid()
}

// carrier reads headers of a message.
type carrier struct{ m *relay.Message }

// Get implements [propagation.TextMapCarrier]. Header names of HTTP, where these come from, have no case.
func (c carrier) Get(name string) string {
	for key, value := range c.m.Headers() {
		if strings.EqualFold(key, name) {
			return string(value)
		}
	}
	return ""
}

// Set implements [propagation.TextMapCarrier]: rows are not changed.
func (carrier) Set(string, string) {}

// Keys implements [propagation.TextMapCarrier].
func (carrier) Keys() []string { return []string{"traceparent", "tracestate"} }
