package telemetry_test

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"
	metricspb "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	tracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/outrider-cdc/outrider/internal/chaos"
	"github.com/outrider-cdc/outrider/internal/harness"
	"github.com/outrider-cdc/outrider/internal/harness/kafka"
	"github.com/outrider-cdc/outrider/internal/harness/postgres"
)

var broker kafka.Shared

func TestMain(m *testing.M) { goleak.VerifyTestMain(broker.Closing(m)) }

const patience = time.Minute

// collector keeps what OTLP brings it.
type collector struct {
	mu      sync.Mutex
	spans   []*tracepb.ExportTraceServiceRequest
	metrics []*metricspb.ExportMetricsServiceRequest
}

// ServeHTTP is OTLP/HTTP with protobuf.
func (c *collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	spans, metrics := new(tracepb.ExportTraceServiceRequest), new(metricspb.ExportMetricsServiceRequest)
	switch r.URL.Path {
	case "/v1/traces":
		err = errors.Join(err, proto.Unmarshal(body, spans))
		c.mu.Lock()
		c.spans = append(c.spans, spans)
		c.mu.Unlock()
	case "/v1/metrics":
		err = errors.Join(err, proto.Unmarshal(body, metrics))
		c.mu.Lock()
		c.metrics = append(c.metrics, metrics)
		c.mu.Unlock()
	default:
		err = errors.New("unknown path")
	}
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
	}
}

// linked is the traces that spans link to, and how many messages they speak of.
func (c *collector) linked() (traces map[string]bool, messages int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	traces = map[string]bool{}
	for _, request := range c.spans {
		for _, resource := range request.GetResourceSpans() {
			for _, scope := range resource.GetScopeSpans() {
				for _, span := range scope.GetSpans() {
					for _, link := range span.GetLinks() {
						traces[hex.EncodeToString(link.GetTraceId())] = true
					}
					for _, a := range span.GetAttributes() {
						if a.GetKey() == "messaging.batch.message_count" {
							messages += a.GetValue().GetIntValue()
						}
					}
				}
			}
		}
	}
	return traces, messages
}

// published is the newest value of the counter of published events, over all topics.
func (c *collector) published() (n float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.metrics) == 0 {
		return 0
	}
	for _, resource := range c.metrics[len(c.metrics)-1].GetResourceMetrics() {
		for _, scope := range resource.GetScopeMetrics() {
			for _, m := range scope.GetMetrics() {
				if m.GetName() != "outrider_events_published_total" {
					continue
				}
				for _, p := range m.GetSum().GetDataPoints() {
					n += p.GetAsDouble()
				}
			}
		}
	}
	return n
}

// TestSpansAndMetricsReachACollector runs the binary, and looks at the collector and at Kafka.
func TestSpansAndMetricsReachACollector(t *testing.T) {
	binary, err := chaos.Build(t.Context(), t.TempDir(), false)
	if err != nil {
		t.Fatal(err)
	}
	c := new(collector)
	server := httptest.NewServer(c)
	defer server.Close()
	w := newWorld(t, binary, "OTEL_EXPORTER_OTLP_ENDPOINT="+server.URL,
		"OTEL_METRIC_EXPORT_INTERVAL=100", "OTEL_BSP_SCHEDULE_DELAY=50", "OTEL_SERVICE_NAME=shop-outbox")
	w.insert()
	w.wantUntouched()
	harness.Await(t, patience, func() error {
		traces, messages := c.linked()
		if published := c.published(); len(traces) != events/origins || messages != events || published != events {
			return fmt.Errorf("%d traces linked, %d messages in spans, %v counted", len(traces), messages, published)
		}
		return nil
	})
	for n := range events / origins {
		if traces, _ := c.linked(); !traces[fmt.Sprintf("%032x", n+1)] {
			t.Errorf("no span links to trace %d", n+1)
		}
	}
}

// TestRowsFlowWithoutTheCollector: telemetry never holds up a row, nor the end.
func TestRowsFlowWithoutTheCollector(t *testing.T) {
	binary, err := chaos.Build(t.Context(), t.TempDir(), false)
	if err != nil {
		t.Fatal(err)
	}
	silent, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0") // takes connections and never answers
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	w := newWorld(t, binary, "OTEL_EXPORTER_OTLP_ENDPOINT=http://"+silent.Addr().String(), "OTEL_METRIC_EXPORT_INTERVAL=100", "OTEL_BSP_SCHEDULE_DELAY=50")
	w.insert()
	w.wantUntouched()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := w.relay.Stop(ctx, syscall.SIGTERM); err != nil || w.relay.Err() != nil {
		t.Errorf("stop: %v, %v\n%s", err, w.relay.Err(), w.relay.LogTail(2000))
	}
	if log := w.relay.LogTail(20000); !strings.Contains(log, "telemetry was not sent") {
		t.Errorf("the log does not tell of it:\n%s", log)
	}
}

// The events come in threes of one origin.
const (
	events  = 300
	origins = 3
)

// world is a service with its outbox, a relay and Kafka.
type world struct {
	t     *testing.T
	url   string
	topic string
	relay *chaos.Process
}

func newWorld(t *testing.T, binary string, env ...string) *world {
	t.Helper()
	cluster := broker.Cluster(t)
	w := &world{t: t, url: postgres.Start(t, 0).URL(), topic: cluster.Topic(t, 2, nil)}
	r := chaos.Relay{Binary: binary, Log: filepath.Join(t.TempDir(), "log"), Env: append([]string{
		"OUTRIDER_DATABASE_URL=" + w.url, "OUTRIDER_KAFKA_BROKERS=" + strings.Join(cluster.Brokers(), ","), "OUTRIDER_NAME=telemetry",
	}, env...)}
	if out, err := r.Command(t.Context(), "migrate", "up"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var err error
	if w.relay, err = r.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.relay.Kill)
	return w
}

// headers of the row with that number, in the order that jsonb gives them.
func headers(n int) string {
	return fmt.Sprintf(`{"baggage": "user=%d;p=\"x y\"", "tracestate": "vendor=%d", "traceparent": "00-%032x-%016x-01"}`, n, n, n/origins+1, n+1)
}

func (w *world) insert() {
	w.t.Helper()
	conn, err := pgx.Connect(w.t.Context(), w.url)
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(w.t.Context())) }()
	for n := range events {
		if _, err := conn.Exec(w.t.Context(), `INSERT INTO outbox.events (topic, key, payload, headers) VALUES ($1, $2, $3, $4)`,
			w.topic, fmt.Sprint(n), fmt.Sprint(n), headers(n)); err != nil {
			w.t.Fatal(err)
		}
	}
}

// wantUntouched reads the topic: each record has the context that its row has.
func (w *world) wantUntouched() {
	w.t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(broker.Cluster(w.t).Brokers()...), kgo.ConsumeTopics(w.topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		w.t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	want, got := map[string]string{}, map[string]string{}
	for n := range events {
		want[fmt.Sprint(n)] = headers(n)
	}
	for len(got) < events {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			w.t.Fatalf("%d of %d records: %v\n%s", len(got), events, err, w.relay.LogTail(2000))
		}
		for r := range fetches.RecordsAll() {
			var own []string
			for _, h := range r.Headers {
				switch h.Key {
				case "traceparent", "tracestate", "baggage":
					own = append(own, fmt.Sprintf("%q: %q", h.Key, h.Value))
				}
			}
			got[string(r.Key)] = "{" + strings.Join(own, ", ") + "}"
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		w.t.Errorf("context of the events (-want +got):\n%s", diff)
	}
}
